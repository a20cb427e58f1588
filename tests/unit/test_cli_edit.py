# SPDX-License-Identifier: LGPL-2.1-or-later
"""`flavourctl policy edit`: nothing is saved that does not hold, and nothing that was written is lost."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flavourd.cli import here
from flavourd.cli.__main__ import main
from flavourd.cli.exits import Exit

from .golden import host
from .golden.daemon import Daemon, error, reply

_ROOT = Path(__file__).parents[2]
_GOOD = 'rules:\n  - match: {address: "0000:01:00.0"}\n    flavour: vfio\n'
_BAD = "rules:\n  - flavour: vfoi\n"
_MAIN = "from flavourd.cli.__main__ import main; raise SystemExit(main())"
_DEADLINE = 60  # far more than any of this takes


class Host:
    """A tree, and an editor that puts into its file what `writes` says, one after the other."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self._monkeypatch = root, monkeypatch
        self.local = root / "etc/flavourd/policy.d/local.yaml"
        self.seen = root / "seen"
        flavours = root / "usr/lib/flavourd/flavours.yaml"
        flavours.parent.mkdir(parents=True)
        flavours.write_text((_ROOT / "config/flavours.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        monkeypatch.setattr(here, "ROOT", root)
        monkeypatch.setenv("FLAVOURD_SOCKET", str(root / "socket"))
        monkeypatch.setenv("TMPDIR", str(root))
        monkeypatch.setattr("tempfile.tempdir", None)
        monkeypatch.delenv("VISUAL", raising=False)

    def editor(self, script: str) -> None:
        path = self.root / "an editor"
        path.write_text(f'#!/bin/sh\ncp "$2" {self.seen}\n{script}\n', encoding="utf-8")
        path.chmod(0o755)
        self._monkeypatch.setenv("EDITOR", f"'{path}' --wait")

    def writes(self, text: str) -> None:
        (self.root / "text").write_text(text, encoding="utf-8")
        self.editor(f'cp {self.root}/text "$2"')

    def copies(self) -> list[Path]:
        return [*self.root.glob("flavourctl-*/*")]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    before = os.umask(0o077)  # of a careful root: what is saved can be read by all the same
    yield Host(tmp_path, monkeypatch)
    os.umask(before)


def test_what_holds_is_saved_and_flavourd_told(there: Host, capsys: pytest.CaptureFixture[str]) -> None:
    there.writes(_GOOD)
    with Daemon(there.root / "socket", host.ANSWERS) as daemon:
        assert main(["policy", "edit"]) == Exit.OK
    assert len(daemon.asked("Reload")) == 1
    assert there.local.read_text(encoding="utf-8") == _GOOD
    assert there.local.stat().st_mode & 0o7777 == 0o644
    assert there.local.parent.stat().st_mode & 0o7777 == 0o755
    assert [path.name for path in there.local.parent.iterdir()] == ["local.yaml"]
    assert capsys.readouterr().out == f"{there.local} is saved; flavourd has read it\n"
    assert "flavourd.policy(5)" in there.seen.read_text(encoding="utf-8"), "a new file begins with an explanation"
    assert there.copies() == []


def test_without_flavourd_it_is_saved(there: Host, capsys: pytest.CaptureFixture[str]) -> None:
    there.writes(_GOOD)
    assert main(["policy", "edit", "50-nics"]) == Exit.OK
    assert there.local.with_name("50-nics.yaml").exists()
    assert "flavourd does not run, and reads it when it starts" in capsys.readouterr().out


def test_what_does_not_hold_is_kept_beside(there: Host, capsys: pytest.CaptureFixture[str]) -> None:
    there.local.parent.mkdir(parents=True, mode=0o755)
    there.local.write_text(_GOOD, encoding="utf-8")
    there.writes(_BAD)
    assert main(["policy", "edit", "local.yaml"]) == Exit.NOT_DONE
    assert there.local.read_text(encoding="utf-8") == _GOOD
    assert there.seen.read_text(encoding="utf-8") == _GOOD
    said = capsys.readouterr().err
    (copy,) = there.copies()
    assert copy.read_text(encoding="utf-8") == _BAD
    assert f"what you wrote is in {copy}" in said
    assert f"{there.local}:2:14: " in said, "mistakes are told with the place that the file would have"


def test_the_whole_policy_must_hold(there: Host, capsys: pytest.CaptureFixture[str]) -> None:
    other = there.root / "usr/lib/flavourd/policy.d/90-site.yaml"
    other.parent.mkdir(mode=0o755)
    other.write_text(_BAD, encoding="utf-8")
    there.writes(_GOOD)
    assert main(["policy", "edit"]) == Exit.NOT_DONE
    assert not there.local.exists()
    assert f"{other}:2:14: " in capsys.readouterr().err


def test_the_file_that_it_will_hide_is_what_a_new_one_begins_with(there: Host) -> None:
    lower = there.root / "usr/lib/flavourd/policy.d/90-site.yaml"
    lower.parent.mkdir(mode=0o755)
    lower.write_text(_BAD, encoding="utf-8")  # which so may be mended
    there.writes(_GOOD)
    assert main(["policy", "edit", "90-site"]) == Exit.OK
    assert there.seen.read_text(encoding="utf-8") == _BAD


@pytest.mark.parametrize("script", ["true", 'rm "$2"', ': >"$2"'])
def test_nothing_written_is_nothing_changed(there: Host, script: str, capsys: pytest.CaptureFixture[str]) -> None:
    there.editor(script)
    assert main(["policy", "edit"]) == Exit.OK
    assert capsys.readouterr().out == "nothing was changed\n"
    assert not there.local.exists()
    assert there.copies() == []


def test_an_editor_that_fails_saves_nothing(there: Host, capsys: pytest.CaptureFixture[str]) -> None:
    there.editor('echo "# x" >>"$2"; exit 3')
    assert main(["policy", "edit"]) == Exit.NOT_DONE
    assert not there.local.exists()
    assert len(there.copies()) == 1
    assert "ended with 3" in capsys.readouterr().err


def test_an_editor_that_is_not_there_is_told(
    there: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VISUAL", "/nowhere/vi")
    assert main(["policy", "edit"]) == Exit.NOT_DONE
    monkeypatch.setenv("VISUAL", "'")
    assert main(["policy", "edit"]) == Exit.NOT_DONE
    monkeypatch.delenv("VISUAL")
    monkeypatch.delenv("EDITOR", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["policy", "edit"]) == Exit.NOT_DONE
    said = capsys.readouterr().err
    assert re.findall(r"^flavourctl: (.*)$", said, re.MULTILINE) == [
        "/nowhere/vi cannot be run: No such file or directory",
        'VISUAL or EDITOR cannot be understood: "\'": No closing quotation',
        "there is no editor here: editor, nano, vi",
    ]
    assert there.copies() == []


def test_what_somebody_else_saved_meanwhile_stays(there: Host, capsys: pytest.CaptureFixture[str]) -> None:
    there.writes(_GOOD)
    there.local.parent.mkdir(parents=True, mode=0o755)
    there.editor(f'cp {there.root}/text "$2"; echo "# theirs" >{there.local}')
    assert main(["policy", "edit"]) == Exit.NOT_DONE
    assert there.local.read_text(encoding="utf-8") == "# theirs\n"
    assert len(there.copies()) == 1
    assert "somebody else has changed it meanwhile" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["/dev/null", "elsewhere.yaml"])
def test_links_are_not_followed(there: Host, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    there.local.parent.mkdir(parents=True, mode=0o755)
    there.local.symlink_to(target)
    there.writes(_GOOD)
    assert main(["policy", "edit"]) == Exit.NOT_DONE
    assert not there.seen.exists()
    assert f"a link to {target}" in capsys.readouterr().err


def test_what_flavourd_does_not_take_is_told_as_saved(there: Host, capsys: pytest.CaptureFixture[str]) -> None:
    there.writes(_GOOD)
    refusal = error("Refused", code="config", message="flavourd.yaml: no such guard", hint="mend it")
    with Daemon(there.root / "socket", {"Reload": [refusal]}):
        assert main(["policy", "edit"]) == Exit.NOT_DONE
    assert there.local.exists()
    assert f"{there.local} is saved, but flavourd did not take it: flavourd.yaml: no" in capsys.readouterr().err
    assert there.copies() == []


def test_json_tells_whether_it_was_saved(there: Host, capsys: pytest.CaptureFixture[str]) -> None:
    there.writes(_GOOD)
    with Daemon(there.root / "socket", {"Reload": [reply()]}):
        assert main(["policy", "edit", "--json=short"]) == Exit.OK
    assert capsys.readouterr().out.startswith(f'{{"path":"{there.local}","saved":true')


@pytest.mark.parametrize(("answer", "saved"), [("\n", True), ("n\n", False)])
def test_who_sits_at_a_terminal_may_edit_again(there: Host, answer: str, saved: bool) -> None:
    (there.root / "text").write_text(_GOOD, encoding="utf-8")
    (there.root / "bad").write_text(_BAD, encoding="utf-8")
    once = there.root / "once"
    there.editor(f'if [ -e {once} ]; then cp {there.root}/text "$2"; else touch {once}; cp {there.root}/bad "$2"; fi')
    ours, theirs = pty.openpty()
    code = f"from pathlib import Path; from flavourd.cli import here; here.ROOT = Path({str(there.root)!r})"
    process = subprocess.Popen(
        (sys.executable, "-c", f"{code}; {_MAIN}", "policy", "edit"),
        cwd=_ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    while b"edit again?" not in seen:
        seen += os.read(ours, 4096)
    os.write(ours, answer.encode())
    try:
        while part := os.read(ours, 4096):
            seen += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(_DEADLINE) == (Exit.OK if saved else Exit.NOT_DONE)
    assert there.local.exists() == saved
    assert (b"what you wrote is in" in seen) != saved
