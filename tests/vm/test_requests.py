# SPDX-License-Identifier: LGPL-2.1-or-later
"""All ways to ask, and what bad requests get: a clear error, the device as it was, the daemon alive."""

import pytest

from .asking import PCI, alive, ask, inject, outcomes, override, vfio_modules
from .devices import E1000E, E1000E_TWIN, PCI_BRIDGE, ROOT_PORT, VIRTIO_NET
from .machine import CommandError, Machine

pytestmark = pytest.mark.vm

ALL = "SYSLOG_IDENTIFIER=flavourd"


def modalias(vm: Machine, address: str) -> str:
    return vm.run(f"cat {PCI}/{address}/modalias").out.strip()


# --- the ways to ask


@pytest.mark.parametrize("key", ["MODALIAS", "FLAVOUR_MODALIAS"])
def test_a_modalias_with_the_flavours_prefix_asks_for_the_flavour(vm: Machine, key: str) -> None:
    inject(vm, VIRTIO_NET, **{key: "vfio_" + modalias(vm, VIRTIO_NET)})
    (told,) = outcomes(vm, ALL)
    assert (told.kind, told.driver, told.origin, told.flavour) == ("switched", "virtio_vfio_pci", "modalias", "vfio")
    assert vm.driver(VIRTIO_NET) == "virtio_vfio_pci"


def test_the_attributes_event_asks_for_the_flavour(vm: Machine) -> None:
    inject(vm, E1000E, DRIVER_FLAVOUR="vfio", DRIVER_FLAVOUR_SEQ="1")
    (told,) = outcomes(vm, ALL)
    assert (told.kind, told.driver, told.origin) == ("switched", "vfio-pci", "attribute")


def test_an_admins_own_rule_asks_for_hot_plugged_devices(vm: Machine) -> None:
    vm.write(
        "/etc/udev/rules.d/80-local.rules",
        'ACTION=="add", SUBSYSTEM=="pci", ATTR{vendor}=="0x8086", ATTR{device}=="0x10d3", ENV{FLAVOUR}="vfio"\n',
    )
    vm.run("udevadm control --reload")
    address = vm.plug("e1000e", romfile="", id="late")
    (told,) = outcomes(vm, ALL)
    assert (told.kind, told.driver, told.origin) == ("switched", "vfio-pci", "rule")
    assert vm.driver(address) == "vfio-pci"
    assert vm.driver(E1000E) == "e1000e"
    assert ask(vm, address, "default").driver == "e1000e", "the native driver that had just arrived is the original"
    vm.run("udevadm settle")
    assert len(outcomes(vm, ALL)) == 2, "the events of the switch itself ask for nothing"


def test_other_events_of_the_device_ask_for_nothing(vm: Machine) -> None:
    ask(vm, E1000E, "vfio")
    vm.run(f"for i in 1 2 3; do echo change > {PCI}/{E1000E}/uevent; echo add > {PCI}/{E1000E}/uevent; done")
    ask(vm, E1000E_TWIN, "vfio")
    assert len(outcomes(vm, ALL)) == 2


# --- bad requests


@pytest.mark.parametrize("word", ["bogus", "VFIO", "0", "x" * 400])
def test_an_unknown_flavour_is_refused(vm: Machine, word: str) -> None:
    told = ask(vm, E1000E, word)
    assert (told.kind, told.code) == ("refused", "unknown-flavour")
    assert "known flavours: default, vfio" in told.message
    assert len(told.message) < 300, "what strangers send does not fill the message"
    assert vm.driver(E1000E) == "e1000e"
    assert alive(vm)


def test_a_word_that_is_too_long_for_udev_is_refused(vm: Machine) -> None:
    ask(vm, E1000E, "vfio")
    # 512 is the first that udev does not take; whatever an admin's own rule wants is not meant by it.
    vm.write("/etc/udev/rules.d/80-local.rules", f'KERNEL=="{E1000E}", ENV{{FLAVOUR}}="default"\n')
    vm.run("udevadm control --reload")
    for word in ("x" * 512, "x" * 600):
        told = ask(vm, E1000E, word)
        assert (told.kind, told.code) == ("refused", "empty-flavour")
    assert ask(vm, E1000E, "x" * 511).code == "unknown-flavour"
    assert vm.driver(E1000E) == "vfio-pci"


