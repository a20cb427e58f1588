# SPDX-License-Identifier: LGPL-2.1-or-later
"""What other processes have open, and what is mounted for them.

To look there takes capabilities with which one could read every secret of the host, and the daemon does not have them:
flavourd-processes.service has, and answers on a socket of its own (`main`). Where nobody answers, the
look is taken from here, and tells that it could not see everything.
"""

import json
import os
import select
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from io import BufferedRWPair
from pathlib import Path
from typing import Any

from flavourd.usage.procfs import MountLine, Procfs
from flavourd.use import Process

VFIO_DEVICE = "anon_inode:[vfio-device]"

_NODES = ("/dev/", VFIO_DEVICE)
_GROUPS = "/dev/vfio/"
# Many have these open, and nobody cares.
_COMMON = ("/dev/pts/", "/dev/null")
_SOCKET = "socket:["
_DEVICE = "vfio-device-syspath"
_SECONDS = 20
_IDLE_SECONDS = 30
_LONGEST_QUESTION = 100
_PASSED = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)


@dataclass(frozen=True)
class OpenFile:
    """target: the text of its link: a path or `anon_inode:[NAME]`, `socket:[INODE]`. node: its number, as
    Procfs.device_number() tells it. device: path of an open VFIO device, `/sys/…`, where the kernel tells it
    (vfio_device_show_fdinfo(), Linux 6.18).
    """

    process: Process
    target: str
    node: str | None = None
    device: str | None = None


@dataclass(frozen=True)
class MountTable:
    """What is mounted in one mount namespace. process: one that is in it; None: it is the host's own."""

    process: Process | None
    lines: tuple[MountLine, ...]


class Processes:
    """All questions of one look go to one process of that service."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._procfs = Procfs(root)
        self._socket = str(root / "run/flavourd/processes")
        self._stream: BufferedRWPair | None = None

    def nodes(self) -> tuple[tuple[OpenFile, ...], tuple[Process, ...]]:
        """Nodes in /dev and VFIO devices that are open, and the processes that could not be looked at."""
        return _files(self._ask("nodes"))

    def sockets(self) -> tuple[tuple[OpenFile, ...], tuple[Process, ...]]:
        """Sockets that are open, and the processes that could not be looked at."""
        return _files(self._ask("sockets"))

    def mounts(self) -> tuple[tuple[MountTable, ...], bool]:
        """One table for each mount namespace, the host's first; and whether all could be read (see Procfs.mounts)."""
        told = self._ask("mounts")
        tables = (
            MountTable(_process(one["process"]), tuple(MountLine(*line) for line in one["lines"]))
            for one in told["found"]
        )
        return tuple(tables), told["complete"]

    def _ask(self, question: str) -> dict[str, Any]:
        for _ in range(2):  # it may have ended, idle, in this very moment
            try:
                stream = self._stream = self._stream or self._connected()
                stream.write(f"{question}\n".encode())
                stream.flush()
                told: dict[str, Any] = json.loads(stream.readline())
                return told
            except (OSError, ValueError):
                self._stream = None
        return _QUESTIONS[question](self._procfs)

    def _connected(self) -> BufferedRWPair:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_SECONDS)
            sock.connect(self._socket)
            return sock.makefile("rwb")


def main() -> int:
    """Answer on the socket that systemd has passed: to each line, a question, by a line of JSON. Ends when nobody asks.

    All in turn: there are few who ask, and who does not read his answer is dropped.
    """
    listener = socket.socket(fileno=_PASSED)
    asking: dict[socket.socket, bytes] = {}
    while ready := select.select([listener, *asking], [], [], _IDLE_SECONDS)[0]:
        for sock in ready:
            if sock is listener:
                caller, _ = listener.accept()
                caller.settimeout(_SECONDS)
                asking[caller] = b""
            elif (rest := _answered(sock, asking[sock])) is None:
                sock.close()
                del asking[sock]
            else:
                asking[sock] = rest
    return 0


def _answered(sock: socket.socket, came: bytes) -> bytes | None:
    """What has come beyond the last whole line; None if that caller is done, or asks nonsense."""
    try:
        part = sock.recv(_LONGEST_QUESTION)
        *questions, rest = (came + part).split(b"\n")
        for question in questions:
            found = _QUESTIONS[question.decode()](Procfs())
            sock.sendall(f"{json.dumps(found)}\n".encode())
    except (OSError, KeyError, ValueError):
        return None
    return rest if part and len(rest) < _LONGEST_QUESTION else None


def _open_files(procfs: Procfs, wanted: Callable[[str], bool]) -> dict[str, Any]:
    descriptors, refused = procfs.descriptors(wanted)
    found = [
        {
            "process": one.pid,
            "target": one.target,
            "node": procfs.device_number(one) if one.target.startswith("/dev/") else None,
            "device": procfs.descriptor_info(one, _DEVICE) if one.target.startswith((_GROUPS, VFIO_DEVICE)) else None,
        }
        for one in descriptors
        if one.pid != os.getpid()
    ]
    pids = dict.fromkeys((*(one.pid for one in descriptors), *refused))
    return {"found": found, "processes": [asdict(procfs.process(pid)) for pid in pids], "refused": refused}


def _open_nodes(procfs: Procfs) -> dict[str, Any]:
    return _open_files(procfs, lambda target: target.startswith(_NODES) and not target.startswith(_COMMON))


def _open_sockets(procfs: Procfs) -> dict[str, Any]:
    return _open_files(procfs, lambda target: target.startswith(_SOCKET))


def _mounts(procfs: Procfs) -> dict[str, Any]:
    tables, complete = procfs.mounts()
    found = [
        {
            "process": None if table.pid is None else asdict(procfs.process(table.pid)),
            "lines": [(line.device, line.path, line.kind, line.source) for line in table.lines],
        }
        for table in tables
        if table.pid != os.getpid()
    ]
    return {"found": found, "complete": complete}


_QUESTIONS = {"nodes": _open_nodes, "sockets": _open_sockets, "mounts": _mounts}


def _files(told: dict[str, Any]) -> tuple[tuple[OpenFile, ...], tuple[Process, ...]]:
    processes = {one["pid"]: Process(**one) for one in told["processes"]}
    found = (OpenFile(**{**one, "process": processes[one["process"]]}) for one in told["found"])
    return tuple(found), tuple(processes[pid] for pid in told["refused"])


def _process(told: dict[str, Any] | None) -> Process | None:
    return Process(**told) if told else None
