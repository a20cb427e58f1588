# SPDX-License-Identifier: LGPL-2.1-or-later
"""The only reader of devices in sysfs and the only writer of their bindings.

Reads of some attributes and every write take the device's lock in the kernel and may sleep for as long as a driver's
probe() or remove() does, beyond the reach of signals. Therefore the daemon itself calls only `exists` and `instance`;
all the rest belongs to its workers.
"""

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from flavourd.device import Binding, Device, DeviceId, GroupMember, Sriov
from flavourd.errors import Code, FlavourError

# How the kernel prints an override that is not set (drivers/base: sysfs_emit("%s\n", NULL)); AP queues print nothing.
_UNSET = ("", "(null)")
# A write of zero bytes does nothing; the kernel cuts the text at the newline and finds it empty
# (driver_set_override()).
_CLEAR = "\n"
_VIRTFN = re.compile(r"virtfn([0-9]+)")


# An attribute is shown in one piece of a page at most (fs/sysfs/file.c:sysfs_kf_seq_show()).
_PAGE = 1 << 16


class Sysfs:
    """Paths are texts here: a list looks at every device, and pathlib would double what a look costs."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._sys = str(root / "sys")

    # --- reading

    def device(self, device: DeviceId, proofs: Collection[str]) -> Device:
        """Snapshot of `device` with the entries of the `proofs` directories; FlavourError(NO_DEVICE) if it is not
        there.
        """
        path = self._path(device)
        binding = _binding(path)
        overridable = os.path.exists(f"{path}/driver_override")
        named_in_uevent = None if binding.driver else _uevent_driver(path)
        group = link_name(f"{path}/iommu_group")
        return Device(
            id=device,
            binding=binding,
            instance=os.stat(path).st_ino,
            modalias=text_of(f"{path}/modalias"),
            overridable=overridable,
            # drivers/pci/pci-sysfs.c shows this attribute for header types 1 (bridge) and 2 (CardBus) only.
            bridge=os.path.exists(f"{path}/secondary_bus_number"),
            # device_release_driver() drops the link first and the name in `uevent` last; binding sets the name first.
            releasing=named_in_uevent is not None and link_name(f"{path}/driver") is None,
            noiommu=text_of(f"{self._sys}/module/vfio/parameters/enable_unsafe_noiommu_mode") in ("Y", "1"),
            iommu_group=group,
            group_members=tuple(self._group_members(path, proofs)) if group else (),
            proofs=tuple((name, entries(f"{path}/{name}")) for name in proofs),
            parent=None if overridable else _overridable_above(path),
            interfaces=_interfaces(path),
            sriov=_sriov(path),
        )

    def exists(self, device: DeviceId) -> bool:
        return any(map(os.path.exists, self._places(device)))

    def instance(self, device: DeviceId) -> int:
        """See Device.instance; 0 if the device is not there."""
        try:
            return os.stat(self._bus_path(device)).st_ino
        except OSError:
            return 0

    def binding(self, device: DeviceId) -> Binding:
        return _binding(self._bus_path(device))

    def driver(self, device: DeviceId) -> str | None:
        return link_name(f"{self._bus_path(device)}/driver")

    def override(self, device: DeviceId) -> str | None:
        return _override(self._bus_path(device))

    def proof(self, device: DeviceId, directory: str) -> tuple[str, ...]:
        return entries(f"{self._bus_path(device)}/{directory}")

    def sriov(self, device: DeviceId) -> Sriov | None:
        return _sriov(self._bus_path(device))

    def vfs(self, device: DeviceId) -> tuple[DeviceId, ...]:
        """Of a PF, in the order of their indexes."""
        path = self._bus_path(device)
        found = sorted((int(match[1]), match[0]) for name in entries(path) if (match := _VIRTFN.fullmatch(name)))
        return tuple(DeviceId(device.bus, name) for _, link in found if (name := link_name(f"{path}/{link}")))

    def module_drivers(self, module: str, bus: str) -> tuple[str, ...]:
        """Drivers that a loaded module has registered on a bus; the module's name alone does not tell them (vfio_pci,
        vfio-pci).
        """
        links = entries(f"{self._module(module)}/drivers")
        found = tuple(link.partition(":")[2] for link in links if link.startswith(f"{bus}:"))
        # Before 6.12 a built-in module may have no such links: then only the usual two spellings are left.
        return found or tuple(
            name for name in dict.fromkeys((module, module.replace("_", "-"))) if self.driver_exists(bus, name)
        )

    def module_loaded(self, module: str) -> bool:
        return os.path.isdir(self._module(module))

    def driver_exists(self, bus: str, driver: str) -> bool:
        return os.path.isdir(self._driver(bus, driver))

    # --- writing: each raises OSError with the errno of the kernel

    def write_override(self, device: DeviceId, driver: str | None) -> None:
        """Setting an override neither unbinds nor probes; `None` clears it."""
        _write(f"{self._bus_path(device)}/driver_override", driver or _CLEAR)

    def unbind(self, device: DeviceId, driver: str) -> None:
        """Returns when the driver's remove() has; ENODEV if the device is not bound to `driver`."""
        _write(f"{self._driver(device.bus, driver)}/unbind", device.name)

    def bind(self, device: DeviceId, driver: str) -> None:
        """The only verb that gives back probe's own errno. EAGAIN: probe is deferred; ENODEV: or nothing matched."""
        _write(f"{self._driver(device.bus, driver)}/bind", device.name)

    def probe(self, device: DeviceId) -> None:
        """Let the bus find a driver as it would for a new device. Success says nothing: read the `driver` link
        afterwards.
        """
        _write(f"{self._sys}/bus/{device.bus}/drivers_probe", device.name)

    def enable_vfs(self, device: DeviceId, sriov: Sriov) -> None:
        """Make a PF's VFs, or remove them all (`vfs` 0): the kernel refuses to go from one number to another at once.

        Removing returns when the drivers of all VFs have let go.
        """
        self.write_autoprobe(device, sriov.autoprobe)
        _write(f"{self._bus_path(device)}/sriov_numvfs", str(sriov.vfs))

    def write_autoprobe(self, device: DeviceId, autoprobe: bool) -> None:
        """Whether drivers without an override are probed for the VFs of this PF (pci_device_can_probe())."""
        _write(f"{self._bus_path(device)}/sriov_drivers_autoprobe", str(int(autoprobe)))

    # ---

    def _bus_path(self, device: DeviceId) -> str:
        return f"{self._sys}/bus/{device.bus}/devices/{device.name}"

    def _driver(self, bus: str, driver: str) -> str:
        return f"{self._sys}/bus/{bus}/drivers/{driver}"

    def _module(self, module: str) -> str:
        return f"{self._sys}/module/{module.replace('-', '_')}"

    def _places(self, device: DeviceId) -> tuple[str, str]:
        return self._bus_path(device), f"{self._sys}/class/{device.bus}/{device.name}"

    def _path(self, device: DeviceId) -> str:
        for path in self._places(device):
            if os.path.exists(path):
                return path
        raise FlavourError(
            Code.NO_DEVICE, f"there is no device {device}", "it may have been unplugged; see /sys/bus/*/devices"
        )

    def _group_members(self, path: str, proofs: Collection[str]) -> Iterable[GroupMember]:
        own = os.stat(path).st_ino
        for name in entries(f"{path}/iommu_group/devices"):
            member = f"{path}/iommu_group/devices/{name}"
            try:
                same = os.stat(member).st_ino == own
            except FileNotFoundError:  # just taken out
                continue
            if not same and (id_ := device_id(member)):
                claimed = any(entries(f"{member}/{proof}") for proof in proofs)
                yield GroupMember(id_, link_name(f"{member}/driver"), claimed)


