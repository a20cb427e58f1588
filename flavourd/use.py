# SPDX-License-Identifier: LGPL-2.1-or-later
"""Why the host still needs a device: guards, what one of them has found, and who is behind it."""

from dataclasses import dataclass
from enum import StrEnum


class Guard(StrEnum):
    """What is looked at before a device is taken from its driver; who asks may pass over each by its name."""

    TABLE = "table"  # a candidate's table does not list the device (an override binds any driver to any device)
    MOUNTED = "mounted"  # a filesystem on a disk of it is mounted, in whichever namespace
    SWAP = "swap"  # a disk of it is swap space
    STACKED = "stacked"  # LVM, md, device-mapper, bcache or ZFS stands on a disk of it
    OPEN = "open"  # a process has one of its nodes in /dev open
    ROUTE = "route"  # a default route leads through its interface
    SESSION = "session"  # a connection uses an address of its interface
    ENSLAVED = "enslaved"  # its interface is part of a bond, bridge, team, switch or carries a VLAN and the like
    NETNS = "netns"  # its interface is in another network namespace
    VFS = "vfs"  # it is a PF whose VFs are enabled
    DISPLAY = "display"  # the firmware's or the kernel's console is on it
    INPUT = "input"  # the only keyboard of the host is behind it
    HELD = "held"  # a program holds it through VFIO
    LIBVIRT = "libvirt"  # a running domain of libvirt has it
    GROUP = "group"  # its IOMMU group would not be viable afterwards


class Severity(StrEnum):
    """What a finding of a guard means, as flavourd.yaml says."""

    ERROR = "error"  # nothing is touched
    WARNING = "warning"  # done, and told
    OFF = "off"


# What is done although it stands in the way of whoever opens the group next: one member comes after the other.
SEVERITIES = dict.fromkeys(Guard, Severity.ERROR) | {Guard.GROUP: Severity.WARNING}


@dataclass(frozen=True)
class Process:
    """name: comm of proc(5), 15 characters. unit: of systemd, by the process's cgroup; None if it is in none."""

    pid: int
    name: str
    unit: str | None = None

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid}{f', {self.unit}' if self.unit else ''})"


@dataclass(frozen=True)
class Finding:
    """sentence: what of the device is in use, without the device's own name: `nvme0n1p1 is mounted at /srv`.

    hint: what would free it: `umount /srv`. processes: who uses it, where that can be told.
    """

    guard: Guard
    sentence: str
    hint: str
    processes: tuple[Process, ...] = ()

    def __str__(self) -> str:
        by = f", by {', '.join(map(str, self.processes))}" if self.processes else ""
        free = f" ({self.hint})" if self.hint else ""
        return f"{self.sentence}{by}{free}"
