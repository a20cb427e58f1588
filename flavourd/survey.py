# SPDX-License-Identifier: LGPL-2.1-or-later
"""A look at all devices that never waits for one: what takes the device's lock in the kernel (`driver_override`,
`uevent` and `sriov_numvfs` on some kernels) is not read.
"""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from flavourd.device import DeviceId, Glance
from flavourd.sysfs import device_id, entries, link_name, text_of
from flavourd.udevdb import UdevDatabase

_VIRTUAL_FUNCTION = re.compile(r"virtfn[0-9]+")
_CONTROLLER = re.compile(r"nvme[0-9]+")


class Survey:
    def __init__(self, root: Path = Path("/")) -> None:
        self._sys = str(root / "sys")
        self._real = os.path.realpath(self._sys)
        self._database = UdevDatabase(root)

    def glances(self, buses: Collection[str], proofs: Collection[str]) -> tuple[Glance, ...]:
        """All devices of these buses, and who shares an IOMMU group with them; sorted by name."""
        places = {
            DeviceId(bus, name): f"{self._sys}/bus/{bus}/devices/{name}"
            for bus in buses
            for name in entries(f"{self._sys}/bus/{bus}/devices")
        }
        known = {device.name for device in places}
        for group in entries(f"{self._sys}/kernel/iommu_groups"):
            members = f"{self._sys}/kernel/iommu_groups/{group}/devices"
            names = entries(members)
            if not known.isdisjoint(names):
                others = (f"{members}/{name}" for name in names if name not in known)
                places.update({device: place for place in others if (device := device_id(place))})
        interfaces, disks = self._endpoints("net"), self._endpoints("block")
        return tuple(
            glance
            for device, place in sorted(places.items())
            if (glance := self._glance(device, place, proofs, interfaces, disks))
        )

    def glance(self, device: DeviceId, proofs: Collection[str]) -> Glance | None:
        """One device; None if it is not there."""
        place = f"{self._sys}/bus/{device.bus}/devices/{device.name}"
        return self._glance(device, place, proofs, self._endpoints("net"), self._endpoints("block"))

    def group(self, name: str, proofs: Collection[str]) -> tuple[Glance, ...]:
        """The members of an IOMMU group, without what stands on them."""
        members = f"{self._sys}/kernel/iommu_groups/{name}/devices"
        found = ((device_id(f"{members}/{entry}"), f"{members}/{entry}") for entry in entries(members))
        glances = (self._glance(device, place, proofs, {}, {}) for device, place in found if device)
        return tuple(filter(None, glances))

    # ---

    def _glance(
        self,
        device: DeviceId,
        place: str,
        proofs: Collection[str],
        interfaces: Mapping[str, list[str]],
        disks: Mapping[str, list[str]],
    ) -> Glance | None:
        there = entries(place)
        if not there:  # gone meanwhile
            return None
        words = self._database.properties(device)
        whole = os.path.realpath(place)
        try:
            return Glance(
                id=device,
                driver=link_name(f"{place}/driver") if "driver" in there else None,
                modalias=text_of(f"{place}/modalias") if "modalias" in there else None,
                class_code=(text_of(f"{place}/class") or "").removeprefix("0x") or None if "class" in there else None,
                bridge="secondary_bus_number" in there,
                iommu_group=link_name(f"{place}/iommu_group") if "iommu_group" in there else None,
                proofs=tuple((name, entries(f"{place}/{name}")) for name in proofs if name in there),
                pf=device_id(f"{place}/physfn") if "physfn" in there else None,
                vfs=sum(map(bool, map(_VIRTUAL_FUNCTION.fullmatch, there))),
                interfaces=tuple(interfaces.get(whole, ())),
                disks=tuple(disks.get(whole, ())),
                vendor=words["ID_VENDOR_FROM_DATABASE"] or None,
                model=words["ID_MODEL_FROM_DATABASE"] or None,
                class_name=words["ID_PCI_SUBCLASS_FROM_DATABASE"] or words["ID_PCI_CLASS_FROM_DATABASE"] or None,
            )
        except OSError:  # gone meanwhile: attributes of a device under removal answer ENODEV
            return None

    def _endpoints(self, kind: str) -> dict[str, list[str]]:
        """For each device's directory the interfaces (`net`) or disks (`block`) below it; partitions are left out."""
        found = defaultdict(list)
        for name in entries(f"{self._sys}/class/{kind}"):
            place = os.path.realpath(f"{self._sys}/class/{kind}/{name}")
            with suppress(OSError):  # gone meanwhile
                # The paths below a multipath disk are hidden (lsblk(8) leaves them out too).
                if not os.path.exists(f"{place}/partition") and text_of(f"{place}/hidden") != "1":
                    for above in self._hardware(place):
                        found[above].append(name)
        return found

    def _hardware(self, place: str) -> Iterator[str]:
        """Directories of the closest devices with a driver_override that an interface or disk stands on."""
        for above in stands_on(place):
            while above.startswith(f"{self._real}/") and not os.path.exists(f"{above}/driver_override"):
                above = os.path.dirname(above)
            if above.startswith(f"{self._real}/"):
                yield above


def stands_on(place: str) -> list[str]:
    """Directories that an interface or disk stands on, by the real path of its own."""
    beside = os.path.dirname(place)
    # With multipath an NVMe namespace stands on its subsystem, which has links to its controllers.
    links = [f"{beside}/{name}" for name in entries(beside) if _CONTROLLER.fullmatch(name)]
    return [os.path.realpath(link) for link in links if os.path.islink(link)] or [beside]
