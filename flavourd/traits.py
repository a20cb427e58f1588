# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a device is known by when a policy looks for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from flavourd.device import DeviceId, Sriov


class Trait(StrEnum):
    """Those that cost something to find out, so that they are read only if a rule asks for them."""

    SLOT = "slot"
    SERIAL = "serial"
    PROPERTY = "property"


@dataclass(frozen=True)
class Traits:
    """vendor, device, subsystem_vendor, subsystem_device: four lower-case hex digits, of PCI. class_code: six of them.

    driver: the native one: what held the device before flavourd switched it, if it did. pf, vf: of a VF its PF and its
    index there. path: `0000:00/10.0/00.0`, the root bus, then slot and function of each bridge and of the device.
    slot: name in /sys/bus/pci/slots. serial: `00-80-ee-00-00-00-41-80`. properties: of udev's database.
    """

    id: DeviceId
    vendor: str | None = None
    device: str | None = None
    subsystem_vendor: str | None = None
    subsystem_device: str | None = None
    class_code: str | None = None
    modalias: str | None = None
    driver: str | None = None
    pf: DeviceId | None = None
    vf: int | None = None
    path: str | None = None
    slot: str | None = None
    serial: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """A device as the policy looks at it.

    instance, proofs, bridge, overridable, sriov: as in Device. driver, override: as they are now, while traits.driver
    is the native one.
    """

    traits: Traits
    instance: int = 0
    driver: str | None = None
    override: str | None = None
    proofs: tuple[tuple[str, tuple[str, ...]], ...] = ()
    bridge: bool = False
    overridable: bool = True
    sriov: Sriov | None = None

    @property
    def id(self) -> DeviceId:
        return self.traits.id
