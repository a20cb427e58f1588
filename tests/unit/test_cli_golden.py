# SPDX-License-Identifier: LGPL-2.1-or-later
"""What flavourctl tells, verb by verb, as transcripts in golden/*.txt.

Below each command stand its stdout, its stderr behind `! `, and its exit code if that is not 0.
"""

import os
import shlex
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from flavourd import __version__
from flavourd.cli import codes, here, initramfs
from flavourd.cli.__main__ import main
from flavourd.cli.exits import Exit

from .golden import host
from .golden.daemon import HANG_UP, Daemon, Script, error, more, reply

_FOLDER = Path(__file__).with_name("golden")
_REGENERATE = "FLAVOURD_REGENERATE"

# Transcript -> commands, each with the answers that differ from those of `host.ANSWERS`.
_TRANSCRIPTS: Mapping[str, list[tuple[str, dict[str, Script]]]] = {
    "list": [
        ("list", {}),
        ("list --no-legend --class ethernet", {}),
        ("list --class 0x01 --no-legend", {}),
        ("list --flavour vfio '06:*' 01:00.0", {}),
        ("list --driver -", {}),
        ("list --group 15 --json=short", {}),
        ("list --group 99", {}),
        ("list --no-legend", {"List": [reply(devices=[host.CLAIMED | {"state": "contested"}])]}),
        ("list --json=pretty dma0", {"List": [reply(devices=host.TWINS[:1])]}),
    ],
    "tree": [
        ("tree", {}),
        ("tree --all", {"List": [reply(devices=[host.BRIDGE, host.MAC])]}),
        ("tree 00:1c.0", {}),
        ("tree 01:00.0", {}),
        ("tree --json=short 01:00.0", {"List": [reply(devices=[{"id": "pci/0000:01:00.0"}])]}),
    ],
    "show": [
        ("show 01:00.0", {}),
        ("show 41:00.0 enp6s0 06:10.0", {}),
        ("show platform/fe200000.ethernet --json=short", {}),
        ("show 01:00.1", {}),
        ("show 05:02.0", {"Describe": [reply(device=host.BLOCKER | {"state": "contested"}, members=[])]}),
    ],
    "set": [
        ("set 06:10.0 vfio", {"Set": host.switching(host.SWITCHED)}),
        ("set 06:10.0 0000:01:00.0 vfio", {"Set": host.switching(host.SWITCHED, host.SECOND_TRY)}),
        ("set 06:10.0 05:02.0 07:00.0 vfio", {"Set": host.switching(host.SWITCHED, host.UNDONE, host.BROKEN)}),
        ("set 05:02.0 vfio", {"Set": host.switching(host.UNDONE)}),
        ("set 05:02.0 vfio --json=short", {"Set": host.switching(host.UNDONE)}),
        ("set 01:00.0 vfio --dry-run", {"Set": [reply(plans=[host.PLANS["vfio"]])]}),
        ("set 06:10.0 00:1c.0 vfio --dry-run", {"Set": [reply(plans=[host.PLAN_ALREADY, host.PLAN_REFUSED])]}),
        (
            "set 06:10.0 vfoi",
            {
                "Set": [
                    error("Refused", code="unknown-flavour", message="no flavour vfoi", hint="did you mean vfio?"),
                ]
            },
        ),
        ("set 01:00.1 vfio", {"Set": [host.NO_DEVICE]}),
        ("set 06:10.0 vfio", {"Set": [error("NotPermitted", message="you may not switch devices", hint="use sudo")]}),
        (
            "set 06:10.0 05:02.0 07:00.0 vfio",
            {"Set": [*host.switching(host.SWITCHED, host.UNDONE, host.BROKEN)[:6], HANG_UP]},
        ),
        ("set 06:10.0 01:00.0 vfio --json=short", {"Set": [*host.switching(host.SWITCHED)[:3], HANG_UP]}),
        ("set 07:00.0 vfio", {"Set": host.switching(host.IN_USE)}),
        ("set 07:00.0 vfio --force open", {"Set": host.switching(host.ALTHOUGH)}),
        (
            "set 07:00.0 vfio --dry-run",
            {"Set": [reply(plans=[host.PLAN_IN_USE, host.PLAN_ALTHOUGH])]},
        ),
        # Others of the group are told of, too.
        ("set 05:02.0 vfio --group", {"Set": host.switching(host.TOGETHER, host.UNDONE)}),
        ("set 05:02.0 vfio --group", {"Set": [*host.switching(host.TOGETHER, host.UNDONE)[:4], HANG_UP]}),
        ("set 06:10.0 vfio", {"Set": [HANG_UP]}),
        ("set 06:10.0 vfio", {"Set": [reply(outcomes=[])]}),
        # Where it is written down is told when all is switched.
        (
            "set 06:10.0 vfio --persist",
            {"Set": [*host.switching(host.SWITCHED)[:-1], reply(outcomes=[host.PERSISTED])]},
        ),
        (
            "set 06:10.0 01:00.0 vfio --persist",
            {
                "Set": [
                    *host.switching(host.SWITCHED, host.SECOND_TRY)[:-1],
                    reply(outcomes=[host.PERSISTED, host.PERSISTED_TOO]),
                ]
            },
        ),
        (
            "set 06:10.0 vfio --persist",
            {
                "Set": [
                    *host.switching(host.SWITCHED)[:-1],
                    error(
                        "NotDone",
                        code="host",
                        message="all is switched, but that could not be written down for the next boot: no space",
                        hint="make /etc/flavourd writable, then ask again",
                        outcomes=[host.SWITCHED],
                    ),
                ]
            },
        ),
        (
            "set 06:10.0 vfio --persist",
            {"Set": [error("org.varlink.service.InvalidParameter", parameter="persist")]},
        ),
    ],
    "reset": [
        ("reset 01:00.0", {"Reset": host.switching(host.BACK)}),
        ("reset 01:00.0 --dry-run", {"Reset": [reply(plans=[host.PLANS["default"]])]}),
        (
            "reset 01:00.0 --dry-run",
            {"Reset": [reply(plans=[host.PLANS["default"] | {"target": None}])]},
        ),
        ("reset 01:00.0 --persist", {"Reset": host.switching(host.NOT_PERSISTED)}),
    ],
    "cancel": [
        ("cancel 06:10.0", {"Cancel": [reply(withdrawn=1)]}),
        ("cancel '06:*' 07:00.0", {"Cancel": [reply(withdrawn=12)]}),
        ("cancel 07:00.0", {"Cancel": [reply(withdrawn=0)]}),
        ("cancel '06:*' 07:00.0", {"Cancel": [reply(withdrawn=0)]}),
        ("cancel 07:00.0 --json=short", {"Cancel": [reply(withdrawn=3)]}),
        ("cancel 01:00.1", {"Cancel": [host.NO_DEVICE]}),
        ("cancel 07:00.0", {"Cancel": [error("NotPermitted", message="you may not switch devices", hint="use sudo")]}),
    ],
    "explain": [
        ("explain 01:00.0 vfio", {}),
        ("explain 01:00.0", {}),
        ("explain 01:00.0 default --json=short", {}),
        ("explain '05:*' vfio", {"Explain": [reply(plans=[host.PLAN_REFUSED])]}),
        ("explain 00:1c.0", {"Explain": [reply(plans=[host.PLAN_REFUSED])]}),
        ("explain native-refused", {}),
        ("explain undone", {}),
        ("explain mounted", {}),
        ("explain 07:00.0 vfio --force table", {"Explain": [reply(plans=[host.PLAN_IN_USE])]}),
        ("explain all-refusd", {}),
    ],
    "monitor": [("monitor", {}), ("monitor --json=short", {})],
    "history": [
        ("history", {}),
        ("history -n 1 01:00.0 --no-legend", {}),
        ("history --full -n 3", {}),
        ("history --json=short enp5s2 -n 1", {"History": [reply(outcomes=[])]}),
    ],
    "status": [
        ("status", {}),
        ("status", {"Status": [reply(**host.STATUS_IN_TROUBLE)]}),
        ("status --json=short", {"Status": [reply(version="0.1.0", ready=True)]}),
        ("status", {"Status": [reply(version="0.1.0", ready=True, policy=host.NO_POLICY)]}),
        ("status", {"Status": [reply(version="0.1.0", policy=host.NO_POLICY | {"error": host.BAD_POLICY})]}),
    ],
    "policy-match": [
        ("policy match nvme0n1", {}),
        ("policy match end0 07:00.0", {}),
        ("policy match 07:00.0", {"MatchPolicy": [reply(verdict=host.VERDICTS[2], rules=[], loaded=False)]}),
        ("policy match 07:00.0 --json=short", {"MatchPolicy": [reply(loaded=True)]}),
        ("policy match 01:00.1", {}),
        ("policy match 07:00.0", {"MatchPolicy": [host.REFUSED_POLICY]}),
    ],
    "policy-diff": [
        ("policy diff", {}),
        ("policy diff --all", {}),
        ("policy diff --no-legend", {}),
        ("policy diff", {"DiffPolicy": [reply(verdicts=host.VERDICTS[1:], loaded=False)]}),
        ("policy diff", {"DiffPolicy": [reply(verdicts=[], loaded=True)]}),
        ("policy diff --json=short", {"DiffPolicy": [reply(verdicts=[], loaded=True)]}),
        ("policy diff", {"DiffPolicy": [reply(verdicts=host.VERDICTS[1:2], unseen=[host.CLAIMED["id"]], loaded=True)]}),
        ("policy diff", {"DiffPolicy": [reply(verdicts=[], unseen=[host.CLAIMED["id"]], loaded=True)]}),
        ("policy diff", {"DiffPolicy": [host.REFUSED_POLICY]}),
    ],
    "reload": [
        ("reload", {}),
        ("reload", {"Status": [reply(policy=host.NO_POLICY)]}),
        ("reload --json=short", {}),
        ("reload", {"Reload": [host.REFUSED_POLICY]}),
        ("reload", {"Reload": [error("NotPermitted", message="you may not reload flavourd", hint="use sudo")]}),
    ],
    "complete": [
        ("complete devices", {"List": [reply(devices=[host.PF, host.DISK])]}),
        ("complete flavours", {}),
        ("complete flavours", {"Status": [HANG_UP]}),
        ("complete codes", {}),
        ("complete guards", {}),
    ],
    "errors": [
        ("show nvme0n1p2", {}),
        ("show enp5s3", {}),
        ("list 05:02.1", {}),
        ("show dma0", {}),
        ("show 'zz*'", {}),
        ("show zz", {}),
        ("status", {"Status": [HANG_UP]}),
        ("status", {"Status": [b"no json"]}),
        ("status", {"Status": [b"[]"]}),
        ("status", {"Status": [b'{"parameters": 5}']}),
        ("status", {"Status": [error("org.varlink.service.MethodNotFound", method="io.flavourd.Manager.Status")]}),
        ("status", {"Status": [error("org.varlink.service.InvalidParameter", parameter="colour")]}),
        ("status", {"Status": [error("com.example.Strange", x=1)]}),
        ("status", {"Status": [error("Refused", code="host", message="/run is full [host]", hint="")]}),
        # Of a newer daemon: a kind, a step and fields that nobody here knows; of an older one: fields that are missing
        (
            "set 06:10.0 vfio",
            {"Set": [more(step={"what": "x", "y": 1}), reply(outcomes=[host.SWITCHED | {"kind": "half"}])]},
        ),
        ("set 06:10.0 vfio", {"Set": [reply(outcomes=[{"device": "pci/0000:06:10.0", "kind": "already"}])]}),
        ("explain 06:10.0 vfio", {"Explain": [reply(plans=[{"device": "pci/x", "kind": "half", "message": "so"}])]}),
        ("list", {"List": [reply(devices=[{"id": "pci/0000:06:10.0", "colour": "red"}])]}),
        # What would move a terminal
        ("list", {"List": [reply(devices=[host.device("pci/\x1b[2J", vendor="a\x9bb\n\u202ec")])]}),
        ("list --json=short", {"List": [reply(devices=[{"id": "pci/\x1b[2J\x9b\u202e"}])]}),
        ("status", {"Status": [error("Refused", code="host", message="a\x1b[2Jb\nc", hint="d\r")]}),
    ],
}


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times are those of Greenwich, and codes those of golden/errors.md."""
    monkeypatch.setattr(codes, "_PLACES", ("../tests/unit/golden/errors.md",))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


_NICS, _SITE = "etc/flavourd/policy.d/50-nics.yaml", "usr/lib/flavourd/policy.d/90-site.yaml"
_TWIN = """\
# One of two
rules:
  - name: one of two twins
    match: {address: "0000:01:00.0"}
    flavour: vfio
