# SPDX-License-Identifier: LGPL-2.1-or-later
"""Manual pages and completions as they are installed: they keep step with the code, and the shells understand them."""

import argparse
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest

from flavourd.cli.exits import Exit
from flavourd.cli.parser import parser
from flavourd.outcome import Kind
from flavourd.policy.settings import Settings, Then
from flavourd.request import Origin
from flavourd.use import Guard, Severity

_ROOT = Path(__file__).parents[1]
_SECONDS = 30

_WHOLE = parser()
(_VERBS,) = (action for action in _WHOLE._actions if isinstance(action, argparse._SubParsersAction))
_SHOWN = {shown.dest: _VERBS.choices[shown.dest] for shown in _VERBS._choices_actions}
_EVERYWHERE = {name for action in _WHOLE._actions for name in action.option_strings}


def run(*command: str, env: dict[str, str] | None = None, cwd: Path = _ROOT) -> str:
    """What a command told; the test fails if the command does, or if it has anything to say against it."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=_SECONDS)
    assert (done.returncode, done.stderr) == (0, ""), f"{command} said {done.stdout}"
    return done.stdout


def installed(prefix: str, destination: Path) -> Path:
    """PREFIX/share of an installation."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTHON"))}
    subprocess.run(
        ("make", "-s", "install", f"DESTDIR={destination}", f"PREFIX={prefix}"),
        cwd=_ROOT,
        env=env,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return destination / prefix.removeprefix("/") / "share"


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed("/usr", tmp_path_factory.mktemp("installed"))


# --- manual pages


@pytest.mark.parametrize("name", ["man1/flavourctl.1", "man5/flavourd.policy.5", "man8/flavourd.8"])
def test_man_finds_nothing_wrong_with_the_pages(share: Path, name: str) -> None:
    page = str(share / "man" / name)
    assert run("mandoc", "-T", "lint", "-W", "warning", page) == ""
    env = os.environ | {"LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"}
    assert run("man", "--warnings=w", "-E", "UTF-8", "-l", "-Tutf8", page, env=env) != ""


def rendered(page: Path) -> str:
    """As a terminal shows it; bold letters are written twice."""
    return re.sub(".\b", "", run("mandoc", "-T", "utf8", str(page)))


def section(text: str, heading: str) -> str:
    (found,) = re.findall(rf"(?ms)^{heading}$(.*?)^\S", text)
    return str(found)


def items(text: str) -> dict[str, str]:
    """Of the outermost list in a section: the first word of each item, and the item in one line."""
    found = re.findall(r"(?ms)^ {5}(\S+)(.*?)(?=^ {0,5}\S|\Z)", text)
    return {word: " ".join((word + rest).split()) for word, rest in found}


@pytest.fixture(scope="module")
def flavourctl_page(share: Path) -> str:
    return rendered(share / "man/man1/flavourctl.1")


@pytest.fixture(scope="module")
def flavourd_page(share: Path) -> str:
    return rendered(share / "man/man8/flavourd.8")


def test_the_manual_tells_every_verb_with_its_options_words_and_examples(flavourctl_page: str) -> None:
    told = items(section(flavourctl_page, "VERBS"))
    assert told.keys() == _SHOWN.keys()
    assert "complete" not in told  # the shell's own
    for name, verb in _SHOWN.items():
        own = [action for action in verb._actions if not _EVERYWHERE & {*action.option_strings}]
        examples = (verb.epilog or "").splitlines()[1:]
        assert examples
        expected = [verb.description or "", *map(str.strip, examples)]
        for action in own:
            expected += [*action.option_strings, str(action.help).replace("`", "")]
        assert [text for text in expected if text not in told[name]] == []


def test_the_manual_tells_the_options_that_every_verb_has(flavourctl_page: str) -> None:
    text = section(flavourctl_page, "OPTIONS")
    assert set(re.findall(r"(?<![\w-])--?\w[\w-]*", text)) == _EVERYWHERE


def test_the_manual_tells_every_exit_status_and_no_other(flavourctl_page: str) -> None:
    told = items(section(flavourctl_page, "EXIT STATUS"))
    assert {int(word) for word in told if word.isdigit()} == set(Exit)
    assert all(" " in told[str(status.value)] for status in Exit)


def test_the_manual_tells_every_variable_that_flavourctl_reads(flavourctl_page: str) -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (_ROOT / "flavourd/cli").glob("*.py"))
    read = set(re.findall(r'environ(?:\.get\(|\[)"(\w+)"', code))
    assert read
    assert items(section(flavourctl_page, "ENVIRONMENT")).keys() == read


