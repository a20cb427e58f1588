# SPDX-License-Identifier: LGPL-2.1-or-later
"""What other processes have open, and what is mounted for them: asked of flavourd-processes.service.

To look there takes capabilities with which one could read every secret of the host, and the daemon does not have them.
Where nobody answers, the look is taken from here, and tells that it could not see everything.
"""

import json
import socket
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flavourd.usage import mountinfo, scan
from flavourd.usage.mountinfo import MountLine, MountTable
from flavourd.usage.procfs import Procfs
from flavourd.usage.scan import OpenFile, Wanted
from flavourd.use import Process

# For all questions of one look: less than the daemon gives to who only looks (sight.py).
_PATIENCE = 8.0


class Processes:
    """One look. Both answer with what they have found, and whose files or mounts could not be looked at, in words: ""
    if all could.
    """

    def __init__(self, root: Path = Path("/"), patience: float = _PATIENCE) -> None:
        self._procfs = Procfs(root)
        self._path = str(root / "run/flavourd/processes")
        self._patience = patience
        self._end: float | None = None
        self._socket: socket.socket | None = None

    def files(self, wanted: Wanted) -> tuple[tuple[OpenFile, ...], str]:
        question = {"nodes": dict(wanted.nodes), "sockets": list(wanted.sockets), "vfio": list(wanted.vfio)}
        try:
            told = self._ask({"files": question})
        except TimeoutError:
            return (), "all processes"
        except OSError:
            (found,), missed = scan.files(self._procfs, [wanted], self._until)
            return found, missed
        return tuple(OpenFile(**{**one, "process": Process(**one["process"])}) for one in told["found"]), told["missed"]

    def mounts(self) -> tuple[tuple[MountTable, ...], str]:
        """One table for each mount namespace, the host's first (see mountinfo.py)."""
        try:
            told = self._ask({"mounts": {}})
        except TimeoutError:
            return (), "all processes"
        except OSError:
            return mountinfo.mounts(self._procfs, self._until)
        return tuple(map(_table, told["found"])), told["missed"]

    @property
    def _until(self) -> float:
        self._end = self._end or time.monotonic() + self._patience
        return self._end

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """TimeoutError if there was no answer in time; OSError if there is nobody to ask."""
        line = f"{json.dumps(question)}\n".encode()
        try:
            return self._answered(line)
        except TimeoutError:  # it works on that answer still: to ask again would make it worse
            raise
        except (OSError, ValueError):  # it may have ended, idle, in this very moment
            self._hang_up()
        try:
            return self._answered(line)
        except ValueError as error:
            self._hang_up()
            raise ConnectionError from error

    def _answered(self, line: bytes) -> dict[str, Any]:
        if not self._socket:
            self._socket = socket.socket(socket.AF_UNIX)
            self._wait()
            self._socket.connect(self._path)
        self._wait()
        self._socket.sendall(line)
        came = bytearray()
        while not came.endswith(b"\n"):
            self._wait()
            if not (part := self._socket.recv(1 << 16)):
                raise ConnectionError
            came += part
        told: dict[str, Any] = json.loads(came)
        return told

    def _wait(self) -> None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if self._socket:
            self._socket.settimeout(left)

    def _hang_up(self) -> None:
        if self._socket:
            self._socket.close()
        self._socket = None


def _table(told: dict[str, Any]) -> MountTable:
    process = Process(**told["process"]) if told["process"] else None
    return MountTable(process, tuple(MountLine(**{**line, "beside": tuple(line["beside"])}) for line in told["lines"]))


def line_of(found: tuple[OpenFile, ...] | tuple[MountTable, ...], missed: str) -> bytes:
    """An answer, as it is read above."""
    return f"{json.dumps({'found': [asdict(one) for one in found], 'missed': missed})}\n".encode()
