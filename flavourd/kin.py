# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which devices must not be switched at the same time: those of one IOMMU group, a PF and its VFs, and those of a
driver that wants them one by one.

Only links are read, which no driver can hold up: the daemon itself looks here.
"""

import os
from collections.abc import Collection
from pathlib import Path

from flavourd.device import DeviceId
from flavourd.sysfs import device_id, entries, link_name


class Kin:
    def __init__(self, root: Path = Path("/")) -> None:
        self._buses = str(root / "sys/bus")

    def keys(self, device: DeviceId, serial_drivers: Collection[str] = ()) -> frozenset[str]:
        """What a device has in common with others, in words: whoever shares a key takes turns.

        Always its own name; `IOMMU group 9`; `PF pci/0000:65:00.0` for the PF and for each VF of it; `driver ioatdma`.
        """
        place = self._place(device)
        found = {str(device)}
        if group := link_name(f"{place}/iommu_group"):
            found.add(f"IOMMU group {group}")
        if pf := device_id(f"{place}/physfn"):
            found.add(f"PF {pf}")
        elif os.path.exists(f"{place}/sriov_totalvfs"):
            found.add(f"PF {device}")
        if (driver := link_name(f"{place}/driver")) in serial_drivers:
            found.add(f"driver {driver}")
        return frozenset(found)

    def group(self, device: DeviceId) -> tuple[DeviceId, ...]:
        """The endpoints in the device's IOMMU group, by name: bridges stay with the host. Itself, if it has none."""
        members = f"{self._place(device)}/iommu_group/devices"
        found = (
            device_id(f"{members}/{name}")
            for name in entries(members)
            if not os.path.exists(f"{members}/{name}/secondary_bus_number")
        )
        return tuple(sorted(filter(None, found))) or (device,)

    def _place(self, device: DeviceId) -> str:
        return f"{self._buses}/{device.bus}/devices/{device.name}"
