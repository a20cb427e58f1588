# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the host uses a device for.

Nothing is read that takes the device's own lock in the kernel (`driver_override`, `sriov_numvfs`, `uevent`), and what
costs only if the device has something that it could concern: a network card costs a few files, and all processes are
looked at once, if at all.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from flavourd.device import DeviceId
from flavourd.facts import Holder, Opened, Sessions, Use, Volume
from flavourd.usage import peek, rtnetlink
from flavourd.usage.ask import Processes
from flavourd.usage.console import Console
from flavourd.usage.held import Held
from flavourd.usage.libvirt import Libvirt
from flavourd.usage.network import Network
from flavourd.usage.part import Part, part
from flavourd.usage.procfs import Procfs
from flavourd.usage.rtnetlink import Tables
from flavourd.usage.storage import Storage
from flavourd.usage.unseen import files_of, mounts_of, unseen
from flavourd.use import Process

_VIRTUAL_FUNCTION = re.compile(r"virtfn([0-9]+)")


class Usage:
    def __init__(self, root: Path = Path("/"), tables: Callable[[], Tables] = rtnetlink.tables) -> None:
        """tables: routes and addresses of this network namespace; it may raise OSError."""
        self._root = root
        self._tables = tables

    def of(self, device: DeviceId) -> Use:
        """Of a device that is not there, nothing. What vanishes meanwhile is not used; what cannot be looked at is told
        in Use.unknown. To be called in a worker process: nodes of a broken device may not answer.
        """
        return _Look(self._root, self._tables).use(device)

    def holders(self, device: DeviceId) -> tuple[Process, ...]:
        """Who holds it through VFIO or has a node of it open: all processes are looked at, whatever else is known. Of a
        device that is stuck, `driver` and `vfio-dev` are gone while its IOMMU group is still there.
        """
        return _Look(self._root, self._tables).holders(device)


class _Look:
    """One look at a device and its VFs: what they share is read once."""

    def __init__(self, root: Path, tables: Callable[[], Tables]) -> None:
        self._root = root
        self._whole = os.path.realpath(root).rstrip("/")
        self._sys = f"{self._whole}/sys"
        self._procfs = Procfs(root)
        processes = Processes(root)
        self._held = Held(processes)
        self._storage = Storage(root, self._procfs, processes)
        self._network = Network(root, self._procfs, tables)
        self._console = Console(root, self._procfs)
        self._unreadable: tuple[str, ...] = ()

    def use(self, device: DeviceId) -> Use:
        place = self._place(device)
        if not place:
            return Use()
        found = map(_VIRTUAL_FUNCTION.fullmatch, peek.names(place))
        links = sorted((int(match[1]), match[0]) for match in found if match)
        vfs = [DeviceId(device.bus, name) for _, link in links if (name := peek.target(f"{place}/{link}"))]
        parts = [self._part(device, place), *(self._part(vf, home) for vf in vfs if (home := self._place(vf)))]
        for each in parts:
            self._held.expect({**each.nodes, **each.volume_nodes}, _sockets(each))
            if each.pinned:
                self._held.expect(each.vfio_nodes, place=each.path)
        own, *others = map(self._one, parts)
        uses = tuple(zip((each.device for each in parts[1:]), others, strict=True))
        return replace(own, vfs=uses, unknown=tuple(self._unknown(parts, (own, *others))))

    def holders(self, device: DeviceId) -> tuple[Process, ...]:
        if not (place := self._place(device)):
            return ()
        each = self._part(device, place)
        self._held.expect({**each.nodes, **each.vfio_nodes}, place=each.path)
        opened = [process for processes in self._held.openers(each.nodes).values() for process in processes]
        return tuple(dict.fromkeys([*(one.process for one in self._holders(each)), *opened]))

    # ---

    def _part(self, device: DeviceId, place: str) -> Part:
        return part(device, place, self._whole, self._procfs, self._network, self._storage)

    def _one(self, each: Part) -> Use:
        use = Use(
            driver=each.driver,
            volumes=self._volumes(each),
            opened=tuple(Opened(*one) for one in sorted(self._held.openers(each.nodes).items())),
            interfaces=tuple(map(self._network.interface, each.found.networks)),
            away=each.driver is not None and each.found.away,
            routes=tuple(self._network.routes(each.stack)) if each.stack else (),
            sessions=tuple(self._sessions(each)),
            console=self._console.on(each.device.name, each.place, each.found.nodes),
            # Keyboards have nodes, and most devices none.
            keyboards=self._keyboards(each),
            nameless=each.blind,
            holders=self._holders(each) if each.pinned else (),
            # A device with a native driver is in no domain.
            domains=self._domains.get(each.device.name, ()) if each.flavoured or each.driver is None else (),
        )
        return replace(use, unseen=tuple(unseen(each, use, self._held, self._storage, self._network)))

    def _volumes(self, each: Part) -> tuple[Volume, ...]:
        if not (disks := each.found.disks()):
            return ()
        found = self._held.openers(each.volume_nodes)
        openers = {node.removeprefix("/dev/").replace("/", "!"): processes for node, processes in found.items()}
        return tuple(self._storage.volumes(disks, openers))

    def _sessions(self, each: Part) -> Iterator[Sessions]:
        for name, some in sorted(each.connections.items()):
            yield Sessions(
                interface=name,
                own=each.stack[name],
                peers=tuple(dict.fromkeys(str(one.remote) for one in some)),
                count=len(some),
                processes=self._held.users({one.inode for one in some}),
            )

    def _keyboards(self, each: Part) -> tuple[str, ...]:
        return self._console.only_keyboards(each.place) if any(one.kind == "input" for one in each.found.nodes) else ()

    def _holders(self, each: Part) -> tuple[Holder, ...]:
        return self._held.through_vfio(each.path, each.vfio_nodes, each.cdev)

    @cached_property
    def _domains(self) -> dict[str, tuple[str, ...]]:
        domains, self._unreadable = Libvirt(self._root).domains()
        return domains

    def _place(self, device: DeviceId) -> str:
        """The real directory of a device; "" if it is not there."""
        for way in (f"bus/{device.bus}/devices", f"class/{device.bus}"):
            if os.path.exists(place := f"{self._sys}/{way}/{device.name}"):
                return os.path.realpath(place)
        return ""

    def _unknown(self, parts: Sequence[Part], uses: Sequence[Use]) -> Iterator[str]:
        told = {one.why for use in uses for one in use.unseen}
        if not all(each.found.complete for each in parts):
            yield "all that stands below it: there is too much"
        if self._held.missed and (files := files_of(self._held)) not in told:
            yield f"who uses what: {files}"
        if self._storage.missed and (mounts := mounts_of(self._storage)) not in told:
            yield f"what is mounted: {mounts}"
        yield from (words for words in self._network.unknown if words not in told)
        yield from (f"which domain of libvirt {file} is about" for file in self._unreadable)


def _sockets(each: Part) -> set[str]:
    return {one.inode for some in each.connections.values() for one in some}
