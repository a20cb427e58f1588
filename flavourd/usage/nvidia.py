# SPDX-License-Identifier: LGPL-2.1-or-later
"""Nodes of NVIDIA's own driver, which has none in sysfs: nvidia-modprobe makes them."""

from flavourd.usage.procfs import Procfs

DRIVER = "nvidia"
_MAJOR = 195  # NV_MAJOR_DEVICE_NUMBER, open-gpu-kernel-modules: kernel-open/common/inc/nv-linux.h


def node(procfs: Procfs, address: str) -> tuple[str, str] | None:
    """(path, number) of the node of a card by its PCI address; None if that cannot be told."""
    for line in procfs.lines(f"driver/nvidia/gpus/{address}/information") or ():
        name, _, minor = line.partition(":")
        if name.strip() == "Device Minor" and minor.strip().isdecimal():
            return f"/dev/nvidia{minor.strip()}", f"c{_MAJOR}:{minor.strip()}"
    return None
