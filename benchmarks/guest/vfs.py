# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make VFs of an NVMe controller that its driver takes.

A VF is a secondary controller, which is offline until the primary one has given it queues and interrupts and put it
online: by the admin command Virtualization Management (NVM Express Base Specification 2.0, 5.32).
"""

import fcntl
import os
import struct
from pathlib import Path

from .device import Device

SYSFS = Path("/sys/bus/pci")
# linux/nvme_ioctl.h: struct nvme_passthru_cmd, and _IOWR('N', 0x41, of that size).
_COMMAND = struct.Struct("<BBHIIIQQIIIIIIIIII")
_NVME_IOCTL_ADMIN_CMD = 0xC0004E41 | _COMMAND.size << 16
_VIRTUALIZATION_MANAGEMENT = 0x1C
_ASSIGN, _ONLINE = 8, 9
_QUEUES, _INTERRUPTS = 0, 1
# The admin queue and one more.
_QUEUES_EACH, _INTERRUPTS_EACH = 2, 1


def make(pf: str, count: int) -> list[Device]:
    """Make so many, and give each to nvme; RuntimeError if it does not take one."""
    place = SYSFS / "devices" / pf
    # While they are offline nvme would wait for each in vain.
    (place / "sriov_drivers_autoprobe").write_text("0")
    (place / "sriov_numvfs").write_text(str(count))
    _put_online(place, count)
    (place / "sriov_drivers_autoprobe").write_text("1")
    devices = [Device((place / f"virtfn{number}").readlink().name, "nvme", "vfio-pci") for number in range(count)]
    for device in devices:
        (SYSFS / "drivers_probe").write_text(device.address)
        if device.driver != device.native:
            raise RuntimeError(f"{device.address} has the driver {device.driver}")
    return devices


def _put_online(pf: Path, count: int) -> None:
    (controller,) = (pf / "nvme").iterdir()
    # QEMU numbers the secondary controllers from one after the primary.
    first = int((controller / "cntlid").read_text()) + 1
    file = os.open(f"/dev/{controller.name}", os.O_RDWR)
    try:
        for number in range(first, first + count):
            _manage(file, number, _ASSIGN, _QUEUES, _QUEUES_EACH)
            _manage(file, number, _ASSIGN, _INTERRUPTS, _INTERRUPTS_EACH)
            _manage(file, number, _ONLINE)
    finally:
        os.close(file)


def _manage(file: int, controller: int, action: int, resource: int = 0, number: int = 0) -> None:
    # Words 10 and 11 of the command stand after opcode, flags, namespace, two reserved, two addresses, two lengths.
    words = (controller << 16 | resource << 8 | action, number)
    command = bytearray(_COMMAND.pack(_VIRTUALIZATION_MANAGEMENT, *(0,) * 9, *words, *(0,) * 6))
    if status := fcntl.ioctl(file, _NVME_IOCTL_ADMIN_CMD, command):
        raise RuntimeError(f"controller {controller}: action {action} ended with NVMe status {status:#x}")