def test_the_daemons_manual_tells_its_options(flavourd_page: str) -> None:
    said = run(sys.executable, "-m", "flavourd", "--help")
    options = {option for line in re.findall(r"(?m)^  (-.*?)(?:  |$)", said) for option in re.findall(r"-[\w-]+", line)}
    assert {"--deadline", "--version", "--help"} <= options
    assert [option for option in options if not re.search(rf"(?m)^ +.*(?<![\w-]){option}\b", flavourd_page)] == []
    (seconds,) = re.findall(r"kernel has not \((\d+)\)", " ".join(said.split()))
    assert f"The default is {seconds};" in " ".join(flavourd_page.split())


def test_the_daemons_manual_tells_its_signals(flavourd_page: str) -> None:
    caught = set(re.findall(r"signal\.(SIG\w+)", (_ROOT / "flavourd/service.py").read_text(encoding="utf-8")))
    assert set(re.findall(r"SIG\w+", section(flavourd_page, "SIGNALS"))) == caught


def test_the_daemons_manual_tells_the_journals_fields_and_what_stands_in_them(flavourd_page: str) -> None:
    told = items(section(flavourd_page, "JOURNAL"))
    sent = set(re.findall(r'"(FLAVOURD_[A-Z]+|ERRNO)["=]', (_ROOT / "flavourd/logs.py").read_text(encoding="utf-8")))
    assert {word for word in told if word.isupper()} == sent
    assert {word for word in Origin if word not in told["FLAVOURD_ORIGIN"]} == set()
    kinds = re.findall(r"(?m)^ {13}(\w+)  ", flavourd_page)
    assert sorted(kinds) == sorted(Kind)


def test_the_daemons_manual_tells_every_guard_and_every_setting(flavourd_page: str) -> None:
    text = section(flavourd_page, "GUARDS")
    assert [word for word in items(text) if word in {*Guard}] == [*Guard]
    assert [severity for severity in Severity if severity not in text] == []
    assert [then for then in Then if then not in section(flavourd_page, "HANGS")] == []
    assert [field.name for field in fields(Settings) if not re.search(rf"\b{field.name}\b", flavourd_page)] == []


# --- completions

_PLACES = {
    "bash": "bash-completion/completions/flavourctl",
    "zsh": "zsh/vendor-completions/_flavourctl",
    "fish": "fish/vendor_completions.d/flavourctl.fish",
}
_EVIL = "w$(id>hacked)"  # so an interface may be called
_DEVICES = ["0000:01:00.0", "0000:02:00.0", "0000:02:00.1", "eth0", "nvme1n1", _EVIL]
_FLAVOURS = ["vfio", "default"]
_CODES = ["all-refused", "busy", "mounted"]
_GUARDS = ["mounted", "table", "vfs"]

_STUB = """#!/bin/sh
if [ "$1" = complete ]; then cat "$ANSWERS/$2"; else printf '%s\\n' "$*" >>"$RAN"; fi
"""


@pytest.fixture
def env(share: Path, tmp_path: Path) -> dict[str, str]:
    """Where a `flavourctl` answers the shell, and writes down how it was called otherwise."""
    for name, words in {"devices": _DEVICES, "flavours": _FLAVOURS, "codes": _CODES, "guards": _GUARDS}.items():
        (tmp_path / name).write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    program = tmp_path / "bin/flavourctl"
    program.parent.mkdir()
    program.write_text(_STUB, encoding="utf-8")
    program.chmod(0o755)
    return {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "XDG_DATA_DIRS": str(share),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        "ANSWERS": str(tmp_path),
        "RAN": str(tmp_path / "ran"),
    }


