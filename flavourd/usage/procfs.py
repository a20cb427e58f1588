# SPDX-License-Identifier: LGPL-2.1-or-later
"""The reader of /proc: processes, their open files, and swap space. What is mounted: mountinfo.py."""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from flavourd.usage import peek
from flavourd.use import Process

# Control groups may be called anything, and names of units go into logs and hints.
_UNIT = re.compile(r"[\w:.@\\-]+\.(service|scope)", re.ASCII)
_OCTAL = re.compile(r"\\([0-7]{3})")


class Procfs:
    def __init__(self, root: Path = Path("/")) -> None:
        self.home = str(root / "proc")

    def pids(self) -> tuple[int, ...]:
        return tuple(sorted(int(name) for name in peek.names(self.home) if name.isascii() and name.isdecimal()))

    def process(self, pid: int) -> Process:
        """Its name and unit (cgroup v2 only; none of a user's manager); the name is `?` if it has ended."""
        comm = peek.text(f"{self.home}/{pid}/comm") or "?"
        # A process may call itself anything, and its name goes into logs.
        name = "".join(character if character.isprintable() else "?" for character in comm)
        return Process(pid, name, _unit(peek.text(f"{self.home}/{pid}/cgroup") or ""))

    def people(self, pids: Sequence[int]) -> str:
        """`x (pid 7) and 3 more`; "" if there are none."""
        more = f" and {len(pids) - 1} more" if len(pids) > 1 else ""
        return f"{self.process(pids[0])}{more}" if pids else ""

    def wchan(self, pid: int) -> str | None:
        """The kernel's function that it sleeps in (proc_pid_wchan(5)); None if it does not, or may not be known."""
        text = peek.text(f"{self.home}/{pid}/wchan")
        return None if text in (None, "", "0") else text

    # --- open files

    def open_files(self, pid: int) -> Iterator[tuple[str, str]]:
        """(place, target) of a process's open files: where in /proc, and the text of the link.

        OSError: FileNotFoundError or ProcessLookupError if it has ended. Without CAP_SYS_PTRACE (or being the same
        user) the kernel refuses: ptrace_may_access(), PTRACE_MODE_READ.
        """
        empty = True
        for found in self._links(f"{pid}/fd"):
            empty = False
            yield found
        # Of a process whose first thread has ended, only the others have the files.
        if empty and len(tasks := os.listdir(f"{self.home}/{pid}/task")) > 1:
            for task in tasks:
                with suppress(FileNotFoundError, ProcessLookupError):
                    yield from self._links(f"{pid}/task/{task}/fd")

    def open_count(self, pid: int) -> int:
        """How many files it has open (Linux 6.2, else 0)."""
        try:
            return os.stat(f"{self.home}/{pid}/fd").st_size
        except OSError:
            return 0

    def device_number(self, place: str) -> str | None:
        """bMAJOR:MINOR or cMAJOR:MINOR of the node behind an open file; "" if it is none, None if it was closed."""
        try:
            found = os.stat(f"{self.home}/{place}")
        except FileNotFoundError:
            return None
        except OSError:  # no node refuses that
            return ""
        kind = "b" if stat.S_ISBLK(found.st_mode) else "c" if stat.S_ISCHR(found.st_mode) else ""
        return f"{kind}{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}" if kind else ""

    def descriptor_info(self, place: str, key: str) -> str | None:
        """A line `KEY: VALUE` of an open file's fdinfo."""
        folder, _, number = place.rpartition("/")
        for line in (peek.text(f"{self.home}/{folder}info/{number}") or "").split("\n"):
            name, colon, value = line.partition(":")
            if colon and name == key:
                return value.strip()
        return None

    def _links(self, folder: str) -> Iterator[tuple[str, str]]:
        with os.scandir(f"{self.home}/{folder}") as entries:  # there may be 500,000
            for entry in entries:
                try:
                    yield f"{folder}/{entry.name}", os.readlink(entry.path)
                except (FileNotFoundError, ProcessLookupError):  # closed meanwhile
                    continue

    # --- the host

    def swaps(self) -> tuple[str, ...]:
        """Paths of partitions that are swap space; a file is covered by its filesystem's mount."""
        lines = (line.split() for line in (peek.text(f"{self.home}/swaps") or "").split("\n")[1:])
        return tuple(unescaped(fields[0]) for fields in lines if len(fields) > 1 and fields[1] == "partition")

    def lines(self, name: str) -> tuple[str, ...] | None:
        """Of a file in /proc; None if it cannot be read."""
        text = peek.text(f"{self.home}/{name}")
        return None if text is None else tuple(text.split("\n"))

    def exists(self, name: str) -> bool:
        return os.path.lexists(f"{self.home}/{name}")


def unescaped(text: str) -> str:
    """The kernel writes space, tab, newline, backslash and # as octal numbers (seq_path())."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def _unit(cgroups: str) -> str | None:
    for line in cgroups.split("\n"):
        if line.startswith("0::"):
            system = line.partition("/user@")[0]  # units of a user's manager are unknown to systemctl
            return next((part for part in reversed(system.split("/")) if _UNIT.fullmatch(part)), None)
    return None
