# SPDX-License-Identifier: LGPL-2.1-or-later
"""Devices as values: how they are named and what a snapshot of one holds."""

import re
from dataclasses import dataclass

_PCI_ADDRESS = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])", re.IGNORECASE)

_NAME = re.compile(r"[^/\n\0]{1,200}")  # NAME_MAX, with room for what files of ours add


@dataclass(frozen=True, order=True)
class DeviceId:
    """One device on a bus (or, for what udev reports beside buses, in a class): `pci/0000:65:00.0`."""

    bus: str
    name: str

    def __str__(self) -> str:
        return f"{self.bus}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> "DeviceId":
        """Accept `BUS/NAME` and, as people write PCI addresses, `0000:65:00.0` or `65:00.0`; ValueError otherwise."""
        if match := _PCI_ADDRESS.fullmatch(text.removeprefix("pci/")):
            domain, bus, slot, function = match.groups()
            return cls("pci", f"{domain or '0000'}:{bus}:{slot}.{function}".lower())
        text.encode(errors="surrogateescape")  # a path of the host's, or UnicodeEncodeError, which is a ValueError
        bus, _, name = text.partition("/")
        if not _NAME.fullmatch(bus) or not _NAME.fullmatch(name) or {bus, name} & {".", ".."}:
            raise ValueError(f"not a device name: {text!r}")
        return cls(bus, name)


# An override that no driver has: it keeps a device from its native driver until its flavour's driver takes it.
PARKED = "flavourd-parked"


@dataclass(frozen=True)
class Binding:
    """Which driver holds a device and which it is bound to take; what a switch starts from and an undo returns to.

    driver: name in /sys/bus/BUS/drivers, None if driverless. module: that driver's module, None if built in.
    override: text of driver_override, None if unset.
    """

    driver: str | None = None
    module: str | None = None
    override: str | None = None

    @property
    def parked(self) -> bool:
        """Kept from its native driver, which nobody has seen yet: to go back to this means that the bus chooses."""
        return self.override == PARKED

    def __str__(self) -> str:
        driver = f"driver {self.driver}" if self.driver else "no driver"
        return f"{driver}, override {self.override}" if self.override is not None else driver


@dataclass(frozen=True)
class GroupMember:
    """Another device of the same IOMMU group. claimed: a flavour's proof (`vfio-dev/vfioN`) stands under it."""

    id: DeviceId
    driver: str | None
    claimed: bool


@dataclass(frozen=True)
class Sriov:
    """Of a PF. vfs: how many VFs it has now. autoprobe: whether drivers are probed for new ones. total: how many it can
    have.
    """

    vfs: int = 0
    autoprobe: bool = True
    total: int = 0


@dataclass(frozen=True)
class Device:
    """Snapshot of one device from sysfs.

    instance: differs for every device that ever stood at this address (inode of its directory in sysfs). overridable:
    it has a driver_override attribute. bridge: PCI bridge, which no vfio driver takes. releasing: a driver's remove()
    has not returned yet, though the `driver` link is gone. noiommu: vfio would take it without an IOMMU group.
    proofs: pairs of proof directory (`vfio-dev`) and the names in it (`vfio0`). parent: for what has no
    driver_override (an interface, a disk) the closest device above it that has one. interfaces: network interfaces of
    its own or of its virtio device.
    """

    id: DeviceId
    binding: Binding
    instance: int = 0
    modalias: str | None = None
    overridable: bool = True
    bridge: bool = False
    releasing: bool = False
    noiommu: bool = False
    iommu_group: str | None = None
    group_members: tuple[GroupMember, ...] = ()
    proofs: tuple[tuple[str, tuple[str, ...]], ...] = ()
    parent: DeviceId | None = None
    interfaces: tuple[str, ...] = ()
    sriov: Sriov | None = None

    def proof(self, directory: str) -> tuple[str, ...]:
        return dict(self.proofs).get(directory, ())


@dataclass(frozen=True)
class Glance:
    """What can be seen of a device without waiting for a driver: nothing that takes the device's lock in the kernel.

    class_code: of PCI, as six hexadecimal digits. proofs: as in Device. pf: of an SR-IOV VF. vfs: number of a PF's VFs.
    interfaces, disks: names in /sys/class/net and /sys/class/block of what stands on the device. vendor, model,
    class_name: words of udev's hardware database.
    """

    id: DeviceId
    driver: str | None = None
    modalias: str | None = None
    class_code: str | None = None
    bridge: bool = False
    iommu_group: str | None = None
    proofs: tuple[tuple[str, tuple[str, ...]], ...] = ()
    pf: DeviceId | None = None
    vfs: int = 0
    interfaces: tuple[str, ...] = ()
    disks: tuple[str, ...] = ()
    vendor: str | None = None
    model: str | None = None
    class_name: str | None = None
