# SPDX-License-Identifier: LGPL-2.1-or-later
"""What of a device, or of one of its VFs, processes may have open: nodes, VFIO, connections."""

from collections.abc import Mapping
from dataclasses import dataclass

from flavourd.device import DeviceId
from flavourd.usage import nvidia, peek
from flavourd.usage.below import Below, below
from flavourd.usage.network import Connection, Network
from flavourd.usage.procfs import Procfs
from flavourd.usage.storage import Storage

# Clocks: who follows one finds another, and no data is lost.
_HARMLESS = frozenset({"ptp", "pps", "rtc"})
_Nodes = Mapping[str, str | None]


@dataclass(frozen=True)
class Part:
    """place: its real directory; path: the same as the kernel tells it, from /sys on. found: what stands below it.

    nodes: by path in /dev the number (Wanted.nodes) of its own; volume_nodes: of what stands on its disks; vfio_nodes:
    of those by which it is opened through VFIO, one of which (cdev) may be its own. blind: it has a node that nobody
    tells. flavoured: a VFIO driver has it; pinned: something uses that driver. stack, connections: see Network.
    """

    device: DeviceId
    place: str
    path: str
    driver: str | None
    found: Below
    nodes: _Nodes
    volume_nodes: _Nodes
    vfio_nodes: _Nodes
    cdev: bool
    blind: bool
    flavoured: bool
    pinned: bool
    stack: Mapping[str, tuple[str, ...]]
    connections: Mapping[str, list[Connection]]


def part(device: DeviceId, place: str, root: str, procfs: Procfs, network: Network, storage: Storage) -> Part:
    driver = peek.target(f"{place}/driver")
    found = below(place, f"{root}/sys/class")
    nodes: dict[str, str | None] = {one.path(): one.device_number() for one in found.nodes if one.kind not in _HARMLESS}
    card = nvidia.node(procfs, device.name) if driver == nvidia.DRIVER else None
    if card:
        nodes[card[0]] = card[1]
    cdevs = peek.names(f"{place}/vfio-dev")
    flavoured = driver is not None and (bool(cdevs) or "vfio" in driver)
    stack = network.above(found.networks)
    return Part(
        device=device,
        place=place,
        path=place.removeprefix(root),
        driver=driver,
        found=found,
        nodes=nodes,
        volume_nodes=_volume_nodes(found.disks(), storage),
        vfio_nodes=_vfio_nodes(place, root, cdevs),
        cdev=bool(cdevs),
        blind=driver == nvidia.DRIVER and not card,
        flavoured=flavoured,
        # An open vfio device pins its driver's module (vfio_df_device_first_open()); a built-in one has no counter.
        pinned=flavoured and peek.text(f"{place}/driver/module/refcnt") != "0",
        stack=stack,
        connections=network.connections(stack) if stack else {},
    )


def volume_path(name: str) -> str:
    """In /dev, of what is called so in /sys/class/block."""
    return f"/dev/{name.replace('!', '/')}"


def _volume_nodes(disks: list[str], storage: Storage) -> _Nodes:
    numbers = ((name, storage.number(name)) for name in storage.above(disks) if name not in disks)
    return {volume_path(name): f"b{number}" for name, number in numbers if number}


def _vfio_nodes(place: str, root: str, cdevs: tuple[str, ...]) -> _Nodes:
    found = {f"/dev/vfio/devices/{name}": _number(f"{place}/vfio-dev/{name}") for name in cdevs}
    if group := peek.target(f"{place}/iommu_group"):
        for name in (group, f"noiommu-{group}"):
            found[f"/dev/vfio/{name}"] = _number(f"{root}/sys/class/vfio/{name}")
    return found


def _number(home: str) -> str | None:
    number = peek.text(f"{home}/dev")
    return f"c{number}" if number else None
