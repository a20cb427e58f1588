# SPDX-License-Identifier: LGPL-2.1-or-later
"""IOMMU groups: whether a group can be given to user space, and who stands in the way.

A group is viable while no member has a driver that does its own DMA
(drivers/iommu/iommu.c:iommu_group_claim_dma_owner()). Binding one member succeeds all the same, and only opening the
group fails: that has to be told.
"""

from collections.abc import Collection, Iterable

from flavourd.device import Device, DeviceId, GroupMember
from flavourd.use import Finding, Guard

# Drivers with `driver_managed_dma` that are no vfio drivers.
_NO_DMA_OF_THEIR_OWN = frozenset({"pci-stub", "pcieport"})


def blockers(device: Device, beside: Collection[DeviceId] = ()) -> tuple[GroupMember, ...]:
    """The other members of the device's group that keep it from being viable; beside: those that are on their way."""
    return tuple(
        member
        for member in device.group_members
        if keeps_closed(member.driver, claimed=member.claimed) and member.id not in beside
    )


def keeps_closed(driver: str | None, *, claimed: bool) -> bool:
    """Whether a device with this driver keeps its group from being opened. claimed: the driver is a flavour's."""
    return driver is not None and not claimed and driver not in _NO_DMA_OF_THEIR_OWN


def viability_note(device: Device, beside: Collection[DeviceId] = ()) -> str | None:
    """What to tell about a device that is bound while its group cannot be opened; None if all is well."""
    if not (names := _names(blockers(device, beside))):
        return None
    return (
        f"IOMMU group {device.iommu_group} cannot be opened yet: it also holds {names}; put them into the flavour too"
    )


def findings(device: Device, beside: Collection[DeviceId] = ()) -> tuple[Finding, ...]:
    """Of guard GROUP, about a device that would be put into a flavour."""
    if not (names := _names(blockers(device, beside))):
        return ()
    sentence = f"IOMMU group {device.iommu_group} could not be opened, for it also holds {names}"
    return (Finding(Guard.GROUP, sentence, "switch the whole group: flavourctl set --group"),)


def _names(members: Iterable[GroupMember]) -> str:
    return ", ".join(f"{member.id} ({member.driver})" for member in members)
