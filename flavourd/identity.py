# SPDX-License-Identifier: LGPL-2.1-or-later
"""Finds out by what a device is known to a policy (flavourd.traits).

Reads `driver_override` and `uevent`, for which older kernels take the device's lock, and so belongs into a worker;
or leaves them out.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from flavourd.device import DeviceId
from flavourd.sysfs import Sysfs, device_id, entries, link_name, text_of
from flavourd.traits import Seen, Trait, Traits
from flavourd.udevdb import UdevDatabase

_ROOT_BUS = re.compile(r"pci([0-9a-f]{4,}:[0-9a-f]{2})")
_ADDRESS = re.compile(r"([0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2})\.([0-7])")
_VIRTUAL_FUNCTION = re.compile(r"virtfn([0-9]+)")
_HEX = re.compile(r"0x([0-9a-f]{1,6})")
_SERIAL = re.compile(r"[0-9a-f]{2}(-[0-9a-f]{2}){7}")


class Identities:
    """For one pass over devices: what belongs to many of them (slots, the VFs of a PF) is read once.

    proofs: see Flavours.proofs. native: instance and native driver of devices that flavourd has switched, of their
    records. wait: whether to read what a driver that sleeps in the kernel may hold up; without it no override is seen,
    and no property of the kernel's own.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        proofs: Collection[str] = (),
        native: Mapping[DeviceId, tuple[int, str | None]] | None = None,
        *,
        wait: bool = True,
    ) -> None:
        self._buses = root / "sys/bus"
        self._sysfs, self._database = Sysfs(root), UdevDatabase(root)
        self._proofs, self._native, self._wait = proofs, native or {}, wait
        self._vfs: dict[DeviceId, dict[str, int]] = {}

    def all(self, buses: Collection[str], needs: Collection[Trait] = ()) -> tuple[Seen, ...]:
        """Every device of these buses, by name. needs: what is to be read although it costs something."""
        names = ((bus, name) for bus in sorted(buses) for name in entries(self._buses / bus / "devices"))
        return tuple(filter(None, (self.seen(DeviceId(bus, name), needs) for bus, name in names)))

    def seen(self, device: DeviceId, needs: Collection[Trait] = ()) -> Seen | None:
        """None if it is not there."""
        instance, place = self._sysfs.instance(device), self._place(device)
        try:
            driver = self._sysfs.driver(device)
            recorded, native = self._native.get(device, (0, None))
            seen = Seen(
                traits=self._traits(device, native if recorded == instance else driver, needs),
                instance=instance,
                driver=driver,
                override=self._sysfs.override(device) if self._wait else None,
                proofs=tuple((name, entries(place / name)) for name in self._proofs),
                bridge=(place / "secondary_bus_number").exists(),
                overridable=(place / "driver_override").exists(),
                sriov=self._sysfs.sriov(device),
            )
        except OSError:  # attributes of a device under removal answer ENODEV
            return None
        # Not of two devices, one of which has taken the other's place meanwhile.
        return seen if instance and self._sysfs.instance(device) == instance else None

    # ---

    def _place(self, device: DeviceId) -> Path:
        return self._buses / device.bus / "devices" / device.name

    def _traits(self, device: DeviceId, driver: str | None, needs: Collection[Trait]) -> Traits:
        place = self._place(device)
        real = os.path.realpath(place)
        pf = device_id(place / "physfn")
        properties = self._properties(device) if {Trait.PROPERTY, Trait.SERIAL} & set(needs) else {}
        return Traits(
            id=device,
            vendor=_hex(place / "vendor", 4),
            device=_hex(place / "device", 4),
            subsystem_vendor=_hex(place / "subsystem_vendor", 4),
            subsystem_device=_hex(place / "subsystem_device", 4),
            class_code=_hex(place / "class", 6),
            modalias=text_of(place / "modalias") or None,
            driver=driver,
            pf=pf,
            vf=self._index(pf, device) if pf else None,
            path=_path(real),
            slot=self._slot(real) if Trait.SLOT in needs else None,
            serial=_serial(place, properties) if Trait.SERIAL in needs else None,
            properties=properties if Trait.PROPERTY in needs else {},
        )

    def _properties(self, device: DeviceId) -> dict[str, str]:
        """The kernel's and those of udev's rules, as `udevadm info` shows them together."""
        lines = (text_of(self._place(device) / "uevent") or "").splitlines() if self._wait else ()
        pairs = (line.partition("=") for line in lines)
        return {key: value for key, _, value in pairs} | self._database.properties(device)

    def _index(self, pf: DeviceId, device: DeviceId) -> int | None:
        if device.name not in self._vfs.get(pf, ()):  # new ones may have come since
            place = self._place(pf)
            links = filter(None, map(_VIRTUAL_FUNCTION.fullmatch, entries(place)))
            self._vfs[pf] = {name: int(link[1]) for link in links if (name := link_name(place / link[0]))}
        return self._vfs[pf].get(device.name)

    def _slot(self, real: str) -> str | None:
        """Of the device itself or of the closest bridge above that has one."""
        for name in reversed(real.split("/")):
            if match := _ADDRESS.fullmatch(name):
                bus = match[1].rpartition(":")[0]  # a slot may stand for all of a bus (drivers/pci/slot.c)
                if slot := self._slots.get(match[1]) or self._slots.get(bus):
                    return slot
        return None

    @cached_property
    def _slots(self) -> dict[str, str]:
        """From an address without its function, or that of a bus, to the slot's name."""
        slots = self._buses / "pci/slots"
        return {(text_of(slots / name / "address") or ""): name for name in entries(slots)}


def _hex(attribute: Path, digits: int) -> str | None:
    match = _HEX.fullmatch(text_of(attribute) or "")
    return match[1].zfill(digits) if match else None


def _serial(place: Path, properties: Mapping[str, str]) -> str | None:
    """The attribute came with Linux 6.18; before it udev/pci-serial reads the number, when a rule asks for it."""
    serial = (text_of(place / "serial_number") or properties.get("FLAVOUR_SERIAL", "")).lower()
    return serial if _SERIAL.fullmatch(serial) else None


def _path(real: str) -> str | None:
    """`…/pci0000:00/0000:00:10.0/0000:01:00.0` is `0000:00/10.0/00.0`; None for what is not below a PCI root bus."""
    return "/".join(reversed(tuple(_steps(real)))) or None


def _steps(real: str) -> Iterator[str]:
    """From the device up to the closest root bus: a VMD has one of its own."""
    steps = []
    for name in reversed(real.split("/")):
        if match := _ADDRESS.fullmatch(name):
            steps.append(f"{match[1].rpartition(':')[2]}.{match[2]}")
        elif steps and (match := _ROOT_BUS.fullmatch(name)):
            yield from steps
            yield match[1]
            return
        else:
            return