# As readline calls what is registered.
_ASK_BASH = """
source "$1"
COMP_LINE=$2 COMP_POINT=${#2} COMP_WORDBREAKS=$3
registered=$(complete -p flavourctl)
[[ $registered == "complete -F "* ]] || exit
read -r _ _ function _ <<<"$registered"
"$function" flavourctl
printf '%s\\n' "${COMPREPLY[@]}"
"""


_WORD_BREAKS = " \t\n\"'><=;|&(:"


def offered(shell: str, line: str, share: Path, env: dict[str, str], breaks: str = _WORD_BREAKS) -> list[str]:
    """What is there to choose from after this line."""
    ask_fish = ("fish", "-c", "complete -C $argv[1]", line)
    ask_bash = ("bash", "-c", _ASK_BASH, "bash", str(share / _PLACES["bash"]), line, breaks)
    said = run(*(ask_bash if shell == "bash" else ask_fish), env=env, cwd=Path(env["HOME"]))
    assert not Path(env["HOME"], "hacked").exists()
    return sorted(word.partition("\t")[0].replace("\\", "") for word in said.splitlines() if word)


@pytest.mark.parametrize(("shell", "check"), [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")])
def test_the_shells_can_read_the_completions(share: Path, shell: str, check: str) -> None:
    assert run(shell, check, str(share / _PLACES[shell])) == ""


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_every_verb_and_every_option_is_offered(share: Path, env: dict[str, str], shell: str) -> None:
    assert offered(shell, "flavourctl ", share, env) == sorted(_SHOWN)
    for name, verb in _SHOWN.items():
        options = sorted(option for action in verb._actions for option in action.option_strings)
        assert offered(shell, f"flavourctl {name} -", share, env) == options


@pytest.mark.parametrize("shell", ["bash", "fish"])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flavourctl show ", _DEVICES),
        ("flavourctl show eth0 ", _DEVICES),
        ("flavourctl set eth0 ", _DEVICES + _FLAVOURS),  # nobody knows which word will be the last
        ("flavourctl explain ", _DEVICES + _CODES),
        ("flavourctl explain eth0 ", _FLAVOURS),
        ("flavourctl list --flavour ", _FLAVOURS),
        ("flavourctl cancel ", _DEVICES),
        ("flavourctl set eth0 vfio --force ", _GUARDS),
        ("flavourctl -H node7 reset eth0 --force ", _GUARDS),
        ("flavourctl status --json ", ["pretty", "short", "off"]),
        ("flavourctl monitor ", []),
        # Asking another host may take long, or want a password.
        ("flavourctl -H node7 show ", []),
        ("flavourctl set --host=node7 eth0 ", []),
        ("flavourctl -H node7 explain ", _CODES),
    ],
)
def test_what_flavourd_knows_is_offered(
    share: Path, env: dict[str, str], shell: str, line: str, expected: list[str]
) -> None:
    assert offered(shell, line, share, env) == sorted(expected)


@pytest.mark.parametrize("shell", ["bash", "fish"])
@pytest.mark.parametrize("word", ["0000:02:", "0000:02:00."])
def test_names_with_colons_are_gone_on_with(share: Path, env: dict[str, str], shell: str, word: str) -> None:
    # readline replaces only what stands behind the last colon.
    kept = word.rpartition(":")[0] + ":" if shell == "bash" else ""
    answers = [name.removeprefix(kept) for name in _DEVICES if name.startswith(word)]
    assert offered(shell, f"flavourctl show {word}", share, env) == answers


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flavourctl show 0000:02:", ["0000:02:00.0", "0000:02:00.1"]),
        ("flavourctl list --json=s", ["--json=short"]),
    ],
)
def test_bash_may_break_words_at_blanks_only(share: Path, env: dict[str, str], line: str, expected: list[str]) -> None:
    assert offered("bash", line, share, env, breaks=" \t\n") == expected


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_without_flavourd_nothing_is_offered_and_nothing_said(share: Path, env: dict[str, str], shell: str) -> None:
    assert offered(shell, "flavourctl set ", share, env | {"ANSWERS": "/nowhere"}) == []


