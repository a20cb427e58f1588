# SPDX-License-Identifier: LGPL-2.1-or-later
# ruff: noqa: PTH110
"""What the host uses a device for.

Nothing is read that takes the device's own lock in the kernel (`driver_override`, `sriov_numvfs`, `uevent`), and what
costs only if the device has something that it could concern: a network card costs a few files, and all processes are
looked at once, if at all.
"""

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from flavourd.device import DeviceId
from flavourd.facts import Holder, Opened, Sessions, Use, Volume
from flavourd.usage import peek, rtnetlink
from flavourd.usage.below import Below, below
from flavourd.usage.console import Console
from flavourd.usage.held import Held
from flavourd.usage.libvirt import Libvirt
from flavourd.usage.network import Network
from flavourd.usage.processes import Processes
from flavourd.usage.procfs import Procfs
from flavourd.usage.rtnetlink import Tables
from flavourd.usage.storage import Storage
from flavourd.use import Process

_VIRTUAL_FUNCTION = re.compile(r"virtfn([0-9]+)")
# Clocks: who follows one finds another, and no data is lost.
_HARMLESS = frozenset({"ptp", "pps", "rtc"})


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
        self._sys = f"{os.path.realpath(root).rstrip('/')}/sys"
        self._root = root
        procfs = Procfs(root)
        processes = Processes(root)
        self._held = Held(processes)
        self._storage = Storage(root, procfs, processes)
        self._network = Network(root, procfs, tables)
        self._console = Console(root, procfs)
        self._whole = True
        self._unreadable: tuple[str, ...] = ()

    def use(self, device: DeviceId) -> Use:
        place = self._place(device)
        if not place:
            return Use()
        found = map(_VIRTUAL_FUNCTION.fullmatch, peek.names(place))
        links = sorted((int(match[1]), match[0]) for match in found if match)
        vfs = [DeviceId(device.bus, name) for _, link in links if (name := peek.target(f"{place}/{link}"))]
        uses = tuple((vf, self._one(vf, home)) for vf in vfs if (home := self._place(vf)))
        use = self._one(device, place)
        return replace(use, vfs=uses, unknown=tuple(self._unknown()))

    def holders(self, device: DeviceId) -> tuple[Process, ...]:
        if not (place := self._place(device)):
            return ()
        through = [holder.process for holder in self._through_vfio(place)]
        opened = self._opened(below(place, f"{self._sys}/class"))
        return tuple(dict.fromkeys([*through, *(process for one in opened for process in one.processes)]))

    # ---

    def _one(self, device: DeviceId, place: str) -> Use:
        driver = peek.target(f"{place}/driver")
        found = below(place, f"{self._sys}/class")
        self._whole = self._whole and found.complete
        interfaces = tuple(self._network.interface(name) for names in found.networks for name in names)
        stack = self._network.above(interface.name for interface in interfaces)
        vfio = driver is not None and (bool(peek.names(f"{place}/vfio-dev")) or "vfio" in driver)
        return Use(
            driver=driver,
            volumes=self._volumes(found.disks()),
            opened=self._opened(found),
            interfaces=interfaces,
            away=driver is not None and () in found.networks,
            routes=tuple(self._network.routes(stack)) if stack else (),
            sessions=self._sessions(stack) if stack else (),
            console=self._console.on(device.name, place, found.nodes),
            # Keyboards have nodes, and most devices none.
            keyboards=self._console.only_keyboards(place) if any(one.kind == "input" for one in found.nodes) else (),
            holders=self._through_vfio(place) if vfio and _used(place) else (),
            # A device with a native driver is in no domain.
            domains=self._domains.get(device.name, ()) if vfio or driver is None else (),
        )

    def _volumes(self, disks: Collection[str]) -> tuple[Volume, ...]:
        if not disks:
            return ()
        numbers = {name: self._storage.number(name) for name in self._storage.above(disks) if name not in disks}
        nodes = {f"/dev/{name.replace('!', '/')}": f"b{number}" for name, number in numbers.items() if number}
        found = self._held.openers(nodes) if nodes else {}
        openers = {node.removeprefix("/dev/").replace("/", "!"): processes for node, processes in found.items()}
        return tuple(self._storage.volumes(disks, openers))

    def _opened(self, found: Below) -> tuple[Opened, ...]:
        nodes = {one.path(): one.device_number() for one in found.nodes if one.kind not in _HARMLESS}
        return tuple(Opened(*one) for one in sorted(self._held.openers(nodes).items())) if nodes else ()

    def _sessions(self, stack: Mapping[str, tuple[str, ...]]) -> tuple[Sessions, ...]:
        return tuple(
            Sessions(
                interface=name,
                own=stack[name],
                peers=tuple(dict.fromkeys(str(one.remote) for one in some)),
                count=len(some),
                processes=self._held.users({one.inode for one in some}),
            )
            for name, some in sorted(self._network.connections(stack).items())
        )

    def _through_vfio(self, place: str) -> tuple[Holder, ...]:
        kernels = place.removeprefix(self._sys.removesuffix("/sys"))
        return self._held.through_vfio(kernels, peek.target(f"{place}/iommu_group"), peek.names(f"{place}/vfio-dev"))

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

    def _unknown(self) -> Iterator[str]:
        if not self._whole:
            yield "all that stands below it: there is too much"
        if refused := self._held.unknown:
            more = f" and {len(refused) - 1} more processes" if len(refused) > 1 else ""
            yield f"open files of {refused[0]}{more}: /proc/PID/fd may not be read"
        yield from self._storage.unknown
        yield from self._network.unknown
        yield from (f"which domain of libvirt {file} is about" for file in self._unreadable)


def _used(place: str) -> bool:
    """An open vfio device pins its driver's module (vfio_df_device_first_open()); a built-in one has no counter."""
    return peek.text(f"{place}/driver/module/refcnt") != "0"
