# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which devices must not be switched at the same time: those of one IOMMU group, a PF and each of its VFs, and those
of a driver that wants them one by one.

Only links are read, which no driver can hold up: the daemon itself looks here.
"""

import os
from collections.abc import Collection
from pathlib import Path

from flavourd.device import DeviceId
from flavourd.keys import Keys
from flavourd.sysfs import device_id, entries, link_name


class Kin:
    def __init__(self, root: Path = Path("/")) -> None:
        self._buses = str(root / "sys/bus")

    def keys(self, device: DeviceId, serial_drivers: Collection[str] = ()) -> Keys:
        """What a device has in common with others, in words.

        Alone: always its own name; `IOMMU group 9`; `PF pci/0000:65:00.0` for that PF, whose switch may remove the
        VFs; `driver ioatdma`. Shared: the PF, for each VF of it.
        """
        place = self._place(device)
        alone, shared = {str(device)}, set()
        if group := link_name(f"{place}/iommu_group"):
            alone.add(f"IOMMU group {group}")
        if pf := device_id(f"{place}/physfn"):
            shared.add(f"PF {pf}")
        elif os.path.exists(f"{place}/sriov_totalvfs"):
            alone.add(f"PF {device}")
        if (driver := link_name(f"{place}/driver")) in serial_drivers:
            alone.add(f"driver {driver}")
        return Keys(frozenset(alone), frozenset(shared))

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
