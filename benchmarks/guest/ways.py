# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ways to switch a device to vfio and back, each timed from the first write, call or exec to its return."""

import os
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from .asking import ask
from .device import Device

_FLOOR = "/opt/floor"
_NETLINK_KOBJECT_UEVENT = 15
_KERNELS = 1  # the multicast group; udev's is 2
_PATIENCE = 300
_VIRSH = ("virsh", "-q", "-c", "qemu:///system")


@dataclass(frozen=True)
class Took:
    """seconds, and what was said meanwhile."""

    seconds: float
    said: str = ""


def _nothing(device: Device) -> None:
    pass


@dataclass(frozen=True)
class Way:
    """switch(device, there) goes there or back. ready, done: what is to be done before and after, which is not timed.

    universal: it knows of no variants and takes vfio-pci for every device.
    """

    switch: Callable[[Device, bool], Took]
    ready: Callable[[Device], None] = _nothing
    done: Callable[[Device], None] = _nothing
    universal: bool = False

    def goal(self, device: Device) -> str:
        return "vfio-pci" if self.universal else device.flavoured


def timed(*words: str) -> Took:
    """Run a program. What it says with an error is for whoever looks at the device afterwards."""
    began = time.monotonic()
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return Took(time.monotonic() - began, f"rc {done.returncode} {done.stdout}{done.stderr}")


def floor(device: Device, there: bool) -> Took:
    words = ("there", device.address, device.flavoured) if there else ("back", device.address, device.native)
    done = subprocess.run([_FLOOR, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return Took(float(done.stdout))


def _attribute(folder: str) -> Callable[[Device, bool], Took]:
    def switch(device: Device, there: bool) -> Took:
        word = _flavour(there).encode()
        began = time.monotonic()
        file = os.open(f"{folder}/{device.address}/driver_flavour", os.O_WRONLY)
        try:
            os.write(file, word)
        finally:
            os.close(file)
        return Took(time.monotonic() - began)

    return switch


def varlink(device: Device, there: bool) -> Took:
    began = time.monotonic()
    reply = ask("Set", devices=[device.address], flavour=_flavour(there))
    return Took(time.monotonic() - began, str(reply))


def _uevent(device: Device, there: bool) -> Took:
    """Until the kernel tells that a driver has been bound: the writer himself is told nothing."""
    driver = device.flavoured if there else device.native
    wanted = {"ACTION=bind", f"DRIVER={driver}", f"PCI_SLOT_NAME={device.address}"}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_KOBJECT_UEVENT) as events:
        events.settimeout(_PATIENCE)
        events.bind((0, _KERNELS))
        began = time.monotonic()
        (device.sysfs / "uevent").write_text(f"change {uuid4()} FLAVOUR={_flavour(there)}")
        while not wanted <= set(events.recv(1 << 13).decode(errors="replace").split("\0")):
            pass
        return Took(time.monotonic() - began)


def _answered(device: Device) -> None:
    """The bind event comes before flavourd has looked at the result; whoever asks for the same waits for his turn."""
    ask("Set", devices=[device.address], flavour=_flavour(device.driver != device.native))


def _flavourctl(device: Device, there: bool) -> Took:
    return timed("flavourctl", *(("set", device.address, "vfio") if there else ("reset", device.address)))


def _driverctl(*options: str) -> Callable[[Device, bool], Took]:
    def switch(device: Device, there: bool) -> Took:
        words = ("set-override", device.address, device.flavoured) if there else ("unset-override", device.address)
        return timed("driverctl", *options, *words)

    return switch


def _no_new_id(device: Device) -> None:
    """For the universal driver driverctl writes its new_id, too, and would leave that behind for all such devices."""
    if device.driver == device.native and device.flavoured == "vfio-pci":
        ids = " ".join((device.sysfs / name).read_text().strip() for name in ("vendor", "device"))
        Path("/sys/bus/pci/drivers/vfio-pci/remove_id").write_text(ids)


def _virsh(device: Device, there: bool) -> Took:
    return timed(*_VIRSH, "nodedev-detach" if there else "nodedev-reattach", _libvirts_name(device))


def _libvirtd_runs(device: Device) -> None:
    subprocess.run(["systemctl", "start", "libvirtd"], check=True)
    _signal_libvirtd("SIGCONT")
    # Its answer comes after what it has to catch up with.
    subprocess.run([*_VIRSH, "nodedev-info", _libvirts_name(device)], check=True, stdout=subprocess.DEVNULL)


def _libvirtd_rests(device: Device) -> None:
    """It hears each change of a driver, and would work beside the others while they are measured."""
    _signal_libvirtd("SIGSTOP")


def _signal_libvirtd(signal: str) -> None:
    subprocess.run(["systemctl", "kill", "--kill-whom=main", f"--signal={signal}", "libvirtd"], check=True)


def _libvirts_name(device: Device) -> str:
    return f"pci_{device.address}".translate(str.maketrans(":.", "__"))


def _dpdk(device: Device, there: bool) -> Took:
    return timed("dpdk-devbind.py", "-b", "vfio-pci" if there else device.native, device.address)


def _flavour(there: bool) -> str:
    return "vfio" if there else "default"


WAYS = {
    "floor": Way(floor),
    "fuse": Way(_attribute("/run/flavourd/bus/pci/devices")),
    "kernel": Way(_attribute("/sys/bus/pci/devices")),
    "uevent": Way(_uevent, done=_answered),
    "varlink": Way(varlink),
    "flavourctl": Way(_flavourctl),
    "driverctl": Way(_driverctl(), done=_no_new_id),
    "driverctl-nosave": Way(_driverctl("--nosave"), done=_no_new_id),
    "virsh": Way(_virsh, _libvirtd_runs, _libvirtd_rests),
    "dpdk-devbind": Way(_dpdk, universal=True),
}
