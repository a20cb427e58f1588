# SPDX-License-Identifier: LGPL-2.1-or-later
"""The switched device is really usable: a program drives it through VFIO as QEMU or DPDK would."""

import pytest

from .asking import PCI, ask
from .devices import E1000, E1000_TWIN, E1000E, VIRTIO_NET
from .machine import CommandError, Machine
from .userspace import use

pytestmark = pytest.mark.vm


@pytest.mark.parametrize(("address", "driver"), [(VIRTIO_NET, "virtio_vfio_pci"), (E1000E, "vfio-pci")])
def test_a_program_opens_the_device_and_reads_its_vendor(vm: Machine, address: str, driver: str) -> None:
    assert ask(vm, address, "vfio").driver == driver
    assert f"0x{use(vm, address)}" == vm.run(f"cat {PCI}/{address}/vendor").out.strip()


def test_a_shared_group_opens_when_all_its_devices_are_in_the_flavour_as_was_told(vm: Machine) -> None:
    assert "cannot be opened yet" in ask(vm, E1000, "vfio").message
    with pytest.raises(CommandError, match="not viable"):
        use(vm, E1000)
    assert "cannot be opened yet" not in ask(vm, E1000_TWIN, "vfio").message
    assert use(vm, E1000) == use(vm, E1000_TWIN) == "8086"
