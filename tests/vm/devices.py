# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine's devices: one table that QEMU's command line and the tests both follow.

| address       | device              | native driver | IOMMU group                                   |
|---------------|---------------------|---------------|-----------------------------------------------|
| 0000:01:00.0  | e1000e (8086:10d3)  | e1000e        | its own                                       |
| 0000:02:00.0  | e1000e, a twin      | e1000e        | its own                                       |
| 0000:03:00.0  | virtio-net, modern  | virtio-pci    | its own                                       |
| 0000:04:00.0  | PCIe-to-PCI bridge  | none          | shared with what is behind it                 |
| 0000:05:01.0  | e1000 (8086:100e)   | e1000         | that of 04:00.0                               |
| 0000:05:02.0  | e1000, a twin       | e1000         | that of 04:00.0                               |
| 0000:05:03.0  | free                |               | that of 04:00.0                               |
| 0000:06:00.0  | port `free0`, empty |               | what is plugged here gets its own             |
| ...           | ... `free3`         |               |                                               |
| 0000:00:1x.0  | root ports          | pcieport      | their own                                     |

Each root port is a bridge and so serves the tests of what vfio refuses. The firmware numbers the buses in the order of
the ports.
"""

E1000E = "0000:01:00.0"
E1000E_TWIN = "0000:02:00.0"
VIRTIO_NET = "0000:03:00.0"
PCI_BRIDGE = "0000:04:00.0"
E1000 = "0000:05:01.0"
E1000_TWIN = "0000:05:02.0"
ROOT_PORT = "0000:00:10.0"

FREE_PORTS = {"free0": "0000:06:00.0", "free1": "0000:07:00.0", "free2": "0000:08:00.0", "free3": "0000:09:00.0"}
"""Empty hot-plug ports: QEMU's name of the port, and the address that a device plugged there gets."""

PCI_BUS, THIRD_IN_GROUP = "pci", "0000:05:03.0"
"""QEMU's name of the bus behind the bridge, and the address in its slot 3, which is empty."""

NVME_SUBSYSTEM = "subsystem"


def arguments() -> list[str]:
    """Return QEMU's arguments that make these devices."""
    ports = ["port1", "port2", "port3", "port4", *FREE_PORTS]
    devices = [f"pcie-root-port,id={port},bus=pcie.0,chassis={n},addr={0x10 + n:#x}" for n, port in enumerate(ports)]
    devices[-1] += ",pref64-reserve=8M"  # room for the memory of a display
    devices += [
        "e1000e,bus=port1,romfile=",
        "e1000e,bus=port2,romfile=",
        "virtio-net-pci,bus=port3,romfile=,disable-legacy=on",
        f"pcie-pci-bridge,id={PCI_BUS},bus=port4",
        f"e1000,bus={PCI_BUS},addr=1,romfile=",
        f"e1000,bus={PCI_BUS},addr=2,romfile=",
        # A controller with VFs forbids migration, so it is plugged after the restore; its subsystem cannot be.
        f"nvme-subsys,id={NVME_SUBSYSTEM}",
    ]
    return [word for device in devices for word in ("-device", device)]
