# SPDX-License-Identifier: LGPL-2.1-or-later
"""The look into other processes, asked of a real server by a real socket, as systemd passes it."""

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from flavourd.usage import processes
from flavourd.usage.ask import Processes
from flavourd.usage.scan import Wanted
from flavourd.use import Process

_SERVER = """
import os, time; os.dup2({fd}, 3)
from flavourd.usage import processes, scan
{change}
processes.main()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "run/flavourd").mkdir(parents=True)
    return tmp_path


@contextmanager
def listening(root: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "run/flavourd/processes"))
        listener.listen()
        yield listener


@contextmanager
def serving(listener: socket.socket, change: str = "") -> Iterator["subprocess.Popen[bytes]"]:
    """A server that looks at this very machine."""
    code = _SERVER.format(fd=listener.fileno(), change=change)
    with subprocess.Popen([sys.executable, "-c", code], pass_fds=[listener.fileno()]) as server:
        yield server
        server.terminate()


@pytest.fixture
def path(root: Path) -> Iterator[str]:
    with listening(root) as listener, serving(listener):
        yield str(root / "run/flavourd/processes")


def full(*sockets: int) -> Wanted:
    """/dev/full of this host stands for a device's node."""
    return Wanted({"/dev/another/name": "c1:7"}, tuple(map(str, sockets)))


def test_what_a_process_has_open_is_told_with_its_name(root: Path, path: str) -> None:
    assert Path(path).is_socket()
    with open("/dev/full", "rb"), open("/dev/full", "rb"), open("/dev/zero", "rb"), socket.socket() as own:
        asked = Processes(root)
        inode = os.fstat(own.fileno()).st_ino
        files, _ = asked.files(full(inode))  # the test may not look into every process
        mine = sorted((one.target, one.node) for one in files if one.process.pid == os.getpid())
        assert mine == [("/dev/full", "c1:7"), (f"socket:[{inode}]", None)], "each once, and nothing else"
        tables, missed = asked.mounts()
        assert missed == ""
        assert tables[0].process is None


def test_without_a_server_the_look_is_taken_from_here(root: Path) -> None:
    (root / "proc/9/fd").mkdir(parents=True)
    (root / "proc/9/comm").write_text("holder\n")
    (root / "proc/9/fd/3").symlink_to("/dev/vfio/7")
    files, missed = Processes(root).files(Wanted({"/dev/vfio/7": None}))
    assert [(one.process, one.target) for one in files] == [(Process(9, "holder"), "/dev/vfio/7")]
    assert missed == "other users' processes", "where not even process 1 is shown"
    (root / "proc/1/fd").mkdir(parents=True)
    assert Processes(root).files(Wanted({"/dev/vfio/7": None}))[1] == ""


@pytest.mark.parametrize("nonsense", [b"nonsense\n", b"\xff\n", b"\n", b"7\n", b'{"files": {"x": 1}}\n', b"x" * 10**7])
def test_who_asks_nonsense_is_shown_out_and_others_are_served(root: Path, path: str, nonsense: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as vandal:
        silent.connect(path)
        vandal.connect(path)
        with suppress(BrokenPipeError, ConnectionResetError):  # he was hung up on before all was read
            vandal.sendall(nonsense)
            assert vandal.recv(100) == b""
        assert Processes(root).mounts()[1] == ""


def test_a_question_in_pieces_is_one_question(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(path)
        for piece in (b'{"mou', b'nts": {}}', b'\n{"mounts": {}}\n'):
            caller.sendall(piece)
        with caller.makefile("rb") as stream:
            for _ in range(2):
                assert json.loads(stream.readline())["missed"] == ""


def test_all_who_have_asked_before_a_look_begins_are_answered_by_it(root: Path) -> None:
    """Each with what he wants."""
    count = "\n".join(
        [
            "def counted(*given, real=scan.files):",
            f"    open({str(root / 'looks')!r}, 'a').write('x')",
            "    return real(*given)",
            "scan.files = counted",
        ]
    )
    with listening(root) as listener, open("/dev/full", "rb"):
        found: list[int] = []

        def ask(number: int) -> None:
            files, _ = Processes(root).files(full() if number % 2 else Wanted({"/dev/x": "c250:250"}))
            found.append(len([one for one in files if one.process.pid == os.getpid()]))

        callers = [threading.Thread(target=ask, args=[number]) for number in range(20)]
        for caller in callers:
            caller.start()
        time.sleep(0.5)  # none of them is answered yet, and it matters little if one is late
        with serving(listener, count):
            for caller in callers:
                caller.join()
    assert sorted(found) == [0] * 10 + [1] * 10
    assert len((root / "looks").read_text()) <= 3


def test_a_server_that_ends_is_asked_once_more(root: Path) -> None:
    with listening(root) as listener, open("/dev/full", "rb"):
        with serving(listener):
            asked = Processes(root)
            assert asked.files(full())[0]
        with serving(listener):
            assert asked.files(full())[0]


def test_who_does_not_answer_in_time_is_not_asked_again_and_nothing_counts_as_seen(root: Path) -> None:
    with listening(root) as listener:
        asked = Processes(root, patience=0.2)
        assert asked.files(full()) == ((), "all processes")
        begun = time.monotonic()
        assert asked.mounts() == ((), "all processes")
        assert time.monotonic() - begun < 0.2
        listener.accept()
        assert not select.select([listener], [], [], 0)[0]


def test_a_look_that_hangs_ends_the_server(root: Path) -> None:
    """The next is started by systemd."""
    hang = "processes._LOOK_SECONDS = 0; processes._HANG_SECONDS = 1; scan.files = lambda *_: time.sleep(1000)"
    with listening(root) as listener, serving(listener, hang) as server:
        Processes(root, patience=2).files(full())
        assert server.wait(30) == -14, "by SIGALRM"


def test_the_units_leave_it_its_time_and_bring_it_back() -> None:
    units = Path(__file__).parents[2] / "systemd"
    service = (units / "flavourd-processes.service").read_text(encoding="utf-8").split("\n")
    assert "StartLimitIntervalSec=0" in service
    assert "RuntimeMaxSec=5min" in service
    assert processes._LIFE_SECONDS + processes._LOOK_SECONDS + processes._HANG_SECONDS < 300
    assert {"MemoryMax=128M", "TasksMax=4"} <= set(service), "other people decide how much there is to be seen"
    assert "PartOf=" not in (units / "flavourd-processes.socket").read_text(encoding="utf-8"), (
        "workers outlive flavourd"
    )
