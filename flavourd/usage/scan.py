# SPDX-License-Identifier: LGPL-2.1-or-later
"""A look at all processes, for all who want to know at once: who has their files open.

Any local user has as many files open, and under whatever names, as his limits let him. So only what is wanted is kept,
a name is not believed where the number of the node says otherwise, and there is an end to the time that it takes.
"""

import os
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from flavourd.usage.procfs import Procfs
from flavourd.use import Process

VFIO_DEVICE = "anon_inode:[vfio-device]"
CDEV = "/dev/vfio/devices/"
DELETED = " (deleted)"

_VFIO, _CONTAINER = "/dev/vfio/", "/dev/vfio/vfio"
_SYSPATH = "vfio-device-syspath"
_SOCKET = "socket:["
# Many have these open, and nobody cares. Files that are no nodes may be on filesystems that do not answer.
_COMMON = ("/dev/pts/", "/dev/shm/", "/dev/mqueue/", "/dev/hugepages")  # noqa: S108 - nothing is written there
_COMMON_NODES = frozenset(f"/dev/{name}" for name in ("null", "zero", "random", "urandom", "tty", "ptmx"))
_AT_ONCE = 1000
_FEW = 100  # processes with the same file: more are told to nobody


@dataclass(frozen=True)
class OpenFile:
    """target: the text of its link: a path or `anon_inode:[NAME]`, `socket:[INODE]`. node: its number, see
    Procfs.device_number(). device: path of an open VFIO device, `/sys/…`, where the kernel tells it
    (vfio_device_show_fdinfo(), Linux 6.18).
    """

    process: Process
    target: str
    node: str | None = None
    device: str | None = None

    def is_of(self, path: str, number: str | None) -> bool:
        """Whether it is this node: by its number, or by its path if that is all that is known."""
        if self.node is None:
            return self.target == path
        return self.node == number if number else self.target == path and self.node.startswith("c")


@dataclass(frozen=True)
class Wanted:
    """nodes: by path in /dev the number, None if it is not known. sockets: inodes. vfio: paths of devices, from /sys
    on, that may be open through VFIO.
    """

    nodes: Mapping[str, str | None] = field(default_factory=dict)
    sockets: Collection[str] = ()
    vfio: Collection[str] = ()

    def includes(self, one: OpenFile) -> bool:
        if one.target in self._targets:
            return True
        if one.device:
            return one.device in self.vfio
        if one.target == VFIO_DEVICE:
            return bool(self.vfio)
        if self.vfio and one.target.startswith(CDEV) and one.target.endswith(DELETED) and one.node != "":
            return True
        return one.node in self._numbers or (one.target in self.nodes and one.is_of(one.target, self.nodes[one.target]))

    @cached_property
    def _numbers(self) -> frozenset[str | None]:
        return frozenset(self.nodes.values()) - {None}

    @cached_property
    def _targets(self) -> frozenset[str]:
        return frozenset(f"{_SOCKET}{inode}]" for inode in self.sockets)


def files(procfs: Procfs, wants: Sequence[Wanted], end: float) -> tuple[list[tuple[OpenFile, ...]], str]:
    """For each who wants to know what is open; and whose files could not be looked at, in words, "" if there is nobody.

    end: in terms of time.monotonic().
    """
    every = Wanted(
        {path: number for one in wants for path, number in one.nodes.items()},
        [inode for one in wants for inode in one.sockets],
        [place for one in wants for place in one.vfio],
    )
    found: list[OpenFile] = []
    missed = []
    pids = procfs.pids()
    # Those with most open files last: who keeps the look from coming to an end is the one that is missed.
    for pid in sorted(pids, key=procfs.open_count):
        if pid == os.getpid():
            continue
        try:
            found += _of(procfs, pid, every, end)
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        except OSError:
            missed.append(pid)
    who = procfs.people(missed) if 1 in pids else "other users' processes"  # proc(5), hidepid
    return [tuple(_few(filter(want.includes, found))) for want in wants], who


# ---


def _of(procfs: Procfs, pid: int, every: Wanted, end: float) -> Iterable[OpenFile]:
    """What one process has open, each once. OSError: it has ended, or may not be looked at, or `end` has come."""
    found: dict[str, OpenFile] = {}
    process: Process | None = None
    looked: set[str] = set()
    named = False
    for count, (place, target) in enumerate(procfs.open_files(pid)):
        if count % _AT_ONCE == 0 and time.monotonic() > end:
            raise TimeoutError
        if target.startswith(_SOCKET):
            node = device = None
        elif target == VFIO_DEVICE:
            node, device = None, procfs.descriptor_info(place, _SYSPATH) if every.vfio else None
        elif target in looked or not _may_be_node(target, every):
            continue
        else:
            if len(looked) >= _AT_ONCE:
                looked.clear()
            looked.add(target)
            named = named or (target.startswith(_VFIO) and target != _CONTAINER)
            node = procfs.device_number(place)
            device = procfs.descriptor_info(place, _SYSPATH) if target.startswith(CDEV) else None
        if every.includes(OpenFile(_NOBODY, target, node, device)):
            process = process or procfs.process(pid)
            one = OpenFile(process, target, node, device)
            found.setdefault(_key(one), one)
    if named:  # the group or node that is open beside it tells which device it is
        found.pop(VFIO_DEVICE, None)
    return found.values()


_NOBODY = Process(0, "")


def _may_be_node(target: str, every: Wanted) -> bool:
    """Whether it is worth a look. Below another root (chroot(2)) nodes have their names behind that of the root."""
    if target.startswith("/dev/"):
        return target not in _COMMON_NODES and not target.startswith(_COMMON)
    return target[max(target.rfind("/dev/"), 0) :] in every.nodes


def _key(one: OpenFile) -> str:
    return one.device or one.node or one.target


def _few(some: Iterable[OpenFile]) -> Iterator[OpenFile]:
    seen: Counter[str] = Counter()
    for one in some:
        seen[_key(one)] += 1
        if seen[_key(one)] <= _FEW:
            yield one