@pytest.mark.parametrize("word", ["", "a-b", "vfio "])
def test_the_kernel_itself_refuses_words_that_no_uevent_can_carry(vm: Machine, word: str) -> None:
    with pytest.raises(CommandError, match="I/O error"):
        ask(vm, E1000E, word)
    assert vm.run(f"journalctl -q {ALL} -o cat").out == ""


def test_an_empty_word_from_the_attribute_is_refused(vm: Machine) -> None:
    inject(vm, E1000E, DRIVER_FLAVOUR="", DRIVER_FLAVOUR_SEQ="7")
    (told,) = outcomes(vm, ALL)
    assert (told.kind, told.code) == ("refused", "empty-flavour")
    assert vm.driver(E1000E) == "e1000e"


def test_words_with_any_characters_are_refused_and_survived(vm: Machine) -> None:
    for number, word in enumerate(["../../etc", "v\tf", "ü€😀", "%s%n", "$(reboot)"]):
        inject(vm, E1000E, DRIVER_FLAVOUR=word, DRIVER_FLAVOUR_SEQ=str(number))
        told = outcomes(vm, ALL, count=number + 1)[-1]
        assert (told.kind, told.code) == ("refused", "unknown-flavour"), word
    inject(vm, E1000E, DRIVER_FLAVOUR="\udcff\udcfe", DRIVER_FLAVOUR_SEQ="99")  # no UTF-8: udev drops such keys
    assert vm.driver(E1000E) == "e1000e"
    assert ask(vm, E1000E, "vfio").kind == "switched"


def test_a_modalias_of_other_hardware_is_refused(vm: Machine) -> None:
    inject(vm, E1000E, FLAVOUR_MODALIAS="vfio_" + modalias(vm, VIRTIO_NET))
    (told,) = outcomes(vm, ALL)
    assert (told.kind, told.code) == ("refused", "foreign-modalias")
    assert vm.driver(E1000E) == "e1000e"
    assert vfio_modules(vm) == []


def test_a_modalias_with_a_prefix_that_no_flavour_has_is_refused(vm: Machine) -> None:
    inject(vm, E1000E, FLAVOUR_MODALIAS="ccprepare_" + modalias(vm, E1000E))
    (told,) = outcomes(vm, ALL)
    assert (told.kind, told.code) == ("refused", "unknown-flavour")
    assert "vfio_pci" in told.message


def test_a_device_that_vanished_is_told(vm: Machine) -> None:
    address = vm.plug("e1000e", romfile="", id="late")
    path = vm.run(f"readlink -f {PCI}/{address}").out.strip()
    vm.run("systemctl stop flavourd")
    vm.run(f"echo 'change {'0' * 8}-0000-4000-8000-{'0' * 12} FLAVOUR=vfio' > {path}/uevent; udevadm settle")
    # udev forgets a removed device, so the daemon is halted while the request is on its way to it.
    vm.run("systemctl start flavourd")
    outcomes(vm, ALL)
    vm.unplug("late")
    assert vm.plug("e1000e", romfile="", id="again") == address
    vm.run("systemctl kill -s STOP flavourd")
    vm.run(f"echo 'change {'1' * 8}-0000-4000-8000-{'0' * 12} FLAVOUR=vfio' > {path}/uevent; udevadm settle")
    vm.unplug("again")
    vm.run("udevadm settle; systemctl kill -s CONT flavourd")
    told = outcomes(vm, ALL, count=2)[-1]
    assert (told.kind, told.code) == ("refused", "no-device")
    assert alive(vm)


def test_a_word_ends_at_its_newline_as_in_sysfs(vm: Machine) -> None:
    inject(vm, E1000E, DRIVER_FLAVOUR="vfio\n", DRIVER_FLAVOUR_SEQ="1")
    (told,) = outcomes(vm, ALL)
    assert (told.kind, told.flavour) == ("switched", "vfio")


@pytest.mark.parametrize("address", [ROOT_PORT, PCI_BRIDGE])
def test_a_bridge_stays_with_the_host(vm: Machine, address: str) -> None:
    before = vm.driver(address)
    told = ask(vm, address, "vfio")
    assert (told.kind, told.code) == ("refused", "bridge")
    assert vm.driver(address) == before
    assert override(vm, address) is None
    assert vfio_modules(vm) == []


