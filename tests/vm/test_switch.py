# SPDX-License-Identifier: LGPL-2.1-or-later
"""The way into a flavour, on the real kernel: which driver takes the device, and what is told of those that did not."""

import errno

import pytest

from .asking import PCI, ask, override, probes, proof, variant, vfio_modules
from .devices import E1000, E1000_TWIN, E1000E, E1000E_TWIN, VIRTIO_NET
from .machine import Machine

pytestmark = pytest.mark.vm


def test_the_real_variant_takes_its_device_on_a_host_without_any_vfio_module(vm: Machine) -> None:
    assert vfio_modules(vm) == []
    told = ask(vm, VIRTIO_NET, "vfio")
    assert (told.kind, told.driver, told.candidate) == ("switched", "virtio_vfio_pci", "virtio_vfio_pci")
    assert vm.driver(VIRTIO_NET) == "virtio_vfio_pci"
    assert override(vm, VIRTIO_NET) == "virtio_vfio_pci"
    assert proof(vm, VIRTIO_NET) == ["vfio0"]
    vm.run(f"exec 3<>/dev/vfio/$(basename $(readlink {PCI}/{VIRTIO_NET}/iommu_group))")


def test_without_a_variant_the_universal_driver_takes_it_under_its_own_spelling(vm: Machine) -> None:
    told = ask(vm, E1000E, "vfio")
    assert (told.kind, told.driver, told.candidate) == ("switched", "vfio-pci", "vfio_pci")
    assert vm.driver(E1000E) == "vfio-pci"
    assert override(vm, E1000E) == "vfio-pci"
    assert proof(vm, E1000E)


def test_a_variant_that_accepts_is_preferred_to_the_universal_driver(vm: Machine) -> None:
    variant(vm)
    told = ask(vm, E1000E, "vfio")
    assert (told.kind, told.driver, told.refused) == ("switched", "test_vfio_pci", ())
    assert vm.driver(E1000E) == "test_vfio_pci"
    assert proof(vm, E1000E)
    assert "vfio_pci" not in vfio_modules(vm), "the universal module was not needed"


@pytest.mark.parametrize("number", [errno.ENODEV, errno.EINVAL, errno.EIO, errno.ETIME])
def test_after_a_refusal_the_universal_driver_takes_it_and_the_refusal_is_told(vm: Machine, number: int) -> None:
    variant(vm, answer=-number)
    told = ask(vm, E1000E, "vfio")
    assert (told.kind, told.driver) == ("switched", "vfio-pci")
    assert vm.driver(E1000E) == "vfio-pci"
    assert override(vm, E1000E) == "vfio-pci"
    assert proof(vm, E1000E)
    assert probes(vm) == 1
    (refusal,) = told.refused
    assert refusal.startswith("test_vfio_pci ")
    assert errno.errorcode[number] in refusal
    assert f"test variant refuses: -{number}" in refusal, "the kernel's own line"
    assert refusal in told.message


def test_a_deferred_probe_is_retried(vm: Machine) -> None:
    variant(vm, answer=-517, times=2)
    told = ask(vm, E1000E, "vfio")
    assert (told.kind, told.driver) == ("switched", "test_vfio_pci")
    assert vm.driver(E1000E) == "test_vfio_pci"
    assert probes(vm) == 3


def test_a_probe_that_defers_for_good_counts_as_a_refusal(vm: Machine) -> None:
    variant(vm, answer=-517)
    told = ask(vm, E1000E, "vfio")
    assert (told.kind, told.driver) == ("switched", "vfio-pci")
    assert "EAGAIN" in told.refused[0]
    assert probes(vm) > 3
    assert vm.driver(E1000E) == "vfio-pci"


def test_a_busy_device_is_put_back_and_nobody_else_is_tried(vm: Machine) -> None:
    variant(vm, answer=-errno.EBUSY)
    told = ask(vm, E1000E, "vfio")
    assert (told.kind, told.code, told.driver, told.errno) == ("undone", "busy", "e1000e", errno.EBUSY)
    assert vm.driver(E1000E) == "e1000e"
    assert override(vm, E1000E) is None
    assert "vfio_pci" not in vfio_modules(vm)
    assert vm.run("ls /run/flavourd/records").out == ""


