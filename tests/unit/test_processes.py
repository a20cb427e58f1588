# SPDX-License-Identifier: LGPL-2.1-or-later
"""The look into other processes, asked of a real server by a real socket, as systemd passes it."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from flavourd.usage.processes import Processes

_SERVER = "import os; os.dup2({fd}, 3); from flavourd.usage.processes import main; main()"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "run/flavourd").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def path(root: Path) -> Iterator[str]:
    """Of the socket of a server that looks at this very machine."""
    place = str(root / "run/flavourd/processes")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen()
        code = _SERVER.format(fd=listener.fileno())
        with subprocess.Popen([sys.executable, "-c", code], pass_fds=[listener.fileno()]) as server:
            yield place
            server.terminate()


def test_what_a_process_has_open_is_told_with_its_name(root: Path, path: str) -> None:
    assert Path(path).is_socket()
    with open("/dev/zero", "rb"), socket.socket() as own:
        asked = Processes(root)
        files, _ = asked.nodes()
        mine = [(one.target, one.node) for one in files if one.process.pid == os.getpid()]
        assert ("/dev/zero", "c1:5") in mine
        sockets, _ = asked.sockets()
        inode = os.fstat(own.fileno()).st_ino
        assert [one.process.pid for one in sockets if one.target == f"socket:[{inode}]"] == [os.getpid()]
        tables, complete = asked.mounts()
        assert complete
        assert any(line.path == "/proc" and line.kind == "proc" for line in tables[0].lines)


def test_without_a_server_the_look_is_taken_from_here(root: Path) -> None:
    (root / "proc/9/fd").mkdir(parents=True)
    (root / "proc/9/comm").write_text("holder\n")
    (root / "proc/9/fd/3").symlink_to("/dev/vfio/7")
    files, refused = Processes(root).nodes()
    assert ([(one.process.name, one.target) for one in files], refused) == ([("holder", "/dev/vfio/7")], ())


@pytest.mark.parametrize("nonsense", [b"nonsense\n", b"\xff\n", b"\n", b"x" * 1000])
def test_who_asks_nonsense_is_shown_out_and_others_are_served(root: Path, path: str, nonsense: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as vandal:
        silent.connect(path)
        vandal.connect(path)
        vandal.sendall(nonsense)
        with suppress(ConnectionResetError):  # he was hung up on before all was read
            assert vandal.recv(100) == b""
        assert Processes(root).mounts()[1]


def test_a_question_in_pieces_is_one_question(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(path)
        for piece in (b"mou", b"nts", b"\nmounts\n"):
            caller.sendall(piece)
        with caller.makefile("rb") as stream:
            for _ in range(2):
                assert json.loads(stream.readline())["complete"]
