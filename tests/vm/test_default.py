# SPDX-License-Identifier: LGPL-2.1-or-later
"""The way back: driver and override exactly as flavourd found them."""

import pytest

from .asking import PCI, ask, override, proof, variant
from .devices import E1000E, E1000E_TWIN, VIRTIO_NET
from .machine import Machine

pytestmark = pytest.mark.vm


def unbind(vm: Machine, address: str) -> None:
    vm.run(f"echo {address} > {PCI}/{address}/driver/unbind")


@pytest.mark.parametrize(("address", "native"), [(E1000E, "e1000e"), (VIRTIO_NET, "virtio-pci")])
def test_default_brings_the_native_driver_back(vm: Machine, address: str, native: str) -> None:
    ask(vm, address, "vfio")
    told = ask(vm, address, "default")
    assert (told.kind, told.driver) == ("switched", native)
    assert vm.driver(address) == native
    assert override(vm, address) is None
    assert proof(vm, address) == []
    assert vm.run("ls /run/flavourd/records").out == ""


def test_default_knows_the_original_after_a_restart_of_the_daemon(vm: Machine) -> None:
    vm.run(f"echo foreign > {PCI}/{E1000E}/driver_override")
    ask(vm, E1000E, "vfio")
    vm.run("systemctl restart flavourd")
    told = ask(vm, E1000E, "default")
    assert (told.kind, told.driver) == ("switched", "e1000e")
    assert vm.driver(E1000E) == "e1000e"
    assert override(vm, E1000E) == "foreign"


def test_default_knows_the_original_after_the_daemon_was_killed(vm: Machine) -> None:
    ask(vm, E1000E, "vfio")
    vm.run("systemctl kill -s KILL flavourd && systemctl stop flavourd && systemctl start flavourd")
    assert ask(vm, E1000E, "default").driver == "e1000e"
    assert vm.driver(E1000E) == "e1000e"


def test_a_device_without_a_driver_is_without_one_again(vm: Machine) -> None:
    unbind(vm, E1000E)
    assert ask(vm, E1000E, "vfio").driver == "vfio-pci"
    told = ask(vm, E1000E, "default")
    assert (told.kind, told.driver) == ("switched", None)
    assert vm.driver(E1000E) is None
    assert override(vm, E1000E) is None
    assert ask(vm, E1000E, "default").kind == "already", "asked twice, nothing happens unasked"
    assert vm.driver(E1000E) is None


def test_a_native_driver_that_comes_during_the_switch_is_the_original(vm: Machine) -> None:
    unbind(vm, E1000E)
    late = f"echo {E1000E} > /sys/bus/pci/drivers/e1000e/bind; exec modprobe --ignore-install vfio_pci"
    vm.write("/etc/modprobe.d/late.conf", f'install vfio_pci /bin/sh -c "{late}"\n')
    assert ask(vm, E1000E, "vfio").driver == "vfio-pci"
    assert ask(vm, E1000E, "default").driver == "e1000e"


def test_an_override_that_names_another_driver_than_the_bound_one_comes_back_too(vm: Machine) -> None:
    vm.run("modprobe pci-stub || test -d /sys/bus/pci/drivers/pci-stub")
    vm.run(f"echo pci-stub > {PCI}/{E1000E}/driver_override")
    ask(vm, E1000E, "vfio")
    ask(vm, E1000E, "default")
    assert vm.driver(E1000E) == "e1000e"
    assert override(vm, E1000E) == "pci-stub"


def test_a_device_on_a_foreign_driver_goes_back_to_it(vm: Machine) -> None:
    vm.run("modprobe pci-stub || test -d /sys/bus/pci/drivers/pci-stub")
    unbind(vm, E1000E)
    vm.run(f"echo pci-stub > {PCI}/{E1000E}/driver_override; echo {E1000E} > /sys/bus/pci/drivers_probe")
    assert vm.driver(E1000E) == "pci-stub"
    assert ask(vm, E1000E, "vfio").driver == "vfio-pci"
    assert ask(vm, E1000E, "default").driver == "pci-stub"
    assert (vm.driver(E1000E), override(vm, E1000E)) == ("pci-stub", "pci-stub")


def test_what_others_brought_into_vfio_goes_back_to_the_driver_that_the_bus_chooses(vm: Machine) -> None:
    vm.run("modprobe vfio-pci")
    unbind(vm, E1000E)
    vm.run(f"echo vfio-pci > {PCI}/{E1000E}/driver_override; echo {E1000E} > /sys/bus/pci/drivers_probe")
    assert vm.driver(E1000E) == "vfio-pci"
    assert ask(vm, E1000E, "default").driver == "e1000e"
    assert (vm.driver(E1000E), override(vm, E1000E)) == ("e1000e", None)


