# SPDX-License-Identifier: LGPL-2.1-or-later
"""What of disks is mounted, in all mount namespaces. Anybody has namespaces and mounts of his own, without number."""

import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from flavourd.usage.procfs import Procfs, unescaped
from flavourd.use import Process

_MOST = 100  # mounts of the same disk
_NUMBERLESS = ("btrfs", "bcachefs")
_DISKS = ("logdev", "rtdev", "journal_path")


@dataclass(frozen=True)
class MountLine:
    """A line of mountinfo. device: MAJOR:MINOR; the major is 0 for filesystems that have no device of their own
    number (btrfs, bcachefs). beside: paths of further disks that it is on (XFS, ext4: its log).
    """

    device: str
    path: str
    kind: str
    source: str
    beside: tuple[str, ...] = ()

    @property
    def numberless(self) -> bool:
        return self.device.startswith("0:")

    @property
    def disk(self) -> str:
        return self.source if self.numberless else self.device


@dataclass(frozen=True)
class MountTable:
    """What is mounted in one mount namespace. process: one that is in it; None: it is the host's own."""

    process: Process | None
    lines: tuple[MountLine, ...]


def mounts(procfs: Procfs, end: float) -> tuple[tuple[MountTable, ...], str]:
    """One table for each mount namespace that a process is in, the host's (that of process 1) first; and the processes
    whose table could not be read, or not until `end` (time.monotonic()): in words, "" if there are none.

    The namespace of a process is told by a link that costs a tenth of its table. Where the link may not be read
    (it wants the same permission as open files), the table itself is, and equal ones are taken for one namespace.
    One that no process is in, kept alive by a bind mount or an open file, cannot be seen.
    """
    tables: dict[object, MountTable | None] = {}
    missed = []
    seen: Counter[str] = Counter()
    for pid in procfs.pids():
        folder = f"{procfs.home}/{pid}"
        try:
            space = os.readlink(f"{folder}/ns/mnt")
        except PermissionError:
            space = None
        except OSError:  # it has ended
            continue
        if space in tables or pid == os.getpid():
            continue
        if time.monotonic() > end:
            missed.append(pid)
            continue
        try:
            with open(f"{folder}/mountinfo", "rb") as file:
                lines = _lines(file, seen)
        except PermissionError:
            missed.append(pid)
        except OSError:
            continue
        else:
            if lines is not None and (key := space or lines) not in tables:
                its = MountTable(None if pid == 1 else procfs.process(pid), lines)
                tables[key] = its if lines or pid == 1 else None
    found = tuple(table for table in tables.values() if table)
    hosts = any(table.process is None for table in found)
    return found, procfs.people(missed) if hosts else "the host itself"


def _lines(file: Iterable[bytes], seen: Counter[str]) -> tuple[MountLine, ...] | None:
    """See proc_pid_mountinfo(5): ID PARENT MAJOR:MINOR ROOT PATH OPTIONS [FIELDS…] - KIND SOURCE OPTIONS. Those of
    disks, and of those that were seen the first ones: a container has copies of the host's, and anybody may bind a
    directory to many places. None if there is no line.
    """
    found: list[MountLine] | None = None
    for raw in file:
        found = found or []
        front, dash, back = os.fsdecode(raw).rstrip("\n").partition(" - ")
        first, last = front.split(" "), back.split(" ")
        if not dash or len(first) < 5 or len(last) < 2:
            continue
        # The source of any other filesystem is what the one who has mounted it says.
        if first[2].startswith("0:") and last[0] not in _NUMBERLESS:
            continue
        one = MountLine(first[2], unescaped(first[4]), last[0], unescaped(last[1]), _beside(last[-1]))
        seen[one.disk] += 1
        if seen[one.disk] <= _MOST:
            found.append(one)
    return None if found is None else tuple(found)


def _beside(options: str) -> tuple[str, ...]:
    pairs = (option.partition("=") for option in options.split(","))
    return tuple(unescaped(path) for name, _, path in pairs if name in _DISKS)
