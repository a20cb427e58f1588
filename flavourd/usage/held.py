# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who has which files of a device open: its VFIO group or node, its nodes in /dev, its sockets. One scan of /proc."""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from typing import TypeVar

from flavourd.facts import Holder
from flavourd.usage.processes import VFIO_DEVICE, OpenFile, Processes
from flavourd.use import Process

K = TypeVar("K")
V = TypeVar("V")

_CDEV = "/dev/vfio/devices/"
_GROUPS = "/dev/vfio/"
_CONTAINER = "/dev/vfio/vfio"
# They look at every node for a moment, and are asked to wait by nobody.
_PASSING = ("systemd-udevd", "(udev-worker)", "udevadm")
# It listens for the power key on every keyboard that has one, and bears to lose it.
_INPUT, _WAITS_FOR_KEYS = "/dev/input/", "systemd-logind"


class Held:
    """One look: all processes are scanned once, when that is needed first; for sockets once more.

    unknown: processes whose open files could not be looked at, if any were.
    """

    def __init__(self, processes: Processes) -> None:
        self._everyone = processes
        self._own = {os.getpid(), os.getppid()}
        self.unknown: tuple[Process, ...] = ()

    def through_vfio(self, place: str, group: str | None, nodes: Collection[str]) -> tuple[Holder, ...]:
        """place: the device's path from /sys on, as the kernel tells it. group: name of its IOMMU group. nodes: names
        in its vfio-dev directory.

        A group that is open counts though none of its devices may be: a native driver cannot bind meanwhile.
        """
        groups = {f"{_GROUPS}{group}", f"{_GROUPS}noiommu-{group}"} if group is not None else set()
        found: dict[Process, bool] = {}
        for process, files in self._users_of_vfio.items():
            # On a kernel that does not tell an open device's name, the group or node that is open beside it does.
            nameless = not any(one.target.startswith(_GROUPS) and one.target != _CONTAINER for one in files)
            for one in files:
                if (certain := _ours(one, place, groups, nodes, nameless)) is not None:
                    found[process] = found.get(process, False) or certain
        return tuple(Holder(process, certain) for process, certain in found.items() if process.name not in _PASSING)

    def openers(self, nodes: Mapping[str, str]) -> dict[str, tuple[Process, ...]]:
        """Who has which of these nodes open; those that nobody has are left out.

        nodes: by path in /dev the number, as Procfs.device_number() tells it.
        """
        found = {}
        for path, number in nodes.items():
            processes = _sorted([*self._by_name.get(path, ()), *self._by_number.get(number, ())])
            if path.startswith(_INPUT):
                processes = tuple(one for one in processes if one.name != _WAITS_FOR_KEYS)
            if processes:
                found[path] = processes
        return found

    def users(self, sockets: Collection[str]) -> tuple[Process, ...]:
        """sockets: inodes."""
        targets = {f"socket:[{inode}]" for inode in sockets}
        found, refused = self._everyone.sockets()
        self.unknown = self.unknown or refused
        return _sorted(one.process for one in found if one.target in targets)

    # ---

    @cached_property
    def _nodes(self) -> list[OpenFile]:
        found, refused = self._everyone.nodes()
        self.unknown = self.unknown or refused
        return [one for one in found if one.process.pid not in self._own]

    @cached_property
    def _by_name(self) -> dict[str, list[Process]]:
        return _grouped((one.target, one.process) for one in self._nodes)

    @cached_property
    def _by_number(self) -> dict[str, list[Process]]:
        """Whatever the node is called for them."""
        return _grouped((one.node, one.process) for one in self._nodes if one.node)

    @cached_property
    def _users_of_vfio(self) -> dict[Process, list[OpenFile]]:
        return _grouped((one.process, one) for one in self._nodes if one.target.startswith((_GROUPS, VFIO_DEVICE)))


def _ours(one: OpenFile, place: str, groups: Collection[str], nodes: Collection[str], nameless: bool) -> bool | None:
    """True: this is the device. None: it is not. False: that cannot be told."""
    if one.target in groups:
        return True
    cdev = one.target.startswith(_CDEV)
    if not cdev and one.target != VFIO_DEVICE:
        return None
    if one.device:
        return True if one.device == place else None
    if cdev:
        name = one.target.removeprefix(_CDEV)
        # The node of a device that is being released has gone already, and its number with it.
        return True if name in nodes else False if name.endswith(" (deleted)") and not nodes else None
    return False if nameless else None


def _grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    found = defaultdict(list)
    for key, value in pairs:
        found[key].append(value)
    return dict(found)


def _sorted(processes: Iterable[Process]) -> tuple[Process, ...]:
    return tuple(sorted({one for one in processes if one.name not in _PASSING}, key=lambda one: one.pid))