def test_if_nobody_claims_it_driver_and_override_are_as_before(vm: Machine) -> None:
    variant(vm, answer=-errno.EIO)
    vm.write("/etc/modprobe.d/no-universal.conf", "install vfio_pci /bin/false\n")
    told = ask(vm, E1000E, "vfio")
    assert (told.kind, told.code, told.driver) == ("undone", "all-refused", "e1000e")
    assert [refusal.split()[0] for refusal in told.refused] == ["test_vfio_pci", "vfio_pci"]
    assert vm.driver(E1000E) == "e1000e"
    assert override(vm, E1000E) is None
    assert probes(vm) == 1


def test_a_variant_whose_table_does_not_list_the_device_is_never_tried(vm: Machine) -> None:
    variant(vm)
    vm.run("modprobe test_vfio_pci")
    for device in (E1000, VIRTIO_NET):
        told = ask(vm, device, "vfio")
        assert told.kind == "switched"
        assert "test_vfio_pci has a table that does not list this device" in told.skipped
    assert probes(vm) == 0
    assert vm.driver(E1000) == "vfio-pci"
    assert vm.driver(VIRTIO_NET) == "virtio_vfio_pci"


def test_of_two_identical_devices_only_the_named_one_moves(vm: Machine) -> None:
    ask(vm, E1000E_TWIN, "vfio")
    assert vm.driver(E1000E_TWIN) == "vfio-pci"
    assert vm.driver(E1000E) == "e1000e"
    assert override(vm, E1000E) is None
    vm.run(f"echo {E1000E} > /sys/bus/pci/drivers/e1000e/unbind; echo {E1000E} > /sys/bus/pci/drivers_probe")
    assert vm.driver(E1000E) == "e1000e", "no new_id was left behind"


def test_a_group_that_cannot_be_opened_yet_is_told_with_who_stands_in_the_way(vm: Machine) -> None:
    told = ask(vm, E1000, "vfio")
    assert told.kind == "switched"
    assert f"pci/{E1000_TWIN} (e1000)" in told.message
    told = ask(vm, E1000_TWIN, "vfio")
    assert "cannot be opened" not in told.message


def test_a_device_in_the_flavour_is_left_alone(vm: Machine) -> None:
    ask(vm, E1000E, "vfio")
    before = proof(vm, E1000E)
    binds = vm.run("dmesg | grep -c vfio", check=False).out
    told = ask(vm, E1000E, "vfio")
    assert (told.kind, told.driver) == ("already", "vfio-pci")
    assert proof(vm, E1000E) == before
    assert vm.run("dmesg | grep -c vfio", check=False).out == binds


def test_a_pf_with_vfs_stays_with_its_driver_while_its_vfs_can_go(vm: Machine) -> None:
    pf = vm.plug_nvme(vfs=2)
    told = ask(vm, pf, "vfio", timeout=120)
    assert (told.kind, told.code, told.guards) == ("refused", "in-use", ("vfs",)), told.message
    assert vm.driver(pf) == "nvme"
    assert override(vm, pf) is None
    vfs = vm.virtual_functions(pf)
    assert len(vfs) == 2
    for vf in vfs:
        assert ask(vm, vf, "vfio", timeout=120).driver == "vfio-pci"


def test_a_softdep_of_the_universal_module_is_tried_only_if_it_has_no_table(vm: Machine) -> None:
    vm.write("/etc/modprobe.d/order.conf", "softdep vfio_pci pre: e1000 virtio_vfio_pci\n")
    told = ask(vm, E1000E, "vfio")
    assert (told.driver, told.refused) == ("vfio-pci", ()), (
        "a native driver and a variant for other hardware are no candidates"
    )


def test_a_softdep_without_a_table_that_has_no_driver_is_refused_and_the_next_is_tried(vm: Machine) -> None:
    vm.write("/etc/modprobe.d/order.conf", "softdep vfio_pci pre: dummy\n")
    told = ask(vm, E1000E, "vfio")
    assert told.driver == "vfio-pci"
    assert told.refused == ("dummy has no driver for bus pci",)
