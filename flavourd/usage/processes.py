# SPDX-License-Identifier: LGPL-2.1-or-later
"""flavourd-processes: look into all processes for those who ask on the socket that systemd has passed.

A question is a line of JSON, `{"files": {"nodes": …, "sockets": …, "vfio": …}}` (scan.py, Wanted) or `{"mounts": {}}`,
and so is its answer: `{"found": […], "missed": "…"}`. All that was asked before a look begins is answered by that one.
"""

import json
import select
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from flavourd.usage import mountinfo, scan
from flavourd.usage.ask import line_of
from flavourd.usage.procfs import Procfs
from flavourd.usage.scan import Wanted

_IDLE_SECONDS = 30
_LIFE_SECONDS = 240  # less than RuntimeMaxSec= of the unit
# Whoever comes while a look is taken waits for that one and his own.
_LOOK_SECONDS = 3
_HANG_SECONDS = 2  # beyond that
_LONGEST_QUESTION = 8 << 20
_MOUNTS: dict[str, object] = {"mounts": {}}
_PASSED = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)

# None: what is mounted.
_Asked = list[tuple[socket.socket, Wanted | None]]


def main() -> int:
    """Ends when nobody asks, and by SIGALRM where a file or filesystem does not answer: systemd starts it again."""
    callers = _Callers(socket.socket(fileno=_PASSED))
    end = time.monotonic() + _LIFE_SECONDS
    while time.monotonic() < end and (asked := callers.questions()) is not None:
        signal.alarm(_LOOK_SECONDS + _HANG_SECONDS)
        answers = list(_answers([question for _, question in asked]))
        signal.alarm(0)
        callers.answer([sock for sock, _ in asked], answers)
    return 0


class _Callers:
    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._came: dict[socket.socket, bytes] = {}

    def questions(self) -> _Asked | None:
        """All that are there, none if somebody has only come or gone; None if nobody has for some time."""
        found: _Asked = []
        patience: float = _IDLE_SECONDS
        while ready := select.select([self._listener, *self._came], [], [], patience)[0]:
            for sock in ready:
                if sock is self._listener:
                    caller, _ = sock.accept()
                    caller.settimeout(_HANG_SECONDS)
                    self._came[caller] = b""
                    continue
                try:
                    found += [(sock, question) for question in self._read(sock)]
                except (OSError, ValueError, TypeError, KeyError):
                    self._drop(sock)
            patience = 0
        return None if patience else found

    def answer(self, asked: Sequence[socket.socket], answers: Sequence[bytes]) -> None:
        for sock, line in zip(asked, answers, strict=True):
            try:
                sock.sendall(line)
            except OSError:  # he has gone, or does not read
                self._drop(sock)

    def _read(self, sock: socket.socket) -> list[Wanted | None]:
        """Whole questions that have come. ValueError, TypeError or KeyError if he asks nonsense."""
        if not (part := sock.recv(1 << 16)):
            raise ConnectionError("he is done")
        *lines, rest = (self._came[sock] + part).split(b"\n")
        if len(rest) > _LONGEST_QUESTION:
            raise ValueError("he talks too much")
        self._came[sock] = rest
        asked = map(json.loads, lines)
        return [None if one == _MOUNTS else Wanted(**one["files"]) for one in asked]

    def _drop(self, sock: socket.socket) -> None:
        self._came.pop(sock, None)
        with suppress(OSError):
            sock.close()


def _answers(questions: Sequence[Wanted | None]) -> Iterator[bytes]:
    procfs, end = Procfs(), time.monotonic() + _LOOK_SECONDS
    wants = [one for one in questions if one is not None]
    mounts = line_of(*mountinfo.mounts(procfs, end)) if None in questions else b""
    found, missed = scan.files(procfs, wants, end) if wants else ([], "")
    files = iter(found)
    for one in questions:
        yield mounts if one is None else line_of(next(files), missed)