_TYPED = {
    "flavourctl sta": "status",
    "flavourctl show 0000:01": "show 0000:01:00.0",
    "flavourctl show eth0 0000:01:00": "show eth0 0000:01:00.0",
    "flavourctl show 0000:02": "show 0000:02:00.",
    "flavourctl show 01:": "show 01:00.0",
    "flavourctl show w": f"show {_EVIL}",
    "flavourctl set eth0 nv": "set eth0 nvme1n1",
    "flavourctl set 0000:01:00.0 eth0 vf": "set 0000:01:00.0 eth0 vfio",
    "flavourctl set eth0 vfio --dry": "set eth0 vfio --dry-run",
    "flavourctl explain all": "explain all-refused",
    "flavourctl explain moun": "explain mounted",
    "flavourctl set eth0 vfio --force=moun": "set eth0 vfio --force=mounted",
    "flavourctl reset eth0 --force=table --force vf": "reset eth0 --force=table --force vfs",
    "flavourctl explain 0000:01": "explain 0000:01:00.0",
    "flavourctl explain 0000:01:00.0 d": "explain 0000:01:00.0 default",
    "flavourctl list --json=sh": "list --json=short",
    "flavourctl status --json sh": "status --json short",
    "flavourctl --json=short list --flavour=vf": "--json=short list --flavour=vfio",
    "flavourctl -H node7 show 0000:01": "-H node7 show 0000:01",
}


@contextmanager
def terminal(command: list[str], env: dict[str, str]) -> Iterator[int]:
    """A shell that believes a person to sit there."""
    pid, fd = pty.fork()
    if pid == 0:
        try:
            os.chdir(env["HOME"])
            os.execvpe(command[0], command, env)
        finally:
            os._exit(127)
    try:
        yield fd
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(fd)


@pytest.mark.parametrize(
    ("command", "rc"),
    [
        (["bash", "--noprofile", "--rcfile", "rc"], "source {bash}; PS1='READY> '"),
        (
            ["zsh", "--no-globalrcs"],
            "fpath=({zsh.parent} $fpath); autoload -U compinit; compinit -u -D; PS1='READY> '",
        ),
    ],
    ids=["bash", "zsh"],
)
def test_what_a_person_types_is_completed_by_the_tab_key(
    share: Path, env: dict[str, str], command: list[str], rc: str
) -> None:
    home, ran = Path(env["HOME"]), Path(env["RAN"])
    rc = rc.format(**{shell: share / place for shell, place in _PLACES.items()})
    for name in ("rc", ".zshrc"):
        (home / name).write_text(f"{rc}\n", encoding="utf-8")
    ran.touch()
    seen = b""
    with terminal(command, env) as fd:

        def wait(until: Callable[[], bool]) -> None:
            nonlocal seen
            deadline = time.monotonic() + _SECONDS
            while not until():
                assert time.monotonic() < deadline, seen.decode(errors="replace")
                if select.select([fd], [], [], 0.05)[0]:
                    with suppress(OSError):
                        seen += os.read(fd, 65536)

        wait(lambda: b"READY> " in seen)
        for typed in _TYPED:
            before = ran.stat().st_size
            os.write(fd, f"{typed}\t\r".encode())
            wait(partial(lambda size: ran.stat().st_size > size, before))
    assert dict(zip(_TYPED, ran.read_text(encoding="utf-8").splitlines(), strict=True)) == _TYPED
    assert not (home / "hacked").exists()


@pytest.mark.parametrize("prefix", ["/usr", "/usr/local"])
def test_debians_zsh_looks_where_the_completion_is(tmp_path: Path, prefix: str) -> None:
    (file,) = installed(prefix, tmp_path).rglob("_flavourctl")
    assert f"/{file.parent.relative_to(tmp_path)}" in run("zsh", "-f", "-c", "print -l $fpath").splitlines()