def test_for_what_others_brought_into_vfio_the_native_module_is_loaded_if_it_is_not_there(vm: Machine) -> None:
    vm.run("modprobe vfio-pci && modprobe -r e1000e")
    vm.run(f"echo vfio-pci > {PCI}/{E1000E}/driver_override; echo {E1000E} > /sys/bus/pci/drivers_probe")
    assert vm.driver(E1000E) == "vfio-pci"
    assert ask(vm, E1000E, "default").driver == "e1000e"
    assert vm.driver(E1000E) == "e1000e"


def test_a_device_that_vfio_takes_by_its_id_cannot_go_back_and_that_is_told(vm: Machine) -> None:
    vm.run("modprobe -r e1000e && modprobe vfio-pci ids=8086:10d3 && modprobe e1000e")
    assert vm.driver(E1000E) == "vfio-pci"
    told = ask(vm, E1000E, "default")
    assert (told.kind, told.code, told.driver) == ("undone", "native-refused", "vfio-pci"), told.message
    assert "ids=" in told.message
    assert proof(vm, E1000E)


def test_default_of_a_native_device_touches_nothing(vm: Machine) -> None:
    vm.run(f"echo foreign > {PCI}/{E1000E}/driver_override")
    told = ask(vm, E1000E, "default")
    assert (told.kind, told.driver) == ("already", "e1000e")
    assert override(vm, E1000E) == "foreign"


def test_the_original_module_is_loaded_again_if_it_was_unloaded_meanwhile(vm: Machine) -> None:
    for address in (E1000E, E1000E_TWIN):
        ask(vm, address, "vfio")
    vm.run("modprobe -r e1000e")
    told = ask(vm, E1000E, "default")
    assert told.kind == "switched", told.message
    assert vm.driver(E1000E) == "e1000e"
    assert vm.driver(E1000E_TWIN) == "vfio-pci"


def test_if_the_native_driver_does_not_take_it_back_the_device_stays_in_its_flavour(vm: Machine) -> None:
    for address in (E1000E, E1000E_TWIN):
        ask(vm, address, "vfio")
    vm.run("modprobe -r e1000e")
    vm.write("/etc/modprobe.d/gone.conf", "install e1000e /bin/false\n")
    told = ask(vm, E1000E, "default")
    assert (told.kind, told.code, told.driver) == ("undone", "native-refused", "vfio-pci"), told.message
    assert (vm.driver(E1000E), override(vm, E1000E)) == ("vfio-pci", "vfio-pci")
    vm.run("rm /etc/modprobe.d/gone.conf")
    assert ask(vm, E1000E, "default").driver == "e1000e", "the original is still remembered"


def test_a_record_does_not_hold_for_other_hardware_that_takes_the_address(vm: Machine) -> None:
    address = vm.plug("e1000e", id="first", romfile="")
    vm.wait_for(f"test -e {PCI}/{address}/driver")
    vm.run(f"echo first > {PCI}/{address}/driver_override")
    assert ask(vm, address, "vfio").driver == "vfio-pci"
    vm.unplug("first")
    assert vm.plug("virtio-net-pci", id="second", romfile="", **{"disable-legacy": "on"}) == address
    vm.wait_for(f"test -e {PCI}/{address}/driver")
    assert ask(vm, address, "default").kind == "already"
    assert (vm.driver(address), override(vm, address)) == ("virtio-pci", None)
    assert ask(vm, address, "vfio").driver == "virtio_vfio_pci"
    assert ask(vm, address, "default").driver == "virtio-pci"


def test_who_takes_the_device_over_by_hand_is_not_overruled(vm: Machine) -> None:
    ask(vm, E1000E, "vfio")
    vm.run(f"echo > {PCI}/{E1000E}/driver_override")
    unbind(vm, E1000E)
    vm.run(f"echo {E1000E} > /sys/bus/pci/drivers_probe; echo mine > {PCI}/{E1000E}/driver_override")
    assert ask(vm, E1000E, "default").kind == "already"
    assert (vm.driver(E1000E), override(vm, E1000E)) == ("e1000e", "mine")
    ask(vm, E1000E, "vfio")
    ask(vm, E1000E, "default")
    assert (vm.driver(E1000E), override(vm, E1000E)) == ("e1000e", "mine")


def test_a_variant_that_refused_once_is_tried_anew_after_default(vm: Machine) -> None:
    variant(vm, answer=-5, times=1)
    assert ask(vm, E1000E, "vfio").driver == "vfio-pci"
    assert ask(vm, E1000E, "vfio").kind == "already"
    ask(vm, E1000E, "default")
    assert ask(vm, E1000E, "vfio").driver == "test_vfio_pci"
