# SPDX-License-Identifier: LGPL-2.1-or-later
"""flavourctl as a process: how fast it starts, signals, pipes and terminals."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path

from flavourd.cli.exits import Exit

from .golden import host
from .golden.daemon import HANG_UP, Daemon, Reply, Script, more, reply

_ROOT = Path(__file__).parents[2]
# -S: what a machine's site-packages bring along is not ours.
_COMMAND = (sys.executable, "-S", "-m", "flavourd.cli")
_COLUMNS = 72
_DEADLINE = 60  # far more than any of this takes


def environment(path: Path, **others: str) -> dict[str, str]:
    ours = {"NO_COLOR", "TERM", "COLUMNS", "LANG", "LC_ALL", "PYTHONIOENCODING", "PYTHONUNBUFFERED"}
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    return inherited | {"FLAVOURD_SOCKET": str(path), "TERM": "xterm", "LC_ALL": "C.UTF-8"} | others


def start(path: Path, *words: str, **others: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        (*_COMMAND, *words),
        cwd=_ROOT,
        env=environment(path, **others),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        # Who runs the tests in a shell's background has made them deaf to it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def on_terminal(path: Path, *words: str, answers: Mapping[str, Script] | None = None, **others: str) -> str:
    """What a terminal gets, from stdout and stderr alike."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, _COLUMNS, 0, 0))
    with Daemon(path, {**host.ANSWERS, **(answers or {})}):
        process = subprocess.Popen(
            (*_COMMAND, *words), cwd=_ROOT, env=environment(path, **others), stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        seen = b""
        try:
            while part := os.read(ours, 4096):
                seen += part
        except OSError:  # the other end is closed
            pass
        os.close(ours)
        process.wait(_DEADLINE)
    return seen.decode().replace("\r\n", "\n")


def remains(seen: str) -> str:
    """What stands on the terminal in the end."""
    return "\n".join(line.rpartition("\r\x1b[K")[2] for line in seen.split("\n"))


# --- starting


def test_listing_imports_nothing_that_is_slow(tmp_path: Path) -> None:
    slow = {"asyncio", "asyncvarlink", "dataclasses", "datetime", "difflib", "fnmatch", "inspect", "pathlib", "pyudev"}
    slow |= {"shutil", "signal", "subprocess", "systemd", "tempfile", "textwrap", "traceback", "typing", "yaml"}
    with Daemon(tmp_path / "socket", host.ANSWERS):
        done = subprocess.run(
            (sys.executable, "-S", "-X", "importtime", "-m", "flavourd.cli", "list"),
            cwd=_ROOT,
            env=environment(tmp_path / "socket"),
            capture_output=True,
            text=True,
            check=True,
        )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"flavourd.cli.client", "flavourd.cli.table"} <= imported
    assert {name.partition(".")[0] for name in imported} & slow == set()
    ours = {name for name in imported if name.startswith("flavourd.") and not name.startswith("flavourd.cli")}
    assert ours == set(), "the rest of flavourd is the daemon's"


def test_policies_are_checked_although_libraries_are_not_looked_for(tmp_path: Path) -> None:
    flavours = tmp_path / "usr/lib/flavourd/flavours.yaml"
    flavours.parent.mkdir(parents=True)
    flavours.write_bytes((_ROOT / "config/flavours.yaml").read_bytes())
    code = (
        f"from pathlib import Path; from flavourd.cli import here; here.ROOT = Path({str(tmp_path)!r}); "
        "from flavourd.cli.__main__ import main; raise SystemExit(main())"
    )
    done = subprocess.run(
        (sys.executable, "-S", "-c", code, "policy", "check", "-"),
        cwd=_ROOT,
        env=environment(tmp_path / "socket"),
        input="rules: [{flavour: vfio}]\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (Exit.OK, "")
    assert done.stdout.endswith("1 rule in 1 file, no mistakes\n")


# --- interruption


def test_after_ctrl_c_each_device_is_told_of(tmp_path: Path) -> None:
    devices = first, second, third, fourth = [d["id"] for d in (host.VF, host.CLAIMED, host.PF, host.DISK)]
    answers: list[Reply] = [
        *(more(step=host.step(device, "waiting", "waiting", f"request-{device}")) for device in devices),
        *(more(step=host.step(device, "binding", "binding", f"request-{device}")) for device in (first, second)),
        more(outcomes=[host.SWITCHED]),
    ]
    withdrawn = host.SWITCHED | {
        "device": third,
        "uuid": f"request-{third}",
        "kind": "refused",
        "code": "withdrawn",
        "headline": f"{third}: who asked went away before its turn came; nothing was touched [withdrawn]",
    }
    another = withdrawn | {"device": fourth, "uuid": "somebody else's"}
    with Daemon(tmp_path / "socket", {"Set": answers, "History": [reply(outcomes=[withdrawn, another])]}) as daemon:
        process = start(tmp_path / "socket", "set", *devices, "vfio")
        assert process.stdout
        assert process.stdout.readline().startswith(f"{first} is in flavour vfio now")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=_DEADLINE)
        assert daemon.hung_up.wait(_DEADLINE)
    assert process.returncode == Exit.INTERRUPTED
    assert out.startswith(f"{third}: who asked went away before its turn came; nothing was touched")
    goes_on = "the switch goes on; flavourd finishes or undoes it"
    assert err.splitlines() == [
        "flavourctl: interrupted",
        f"  {second}: {goes_on}: flavourctl show {second}",
        f"  {fourth}: {goes_on}: flavourctl show {fourth}",  # had it not begun, it would be told withdrawn by now
    ]