"""
_REST = "rules: [{match: {class: bridge}, flavour: default}]\n"
_WRONG = """\
rules:
  - match: {vendor: 8086}
    flavour: vfoi
  - flavor: vfio
"""
_POLICY = {_NICS: _TWIN, _SITE: _REST}
_IMAGE, _MARK = f"boot/initrd.img-{os.uname().release}", "etc/flavourd/initramfs"
_BUILDS = f"cd $(dirname $0)/..; mkdir -p boot; echo > {_IMAGE}"

# Transcript -> commands, each with the files of the host that it looks at.
_TRANSCRIPTS_OF_FILES: Mapping[str, list[tuple[str, dict[str, str]]]] = {
    "policy-check": [
        ("policy check", {}),
        ("policy check", _POLICY),
        ("policy check", _POLICY | {_NICS: _WRONG}),
        ("policy check --json=pretty", _POLICY | {_NICS: _WRONG}),
        ("policy check ROOT/own.yaml", _POLICY | {"own.yaml": _TWIN}),
        ("policy check ROOT/own.yaml ROOT/none.yaml", {"own.yaml": _REST.replace("rules", "rule")}),
        ("policy check", _POLICY | {_NICS: "rules: [{flavour: default}]\n"}),
        ("policy check", {"etc/flavourd/flavours.yaml": "flavour: {}\n"}),
        ("-H node7 policy check", {}),
    ],
    "policy-cat": [
        ("policy cat", {}),
        ("policy cat", _POLICY),
        ("policy cat", _POLICY | {"etc/flavourd/policy.d/90-site.yaml": _WRONG}),
        ("policy cat --json=pretty", {_SITE: _REST}),
    ],
    "policy-edit": [
        ("policy edit ../x", {}),
        ("policy edit --host node7", {}),
    ],
    "initramfs": [
        ("initramfs status", {}),
        ("initramfs status", {_MARK: "", _IMAGE: ""}),
        ("initramfs status", {_IMAGE: "", _NICS: _TWIN, _MARK: ""}),
        ("initramfs status --json=short", {_IMAGE: "", _NICS: _TWIN}),
        ("initramfs on", {"bin/update-initramfs": f"echo $0 $*; {_BUILDS}"}),
        ("initramfs on", {"bin/dracut": f"echo $0 $*; {_BUILDS}"}),
        ("initramfs on", {"bin/update-initramfs": "exit 0"}),
        ("initramfs on", {"bin/update-initramfs": "exit 3"}),
        ("initramfs on", {}),
        ("initramfs off", {}),
        ("initramfs off", {"bin/update-initramfs": "exit 0"}),
        ("initramfs off", {_MARK: "", "bin/update-initramfs": "exit 0"}),
        ("initramfs off", {_MARK: "", _IMAGE: "", "bin/update-initramfs": "exit 0"}),
        ("initramfs off --json=short", {_MARK: "", "bin/update-initramfs": "exit 0"}),
        ("initramfs on -H node7", {}),
    ],
}


@pytest.mark.parametrize("name", _TRANSCRIPTS)
def test_what_is_told(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    told = ""
    for number, (words, answers) in enumerate(_TRANSCRIPTS[name]):
        told += transcript(words, host.ANSWERS | answers, tmp_path / f"{number}", monkeypatch, capfd)
    compare(name, told)


@pytest.mark.parametrize("name", _TRANSCRIPTS_OF_FILES)
def test_what_is_told_of_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    told = ""
    for number, (words, files) in enumerate(_TRANSCRIPTS_OF_FILES[name]):
        root = tmp_path / f"host{number}"
        make_host(root, files)
        monkeypatch.setattr(here, "ROOT", root)
        monkeypatch.setattr(initramfs, "_PATH", f"{root}/bin")
        said = transcript(words.replace("ROOT", str(root)), {}, tmp_path / f"{number}", monkeypatch, capfd)
        told += said.replace(str(root), "").replace(os.uname().release, "RELEASE")
    compare(name, told)


def make_host(root: Path, files: Mapping[str, str]) -> None:
    """Each file is younger than the one before it."""
    flavours = (_FOLDER.parents[2] / "config/flavours.yaml").read_text(encoding="utf-8")
    for number, (name, text) in enumerate({"usr/lib/flavourd/flavours.yaml": flavours, **files}.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n" if path.parent.name == "bin" else text, encoding="utf-8")
        path.chmod(0o755 if path.parent.name == "bin" else 0o644)
        for folder in (path.parent, path.parent.parent):
            folder.chmod(0o755)  # whatever the umask: what others may write to is refused
        for changed in (path, path.parent):
            os.utime(changed, (number, number))


def transcript(
    words: str,
    answers: Mapping[str, Script],
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> str:
    monkeypatch.setenv("FLAVOURD_SOCKET", str(path))
    with Daemon(path, answers):
        code = main(shlex.split(words))
    said = capfd.readouterr()
    told = f"$ flavourctl {words}\n{said.out}"
    told += "".join(f"! {line}\n" for line in said.err.splitlines())
    return told + (f"→ {code} {Exit(code).name}\n\n" if code else "\n")


def compare(name: str, told: str) -> None:
    told = told.replace(f"({__version__})", "(VERSION)")
    golden = _FOLDER / f"{name}.txt"
    if os.environ.get(_REGENERATE):
        golden.write_text(told, encoding="utf-8")
    assert told == golden.read_text(encoding="utf-8"), (
        f"if this is meant: {_REGENERATE}=1 pytest {Path(__file__).name}, and read the difference"
    )


def test_every_transcript_is_told() -> None:
    assert {path.stem for path in _FOLDER.glob("*.txt")} == {*_TRANSCRIPTS, *_TRANSCRIPTS_OF_FILES}


def test_the_schema_is_the_one_that_is_shipped(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "schema"]) == Exit.OK
    shipped = _FOLDER.parents[2] / "config/policy.schema.json"
    assert capfd.readouterr().out == shipped.read_text(encoding="utf-8")
