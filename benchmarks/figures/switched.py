# SPDX-License-Identifier: LGPL-2.1-or-later
"""The devices that are switched to measure how long it takes."""

from collections.abc import Iterable, Mapping

from tests.vm.devices import E1000E, VIRTIO_NET

DEVICES: Mapping[str, tuple[str, str, str]] = {
    "e1000e": (E1000E, "e1000e", "vfio-pci"),
    "virtio-net": (VIRTIO_NET, "virtio-pci", "virtio_vfio_pci"),
}
"""For each name the address, the native driver and that of the flavour: the universal one, and a variant."""


def words(devices: Iterable[str] = DEVICES) -> list[str]:
    """Return the arguments by which a program in the guest is told of them."""
    return [",".join(DEVICES[name]) for name in devices]
