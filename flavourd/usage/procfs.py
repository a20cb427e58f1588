# SPDX-License-Identifier: LGPL-2.1-or-later
"""The reader of /proc: processes, their open files, what is mounted where, and swap space."""

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flavourd.usage import peek
from flavourd.use import Process

_UNIT = (".service", ".scope")
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Descriptor:
    """An open file of a process. target: the text of its link: a path, `socket:[INODE]`, `anon_inode:[NAME]`."""

    pid: int
    number: str
    target: str


@dataclass(frozen=True)
class MountLine:
    """A line of mountinfo. device: MAJOR:MINOR; the major is 0 for filesystems that have no device of their own
    number (btrfs, bcachefs).
    """

    device: str
    path: str
    kind: str
    source: str


@dataclass(frozen=True)
class MountTable:
    """What is mounted in one mount namespace. pid: of a process in it, None: it is the host's own."""

    pid: int | None
    lines: tuple[MountLine, ...]


class Procfs:
    def __init__(self, root: Path = Path("/")) -> None:
        self._proc = str(root / "proc")

    def pids(self) -> tuple[int, ...]:
        return tuple(sorted(int(name) for name in peek.names(self._proc) if name.isascii() and name.isdecimal()))

    def process(self, pid: int) -> Process:
        """Its name and unit (cgroup v2 only); the name is `?` if it has ended."""
        comm = peek.text(f"{self._proc}/{pid}/comm") or "?"
        # A process may call itself anything, and its name goes into logs.
        name = "".join(character if character.isprintable() else "?" for character in comm)
        return Process(pid, name, _unit(peek.text(f"{self._proc}/{pid}/cgroup") or ""))

    def wchan(self, pid: int) -> str | None:
        """The kernel's function that it sleeps in (proc_pid_wchan(5)); None if it does not, or may not be known."""
        text = peek.text(f"{self._proc}/{pid}/wchan")
        return None if text in (None, "", "0") else text

    # --- open files

    def descriptors(self, wanted: Callable[[str], bool]) -> tuple[tuple[Descriptor, ...], tuple[int, ...]]:
        """Open files of all processes whose target is wanted, and the processes that could not be looked at.

        Without CAP_SYS_PTRACE (or being the same user) the kernel refuses: ptrace_may_access(), PTRACE_MODE_READ.
        """
        found, refused = [], []
        for pid in self.pids():
            folder = f"{self._proc}/{pid}/fd"
            try:
                numbers = os.listdir(folder)
                for number in numbers:
                    try:
                        target = os.readlink(f"{folder}/{number}")  # noqa: PTH115 - there may be 100,000
                    except (FileNotFoundError, ProcessLookupError):
                        continue
                    if wanted(target):
                        found.append(Descriptor(pid, number, target))
            except PermissionError:
                refused.append(pid)
            except OSError:  # it has ended
                continue
        return tuple(found), tuple(refused)

    def device_number(self, descriptor: Descriptor) -> str | None:
        """bMAJOR:MINOR or cMAJOR:MINOR of the node behind it; None if it is none or was closed."""
        try:
            found = os.stat(f"{self._proc}/{descriptor.pid}/fd/{descriptor.number}")  # noqa: PTH116
        except OSError:
            return None
        kind = "b" if stat.S_ISBLK(found.st_mode) else "c" if stat.S_ISCHR(found.st_mode) else ""
        return f"{kind}{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}" if kind else None

    def descriptor_info(self, descriptor: Descriptor, key: str) -> str | None:
        """A line `KEY: VALUE` of its fdinfo."""
        for line in (peek.text(f"{self._proc}/{descriptor.pid}/fdinfo/{descriptor.number}") or "").split("\n"):
            name, colon, value = line.partition(":")
            if colon and name == key:
                return value.strip()
        return None

    # --- filesystems

    def mounts(self) -> tuple[tuple[MountTable, ...], bool]:
        """One table for each mount namespace that a process is in, the host's (that of process 1) first; and whether
        those of all processes could be read.

        The namespace of a process is told by a link that costs a tenth of its table. Where the link may not be read
        (it wants the same permission as open files), the table itself is, and equal ones are taken for one namespace.
        One that no process is in, kept alive by a bind mount or an open file, cannot be seen.
        """
        tables: dict[str, MountTable] = {}
        complete = True
        for pid in self.pids():
            folder = f"{self._proc}/{pid}"
            try:
                space = os.readlink(f"{folder}/ns/mnt")  # noqa: PTH115
            except PermissionError:
                space = None
            except OSError:  # it has ended
                continue
            if space in tables:
                continue
            try:
                with open(f"{folder}/mountinfo", "rb") as file:
                    text = os.fsdecode(file.read())
            except PermissionError:
                complete = False
            except OSError:
                continue
            else:
                if text:
                    tables.setdefault(space or text, MountTable(None if pid == 1 else pid, _mount_lines(text)))
        return tuple(tables.values()), complete and bool(tables)

    def swaps(self) -> tuple[str, ...]:
        """Paths of partitions that are swap space; a file is covered by its filesystem's mount."""
        lines = (line.split() for line in (peek.text(f"{self._proc}/swaps") or "").split("\n")[1:])
        return tuple(unescaped(fields[0]) for fields in lines if len(fields) > 1 and fields[1] == "partition")

    def lines(self, name: str) -> tuple[str, ...] | None:
        """Of a file in /proc; None if it cannot be read."""
        text = peek.text(f"{self._proc}/{name}")
        return None if text is None else tuple(text.split("\n"))

    def exists(self, name: str) -> bool:
        return os.path.lexists(f"{self._proc}/{name}")


def unescaped(text: str) -> str:
    """The kernel writes space, tab, newline, backslash and # as octal numbers (seq_path())."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def _unit(cgroups: str) -> str | None:
    for line in cgroups.split("\n"):
        if line.startswith("0::"):
            return next((part for part in reversed(line.split("/")) if part.endswith(_UNIT)), None)
    return None


def _mount_lines(text: str) -> tuple[MountLine, ...]:
    """See proc_pid_mountinfo(5): ID PARENT MAJOR:MINOR ROOT PATH OPTIONS [FIELDS…] - KIND SOURCE OPTIONS."""
    found = []
    for line in text.split("\n"):
        front, dash, back = line.partition(" - ")
        first, last = front.split(" "), back.split(" ")
        if dash and len(first) > 4 and len(last) > 1:
            found.append(MountLine(first[2], unescaped(first[4]), last[0], unescaped(last[1])))
    return tuple(found)