def _binding(path: str) -> Binding:
    driver, module = link_name(f"{path}/driver"), link_name(f"{path}/driver/module")
    return Binding(driver, module, _override(path))


def _override(path: str) -> str | None:
    override = text_of(f"{path}/driver_override")
    return None if override in _UNSET else override


def text_of(path: Path | str) -> str | None:
    """Content of an attribute without its newline; None if it is absent."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.read(fd, _PAGE).decode(errors="surrogateescape").rstrip("\n")
    finally:
        os.close(fd)


def entries(directory: Path | str) -> tuple[str, ...]:
    try:
        return tuple(sorted(os.listdir(directory)))
    except (FileNotFoundError, NotADirectoryError):
        return ()


def link_name(link: Path | str) -> str | None:
    try:
        return os.readlink(link).rpartition("/")[2]
    except (FileNotFoundError, NotADirectoryError):
        return None


def device_id(path: Path | str) -> DeviceId | None:
    bus = link_name(f"{path}/subsystem")
    return DeviceId(bus, os.path.realpath(path).rpartition("/")[2]) if bus else None


def _interfaces(path: str) -> tuple[str, ...]:
    below = ["", *(f"{name}/" for name in entries(path) if name.startswith("virtio"))]
    return tuple(name for place in below for name in entries(f"{path}/{place}net"))


def _sriov(path: str) -> Sriov | None:
    """Counted by links: reading `sriov_numvfs` would wait for whoever makes or removes VFs."""
    total = text_of(f"{path}/sriov_totalvfs")
    if total is None:
        return None
    vfs = sum(_VIRTFN.fullmatch(name) is not None for name in entries(path))
    return Sriov(vfs, text_of(f"{path}/sriov_drivers_autoprobe") != "0", int(total) if total.isdecimal() else 0)


def _overridable_above(path: str) -> DeviceId | None:
    for above in Path(path).resolve().parents:
        if os.path.exists(above / "driver_override"):
            return device_id(above)
    return None


def _uevent_driver(path: str) -> str | None:
    for line in (text_of(f"{path}/uevent") or "").splitlines():
        if line.startswith("DRIVER="):
            return line.removeprefix("DRIVER=")
    return None


def _write(path: str, text: str) -> None:
    # One write(2) of the whole text: sysfs takes every write as a new value.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode(errors="surrogateescape"))
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)
