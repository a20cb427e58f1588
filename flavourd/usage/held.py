# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who has which files of a device open: its VFIO group or node, its nodes in /dev, its sockets. One scan of /proc."""

import os
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property

from flavourd.facts import Holder
from flavourd.usage.ask import Processes
from flavourd.usage.scan import CDEV, DELETED, VFIO_DEVICE, OpenFile, Wanted
from flavourd.use import Process

# They, and what they run, look at every node for a moment, and are asked to wait by nobody.
_PASSING, _PASSING_UNIT = ("systemd-udevd", "(udev-worker)", "udevadm"), "systemd-udevd.service"
# It listens for the power key on every keyboard that has one, and bears to lose it.
_INPUT, _WAITS_FOR_KEYS = "/dev/input/", "systemd-logind"
_SOCKETS = 1000  # of more, who has the others is not asked


class Held:
    """One look: all processes are scanned once, when somebody is asked for first; `expect` tells before for whom."""

    def __init__(self, processes: Processes) -> None:
        self._everyone = processes
        self._own = {os.getpid(), os.getppid()}
        self._nodes: dict[str, str | None] = {}
        self._sockets: set[str] = set()
        self._places: set[str] = set()

    def expect(
        self, nodes: Mapping[str, str | None] | None = None, sockets: Iterable[str] = (), place: str | None = None
    ) -> None:
        """nodes: see Wanted. sockets: inodes. place: of a device that may be open through VFIO, see through_vfio()."""
        self._nodes |= nodes or {}
        self._sockets.update(sockets)
        self._places |= {place} if place else set()

    @property
    def missed(self) -> str:
        """Whose open files could not be looked at, in words; "" if there is nobody, or nothing was to be looked at."""
        return self._look[1]

    def through_vfio(self, place: str, nodes: Mapping[str, str | None], here: bool) -> tuple[Holder, ...]:
        """place: the device's path from /sys on, as the kernel tells it. nodes: its group's, and its own. here: it has
        a node of its own; that of a device which is being released has gone already, and its number with it.

        A group that is open counts though none of its devices may be: a native driver cannot bind meanwhile.
        """
        found: dict[Process, bool] = {}
        for one in self._files:
            if (certain := _ours(one, place, nodes, here)) is not None:
                found[one.process] = found.get(one.process, False) or certain
        return tuple(Holder(process, certain) for process, certain in found.items() if _stays(process))

    def openers(self, nodes: Mapping[str, str | None]) -> dict[str, tuple[Process, ...]]:
        """Who has which of these nodes open; those that nobody has are left out. nodes: see Wanted."""
        found = {}
        for path, number in nodes.items():
            processes = _sorted([one.process for one in self._named.get((path, number), ())])
            if path.startswith(_INPUT):
                processes = tuple(one for one in processes if one.name != _WAITS_FOR_KEYS)
            if processes:
                found[path] = processes
        return found

    def users(self, sockets: Collection[str]) -> tuple[Process, ...]:
        """sockets: inodes."""
        targets = {f"socket:[{inode}]" for inode in sockets}
        return _sorted(one.process for one in self._files if one.target in targets)

    # ---

    @cached_property
    def _look(self) -> tuple[list[OpenFile], str]:
        if not self._nodes and not self._sockets and not self._places:
            return [], ""
        found, missed = self._everyone.files(
            Wanted(self._nodes, sorted(self._sockets)[:_SOCKETS], sorted(self._places))
        )
        return [one for one in found if one.process.pid not in self._own], missed

    @property
    def _files(self) -> list[OpenFile]:
        return self._look[0]

    @cached_property
    def _named(self) -> dict[tuple[str, str | None], list[OpenFile]]:
        """Those of each node, whatever it is called for them."""
        found: dict[tuple[str, str | None], list[OpenFile]] = {}
        paths: dict[str | None, str] = {number: path for path, number in self._nodes.items() if number}
        for one in self._files:
            path = paths.get(one.node, one.target)
            if path in self._nodes and one.is_of(path, self._nodes[path]):
                found.setdefault((path, self._nodes[path]), []).append(one)
        return found


def _ours(one: OpenFile, place: str, nodes: Mapping[str, str | None], here: bool) -> bool | None:
    """True: this is the device. None: it is not. False: that cannot be told."""
    if one.device:
        return True if one.device == place else None
    if one.target == VFIO_DEVICE:
        return False
    if any(one.is_of(path, number) for path, number in nodes.items()):
        return True
    return False if one.target.startswith(CDEV) and one.target.endswith(DELETED) and not here else None


def _sorted(processes: Iterable[Process]) -> tuple[Process, ...]:
    return tuple(sorted(set(filter(_stays, processes)), key=lambda one: one.pid))


def _stays(process: Process) -> bool:
    return process.unit != _PASSING_UNIT and process.name not in _PASSING
