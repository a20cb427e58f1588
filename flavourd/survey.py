# SPDX-License-Identifier: LGPL-2.1-or-later
"""A look at all devices that never waits for one: what takes the device's lock in the kernel (`driver_override`,
`uevent` and `sriov_numvfs` on some kernels) is not read.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from flavourd.device import DeviceId, Glance
from flavourd.sysfs import device_id, entries, link_name, text_of
from flavourd.udevdb import UdevDatabase

_VIRTUAL_FUNCTION = re.compile(r"virtfn[0-9]+")


class Survey:
    def __init__(self, root: Path = Path("/")) -> None:
        self._sys = root / "sys"
        self._database = UdevDatabase(root)

    def glances(self, buses: Collection[str], proofs: Collection[str]) -> tuple[Glance, ...]:
        """All devices of these buses, and who shares an IOMMU group with them; sorted by name."""
        found = {
            DeviceId(bus, name): self._sys / "bus" / bus / "devices" / name
            for bus in buses
            for name in entries(self._sys / "bus" / bus / "devices")
        }
        known = {device.name for device in found}
        for group in entries(self._sys / "kernel/iommu_groups"):
            members = self._sys / "kernel/iommu_groups" / group / "devices"
            names = entries(members)
            if not known.isdisjoint(names):
                others = (members / name for name in names if name not in known)
                found.update({device: path for path in others if (device := device_id(path))})
        interfaces, disks = self._endpoints("net"), self._endpoints("block")
        return tuple(
            glance
            for device, path in sorted(found.items())
            if (glance := self._glance(device, path, proofs, interfaces, disks))
        )

    def glance(self, device: DeviceId, proofs: Collection[str]) -> Glance | None:
        """One device; None if it is not there."""
        path = self._sys / "bus" / device.bus / "devices" / device.name
        return self._glance(device, path, proofs, self._endpoints("net"), self._endpoints("block"))

    def group(self, name: str, proofs: Collection[str]) -> tuple[Glance, ...]:
        """The members of an IOMMU group, without what stands on them."""
        members = self._sys / "kernel/iommu_groups" / name / "devices"
        found = ((device_id(members / entry), members / entry) for entry in entries(members))
        glances = (self._glance(device, path, proofs, {}, {}) for device, path in found if device)
        return tuple(filter(None, glances))

    # ---

    def _glance(
        self,
        device: DeviceId,
        path: Path,
        proofs: Collection[str],
        interfaces: Mapping[str, list[str]],
        disks: Mapping[str, list[str]],
    ) -> Glance | None:
        there = entries(path)
        if not there:  # gone meanwhile
            return None
        words = self._database.properties(device)
        pf = path / "physfn"
        try:
            place = str(path.resolve())
            return Glance(
                id=device,
                driver=link_name(path / "driver") if "driver" in there else None,
                modalias=text_of(path / "modalias") if "modalias" in there else None,
                class_code=(text_of(path / "class") or "").removeprefix("0x") or None if "class" in there else None,
                bridge="secondary_bus_number" in there,
                iommu_group=link_name(path / "iommu_group") if "iommu_group" in there else None,
                proofs=tuple((name, entries(path / name)) for name in proofs if name in there),
                pf=device_id(pf) if "physfn" in there else None,
                vfs=sum(map(bool, map(_VIRTUAL_FUNCTION.fullmatch, there))),
                interfaces=tuple(interfaces.get(place, ())),
                disks=tuple(disks.get(place, ())),
                vendor=words["ID_VENDOR_FROM_DATABASE"] or None,
                model=words["ID_MODEL_FROM_DATABASE"] or None,
                class_name=words["ID_PCI_SUBCLASS_FROM_DATABASE"] or words["ID_PCI_CLASS_FROM_DATABASE"] or None,
            )
        except OSError:  # gone meanwhile: attributes of a device under removal answer ENODEV
            return None

    def _endpoints(self, kind: str) -> dict[str, list[str]]:
        """For each device's directory the interfaces (`net`) or disks (`block`) below it; partitions are left out."""
        found = defaultdict(list)
        for name in entries(self._sys / "class" / kind):
            path = self._sys / "class" / kind / name
            if not (path / "partition").exists():
                for above in self._hardware(path):
                    found[above].append(name)
        return found

    def _hardware(self, path: Path) -> Iterator[str]:
        """Directories of the closest devices with a driver_override that an interface or disk stands on."""
        try:
            place = path.resolve()
        except OSError:
            return
        # With multipath an NVMe namespace stands on its subsystem, which has links to its controllers.
        paths = [place.parent / name for name in entries(place.parent) if re.fullmatch(r"nvme[0-9]+", name)]
        links = [path for path in paths if path.is_symlink()]
        for start in [link.resolve() for link in links] or [place]:
            for above in start.parents:
                if (above / "driver_override").exists():
                    yield str(above)
                    break
