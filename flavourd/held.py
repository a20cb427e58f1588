# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who has which files of a device open: its VFIO group or node, its nodes in /dev, its sockets. One scan of /proc."""

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache, cached_property

from flavourd.facts import Holder
from flavourd.procfs import Descriptor, Procfs
from flavourd.use import Process

_ANONYMOUS = "anon_inode:[vfio-device]"
_CDEV = "/dev/vfio/devices/"
_GROUPS = "/dev/vfio/"
_CONTAINER = "/dev/vfio/vfio"
_WANTED = ("/dev/", "socket:[", _ANONYMOUS)
_UNWANTED = ("/dev/pts/", "/dev/null")
# They look at every node for a moment, and are asked to wait by nobody.
_PASSING = ("systemd-udevd", "(udev-worker)", "udevadm")


class Held:
    """One look: all processes are scanned once, when that is needed first."""

    def __init__(self, procfs: Procfs) -> None:
        self._procfs = procfs
        self._own = {os.getpid(), os.getppid()}
        self._process: Callable[[int], Process] = cache(procfs.process)
        self._refused: tuple[int, ...] = ()

    def unknown(self) -> tuple[Process, ...]:
        """Processes whose open files could not be looked at, if any were."""
        return tuple(map(self._process, self._refused))

    def through_vfio(self, place: str, group: str | None, nodes: Collection[str]) -> tuple[Holder, ...]:
        """place: the device's path from /sys on, as the kernel tells it. group: name of its IOMMU group. nodes: names
        in its vfio-dev directory.

        A group that is open counts though none of its devices may be: a native driver cannot bind meanwhile.
        """
        groups = {f"{_GROUPS}{group}", f"{_GROUPS}noiommu-{group}"} if group is not None else set()
        found: dict[int, bool] = {}
        for pid, descriptors in self._by_process.items():
            targets = {one.target for one in descriptors}
            # On a kernel that does not tell an open device's name, the group or node that is open beside it does.
            nameless = not any(target.startswith(_GROUPS) and target != _CONTAINER for target in targets)
            for one in descriptors:
                if (certain := self._ours(one, place, groups, nodes, nameless)) is not None:
                    found[pid] = found.get(pid, False) or certain
        holders = [Holder(self._process(pid), certain) for pid, certain in found.items()]
        return tuple(one for one in holders if one.process.name not in _PASSING)

    def openers(self, nodes: Mapping[str, str]) -> dict[str, tuple[Process, ...]]:
        """nodes: by path in /dev, MAJOR:MINOR. Who has which of them open; those that nobody has are left out."""
        numbers = {number: path for path, number in nodes.items()}
        found: dict[str, dict[int, None]] = defaultdict(dict)
        for pid, descriptors in self._by_process.items():
            for one in descriptors:
                if one.target in nodes:
                    found[one.target][pid] = None
                elif one.target.startswith("/dev/") and (path := numbers.get(self._procfs.device_number(one) or "")):
                    found[path][pid] = None
        shown = {path: self._processes(pids) for path, pids in found.items()}
        return {path: processes for path, processes in shown.items() if processes}

    def users(self, sockets: Collection[str]) -> tuple[Process, ...]:
        """sockets: inodes."""
        targets = {f"socket:[{inode}]" for inode in sockets}
        return self._processes(
            pid for pid, some in self._by_process.items() if any(one.target in targets for one in some)
        )

    # ---

    def _processes(self, pids: Iterable[int]) -> tuple[Process, ...]:
        return tuple(one for one in map(self._process, pids) if one.name not in _PASSING)

    @cached_property
    def _by_process(self) -> dict[int, list[Descriptor]]:
        descriptors, self._refused = self._procfs.descriptors(
            lambda target: target.startswith(_WANTED) and not target.startswith(_UNWANTED)
        )
        found = defaultdict(list)
        for one in descriptors:
            if one.pid not in self._own:
                found[one.pid].append(one)
        return dict(found)

    def _ours(
        self, one: Descriptor, place: str, groups: Collection[str], nodes: Collection[str], nameless: bool
    ) -> bool | None:
        """True: this is the device. None: it is not. False: that cannot be told."""
        if one.target in groups:
            return True
        cdev = one.target.startswith(_CDEV)
        if not cdev and one.target != _ANONYMOUS:
            return None
        # The path of the device itself, since Linux 6.18 (vfio_device_show_fdinfo()).
        if told := self._procfs.descriptor_info(one, "vfio-device-syspath"):
            return True if told == place else None
        if cdev:
            name = one.target.removeprefix(_CDEV)
            # The node of a device that is being released has gone already, and its number with it.
            return True if name in nodes else False if name.endswith(" (deleted)") and not nodes else None
        return False if nameless else None