def test_a_device_without_iommu_group_is_refused(vm: Machine) -> None:
    platform = vm.run("ls -d /sys/bus/platform/devices/*").out.split()[0]
    assert vm.run(f"test -e {platform}/iommu_group", check=False).rc
    shipped = vm.run("cat /usr/lib/flavourd/flavours.yaml").out
    more = "      platform: {universal: {module: vfio_platform, driver: vfio-platform}, needs_iommu_group: true}\n"
    vm.write("/etc/flavourd/flavours.yaml", shipped.rstrip("\n") + "\n" + more)
    vm.run("systemctl reload flavourd")
    told = ask(vm, platform, "vfio")
    assert (told.kind, told.code) == ("refused", "no-iommu-group"), told.message
    assert "intel_iommu=on" in told.message


def test_a_bus_that_the_flavour_does_not_know_is_refused(vm: Machine) -> None:
    platform = vm.run("ls -d /sys/bus/platform/devices/*").out.split()[0]
    told = ask(vm, platform, "vfio")
    assert (told.kind, told.code) == ("refused", "flavour-not-on-bus")


@pytest.mark.parametrize(
    "path", ["/sys/bus/virtio/devices/virtio0", "/sys/class/net/lo", "/sys/devices/system/cpu/cpu0"]
)
def test_a_device_without_driver_override_is_refused(vm: Machine, path: str) -> None:
    told = ask(vm, path, "vfio")
    assert (told.kind, told.code) == ("refused", "no-override"), told.message
    assert alive(vm)


def test_for_an_interface_the_device_below_it_is_named(vm: Machine) -> None:
    interface = vm.run(f"ls {PCI}/{E1000E}/net").out.strip()
    told = ask(vm, f"/sys/class/net/{interface}", "vfio")
    assert told.code == "no-override"
    assert f"pci/{E1000E}" in told.message


# --- a host that lacks something


def test_a_missing_universal_module_is_told_and_nothing_is_touched(vm: Machine) -> None:
    vm.run("rm $(modinfo -n vfio_pci) && depmod -a", timeout=120)
    told = ask(vm, E1000E, "vfio")
    assert (told.kind, told.code) == ("refused", "no-candidate"), told.message
    assert "vfio_pci" in told.message
    assert "not found" in told.message
    assert (vm.driver(E1000E), override(vm, E1000E)) == ("e1000e", None)
    assert ask(vm, VIRTIO_NET, "vfio").driver == "virtio_vfio_pci", "a variant does not need it"


def test_a_blacklisted_universal_module_is_told_and_nothing_is_touched(vm: Machine) -> None:
    vm.write("/etc/modprobe.d/local.conf", "blacklist vfio-pci\n")
    told = ask(vm, E1000E, "vfio")
    assert (told.kind, told.code) == ("refused", "no-candidate"), told.message
    assert "blacklisted" in told.message
    assert vm.driver(E1000E) == "e1000e"
    assert vfio_modules(vm) == []


def test_a_blacklisted_variant_is_skipped(vm: Machine) -> None:
    vm.write("/etc/modprobe.d/local.conf", "blacklist virtio_vfio_pci\n")
    told = ask(vm, VIRTIO_NET, "vfio")
    assert (told.kind, told.driver) == ("switched", "vfio-pci")
    assert "virtio_vfio_pci is blacklisted" in told.message
    assert "virtio_vfio_pci" not in vfio_modules(vm)


def test_without_modules_alias_the_universal_driver_still_works_and_a_warning_is_told(vm: Machine) -> None:
    vm.run("mv /lib/modules/$(uname -r)/modules.alias /root/")
    told = ask(vm, VIRTIO_NET, "vfio")
    assert (told.kind, told.driver) == ("switched", "vfio-pci")
    assert "modules.alias" in told.message
    warning = vm.run("journalctl -q -o cat SYSLOG_IDENTIFIER=flavourd FLAVOURD_CODE=index-unreadable").out
    assert "modules.alias" in warning
    vm.run("mv /root/modules.alias /lib/modules/$(uname -r)/")
    ask(vm, VIRTIO_NET, "default")
    assert ask(vm, VIRTIO_NET, "vfio").driver == "virtio_vfio_pci"