def test_ctrl_c_ends_monitor_quietly(tmp_path: Path) -> None:
    with Daemon(tmp_path / "socket", {"Monitor": host.EVENTS[:2]}):
        process = start(tmp_path / "socket", "monitor")
        assert process.stdout
        assert process.stdout.readline().endswith("begun\n"), "events are told as they come, also into a pipe"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=_DEADLINE)
    assert (process.returncode, err) == (Exit.INTERRUPTED, "")


def test_a_reader_who_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    with Daemon(tmp_path / "socket", host.ANSWERS):
        process = start(tmp_path / "socket", "list")
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        assert process.stderr.read() == ""
        assert process.wait(_DEADLINE) == -signal.SIGPIPE


# --- terminals


def test_a_table_fits_the_terminal_and_a_pipe_gets_it_whole(tmp_path: Path) -> None:
    seen = on_terminal(tmp_path / "socket", "list", "--class", "ethernet", NO_COLOR="1")
    lines = seen.splitlines()
    assert max(map(len, lines)) == _COLUMNS
    assert " 82574L G" in lines[1]
    assert lines[1].endswith("…")
    with Daemon(tmp_path / "other", host.ANSWERS):
        out, _ = start(tmp_path / "other", "list").communicate(timeout=_DEADLINE)
    assert "82574L Gigabit Network Connection, Intel Corporation\n" in out


def test_there_is_colour_on_a_terminal_that_wants_it(tmp_path: Path) -> None:
    switching = {"Set": host.switching(host.SECOND_TRY, host.UNDONE)}
    words = ("set", host.CLAIMED["id"], host.BLOCKER["id"], "vfio")
    seen = remains(on_terminal(tmp_path / "0", *words, answers=switching))
    assert f"\x1b[1m{host.CLAIMED['id']}\x1b[0m is in flavour vfio now" in seen
    assert f"\x1b[1;31m{host.BLOCKER['id']}\x1b[0m did not take" in seen
    assert "\x1b[33mnote:\x1b[0m IOMMU group" in seen
    assert "\x1b" not in remains(on_terminal(tmp_path / "1", *words, answers=switching, NO_COLOR="1"))
    assert "\x1b" not in on_terminal(tmp_path / "2", *words, answers=switching, TERM="dumb")


def test_progress_is_shown_in_place_and_leaves_nothing_behind(tmp_path: Path) -> None:
    switching = {"Set": host.switching(host.SWITCHED, host.BACK)}
    devices = (host.VF["id"], host.CLAIMED["id"])
    seen = on_terminal(tmp_path / "0", "set", *devices, "vfio", answers=switching, NO_COLOR="1")
    assert f"\r\x1b[K[0/2] {devices[0]}: binding to vfio-pci\r\x1b[K" in seen
    assert f"\r\x1b[K[1/2] {devices[1]}: binding to vfio-pci\r\x1b[K" in seen
    assert remains(seen).splitlines() == [host.SWITCHED["headline"], host.BACK["headline"]]


def test_progress_fits_into_its_line_and_moves_nothing_else(tmp_path: Path) -> None:
    text = "loading \x1b[2J\n" + 100 * "x"
    answers = {"Set": [more(step=host.step(host.VF["id"], "loading", text)), reply(outcomes=[host.SWITCHED])]}
    seen = on_terminal(tmp_path / "0", "set", host.VF["id"], "vfio", "--json=short", answers=answers)
    shown = seen.split("\r\x1b[K")[1]
    assert shown.startswith(f"{host.VF['id']}: loading ?[2J | xxx")
    assert len(shown) < _COLUMNS


def test_a_connection_that_is_lost_leaves_no_progress_behind(tmp_path: Path) -> None:
    answers = {"Set": [more(step=host.step(host.VF["id"], "loading", "loading")), HANG_UP]}
    seen = on_terminal(tmp_path / "0", "set", host.VF["id"], "vfio", answers=answers)
    assert remains(seen).startswith("flavourctl: flavourd closed the connection")


def test_where_lines_cannot_be_drawn_the_tree_is_of_ascii(tmp_path: Path) -> None:
    with Daemon(tmp_path / "socket", host.ANSWERS):
        process = start(tmp_path / "socket", "tree", "01:00.0", PYTHONIOENCODING="ascii")
        out, err = process.communicate(timeout=_DEADLINE)
    assert err == ""
    assert re.findall(r"^\S+ ", out, re.MULTILINE) == ["group ", "|- ", "`- "]
    assert out.isascii()


def test_what_an_encoding_cannot_write_is_no_reason_to_fail(tmp_path: Path) -> None:
    answers = {"List": [reply(devices=[host.device("pci/x", vendor="Müller")])]}
    with Daemon(tmp_path / "socket", answers):
        process = start(tmp_path / "socket", "list", PYTHONIOENCODING="ascii")
        out, _ = process.communicate(timeout=_DEADLINE)
    assert (process.returncode, "M\\xfcller" in out) == (Exit.OK, True)
