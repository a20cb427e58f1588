# SPDX-License-Identifier: LGPL-2.1-or-later
"""Drive a device (its PCI address) through VFIO as QEMU or DPDK would: print its vendor id as read there. With a second
word, `hold`, keep it open.
"""

import fcntl
import os
import signal
import struct
import sys
from pathlib import Path

# include/uapi/linux/vfio.h: group into container, type 1 IOMMU, device from group, PCI configuration space as region 7.
API_VERSION, CHECK_EXTENSION, SET_IOMMU, GROUP_STATUS, SET_CONTAINER, DEVICE_FD, REGION_INFO = (
    0x3B64 + number for number in (0, 1, 2, 3, 4, 6, 8)
)


def main() -> None:
    address = sys.argv[1]
    number = Path(f"/sys/bus/pci/devices/{address}/iommu_group").readlink().name
    container = os.open("/dev/vfio/vfio", os.O_RDWR)
    assert fcntl.ioctl(container, API_VERSION) == 0
    assert fcntl.ioctl(container, CHECK_EXTENSION, 1) == 1
    group = os.open(f"/dev/vfio/{number}", os.O_RDWR)
    _, flags = struct.unpack("II", fcntl.ioctl(group, GROUP_STATUS, struct.pack("II", 8, 0)))
    if not flags & 1:
        sys.exit("the group is not viable")
    fcntl.ioctl(group, SET_CONTAINER, struct.pack("i", container))
    fcntl.ioctl(container, SET_IOMMU, 1)
    device = fcntl.ioctl(group, DEVICE_FD, bytearray(address.encode() + b"\0"))  # mutable: the int comes back
    info = fcntl.ioctl(device, REGION_INFO, struct.pack("IIIIQQ", 32, 0, 7, 0, 0, 0))
    *_, offset = struct.unpack("IIIIQQ", info)
    (vendor,) = struct.unpack("<H", os.pread(device, 2, offset))
    print(f"{vendor:04x}", flush=True)
    if "hold" in sys.argv:
        signal.pause()


if __name__ == "__main__":
    main()
