# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether somebody who waits for a write to return still wants it to.

The kernel keeps him asleep until we answer, whatever signals he gets, SIGKILL included (fs/fuse/dev.c:
request_wait_answer()). So we look after him: when a signal that would end or interrupt a program waits for him, he has
given up. FUSE tells who opened the file, not who writes to it (`exec 3>driver_flavour; tee /dev/fd/3`): so the opener's
descendants are looked after, too.
"""

import os
import signal
from contextlib import suppress
from pathlib import Path


def _mask(*signals: int) -> int:
    """As proc_pid_status(5) has it."""
    return sum(1 << (number - 1) for number in signals)


# By these people end programs, whether or not a program catches them.
_ENDING = _mask(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGKILL)
# These do nothing unless they are caught, or stop a program, which goes on waiting when it is continued; with 32 and 33
# the C library speaks to itself. All others end a program that does not catch them.
_HARMLESS = _mask(signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, 32, 33) | _mask(
    signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU
)
_ASLEEP = b"D"  # as who waits for FUSE and has a signal; who runs would have taken it
_GONE = (b"Z", b"X")
_MOST = 64  # of a family; more are not looked at


class Process:
    """One process, and no other one that gets its number later: its directory in /proc is kept open."""

    def __init__(self, pid: int, proc: Path) -> None:
        """OSError if it is not there, or may not be seen."""
        self.directory = os.open(proc / str(pid), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self.directory)

    def threads(self) -> list[str]:
        """OSError if it is gone."""
        task = os.open("task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.directory)
        try:
            return os.listdir(task)
        finally:
            os.close(task)

    def read(self, name: str) -> bytes:
        """OSError if it is gone."""
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.directory)
        try:
            parts = []
            while part := os.read(file, 1 << 16):
                parts.append(part)
            return b"".join(parts)
        finally:
            os.close(file)


class Writer:
    """Who has opened a file for writing. uid: his. pid: of his process, 0 if it cannot be seen from here."""

    def __init__(self, uid: int, tid: int, proc: Path = Path("/proc")) -> None:
        """tid: the thread that opened it, which waits for that meanwhile."""
        self.uid, self.pid = uid, 0
        self._proc = proc
        self._family: dict[int, Process] = {}
        with suppress(OSError):
            thread = Process(tid, proc)
            try:
                self.pid = int(_fields(thread.read("status"))[b"Tgid"])
            finally:
                thread.close()
            self._family[self.pid] = Process(self.pid, proc)

    def __str__(self) -> str:
        return f"uid {self.uid}, pid {self.pid}"

    def close(self) -> None:
        for process in self._family.values():
            process.close()
        self._family.clear()

    def is_there(self) -> bool:
        """He or one of his descendants lives, as far as that can be seen."""
        self._look()
        return bool(self._family)

    def has_given_up(self) -> bool:
        """Who waits here cannot end before he is answered: if nobody is seen any more, it is another one who writes."""
        return self._look()

    def _look(self) -> bool:
        """Whether one of them has a signal that he must see to. Whoever is gone is forgotten."""
        looked_at: set[int] = set()
        while new := self._family.keys() - looked_at:  # their children come in meanwhile
            for pid in new:
                if (signalled := self._signalled(pid, self._family[pid])) is None:
                    self._family.pop(pid).close()
                elif signalled:
                    return True
            looked_at |= new
        return False

    def _signalled(self, pid: int, process: Process) -> bool | None:
        """None: it is gone. Its children are taken into the family."""
        try:
            for tid in process.threads():
                status = _fields(process.read(f"task/{tid}/status"))
                if status[b"State"][:1] in _GONE and tid == str(pid):
                    # The first thread may end before the others.
                    if len(process.threads()) == 1:
                        return None
                elif status[b"State"][:1] == _ASLEEP and _pending(status):
                    return True
                self._take_in(process.read(f"task/{tid}/children"))
        except FileNotFoundError:  # a thread has ended, or all of it; or the kernel does not tell children
            return False if self._stands(process) else None
        except (OSError, KeyError):
            return None
        return False

    def _stands(self, process: Process) -> bool:
        with suppress(OSError):
            return bool(process.threads())
        return False

    def _take_in(self, children: bytes) -> None:
        for pid in map(int, children.split()):
            if pid not in self._family and len(self._family) < _MOST:
                with suppress(OSError):
                    self._family[pid] = Process(pid, self._proc)


def _fields(status: bytes) -> dict[bytes, bytes]:
    """Of proc_pid_status(5)."""
    pairs = (line.split(b":", 1) for line in status.splitlines())
    return {name: value.strip() for name, value in pairs}


def _pending(status: dict[bytes, bytes]) -> bool:
    names = (b"SigPnd", b"ShdPnd", b"SigBlk", b"SigIgn", b"SigCgt")
    pending, shared, blocked, ignored, caught = (int(status[name], 16) for name in names)
    return bool((pending | shared) & ~blocked & ~ignored & (_ENDING | ~(_HARMLESS | caught)))
