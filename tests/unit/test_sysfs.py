# SPDX-License-Identifier: LGPL-2.1-or-later
"""Snapshots of devices, read from trees that are laid out as the kernel lays out sysfs; nothing is bound here."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from flavourd.device import Binding, DeviceId, GroupMember, Sriov
from flavourd.errors import Code, FlavourError
from flavourd.sysfs import Sysfs

from .conftest import Tree

_NIC = DeviceId("pci", "0000:01:00.0")
_HOME = "sys/devices/pci0000:00/0000:01:00.0"
_PROOFS = frozenset({"vfio-dev"})
_NOIOMMU = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode"


def pci(name: str, files: Mapping[str, str] | None = None, driver: str | None = None) -> dict[str, str]:
    """A PCI device's directory with what every one has; files: more of them, by name in that directory."""
    home = f"sys/devices/pci0000:00/{name}"
    device = {
        f"sys/bus/pci/devices/{name}": f"-> ../../../devices/pci0000:00/{name}",
        f"{home}/subsystem": "-> ../../../bus/pci",
        f"{home}/modalias": "pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00\n",
        f"{home}/driver_override": "(null)\n",
        f"{home}/device": "0x10d3\n",
        f"{home}/uevent": (f"DRIVER={driver}\n" if driver else "") + "PCI_CLASS=20000\n",
    }
    if driver:
        device[f"{home}/driver"] = f"-> ../../../bus/pci/drivers/{driver}"
        device[f"sys/bus/pci/drivers/{driver}/bind"] = ""
    return device | {f"{home}/{file}": text for file, text in (files or {}).items()}


def test_a_driverless_device_is_read_with_nothing_but_its_modalias(tree: Tree) -> None:
    root = tree(pci(_NIC.name))
    device = Sysfs(root).device(_NIC, _PROOFS)
    assert device.id == _NIC
    assert device.binding == Binding(None, None, None)
    assert device.modalias == "pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00"
    assert device.overridable
    assert not device.bridge
    assert not device.releasing
    assert not device.noiommu
    assert device.iommu_group is None
    assert device.group_members == ()
    assert device.proofs == (("vfio-dev", ()),)
    assert device.parent is None


@pytest.mark.parametrize(
    ("text", "override"),
    [("(null)\n", None), ("\n", None), ("", None), ("vfio-pci\n", "vfio-pci"), ("*vfio*\n", "*vfio*"), (" \n", " ")],
)
def test_an_unset_override_is_told_from_a_set_one(tree: Tree, text: str, override: str | None) -> None:
    sysfs = Sysfs(tree(pci(_NIC.name, {"driver_override": text})))
    assert sysfs.device(_NIC, _PROOFS).binding.override == override
    assert sysfs.override(_NIC) == override
    assert sysfs.device(_NIC, _PROOFS).overridable


def test_a_device_without_the_attribute_is_not_overridable(tree: Tree) -> None:
    root = tree(pci(_NIC.name))
    (root / _HOME / "driver_override").unlink()
    assert not Sysfs(root).device(_NIC, _PROOFS).overridable
    assert Sysfs(root).override(_NIC) is None


def test_driver_and_module_are_the_names_that_the_links_name(tree: Tree) -> None:
    entries = pci(_NIC.name, driver="xe-vfio-pci")
    entries["sys/bus/pci/drivers/xe-vfio-pci/module"] = "-> ../../../../module/xe_vfio_pci"
    sysfs = Sysfs(tree(entries))
    assert sysfs.device(_NIC, _PROOFS).binding == Binding("xe-vfio-pci", "xe_vfio_pci", None)
    assert sysfs.driver(_NIC) == "xe-vfio-pci"
    assert sysfs.binding(_NIC) == sysfs.device(_NIC, _PROOFS).binding


def test_a_built_in_driver_has_no_module(tree: Tree) -> None:
    assert Sysfs(tree(pci(_NIC.name, driver="e1000e"))).device(_NIC, _PROOFS).binding == Binding("e1000e", None, None)


def test_the_instance_is_the_inode_of_the_device_and_not_of_a_link_to_it(tree: Tree) -> None:
    root = tree(pci(_NIC.name))
    inode = (root / _HOME).stat().st_ino
    assert Sysfs(root).device(_NIC, _PROOFS).instance == inode
    assert Sysfs(root).instance(_NIC) == inode
    assert Sysfs(root).instance(DeviceId("pci", "0000:02:00.0")) == 0


def test_a_bridge_is_known_by_its_secondary_bus(tree: Tree) -> None:
    assert Sysfs(tree(pci(_NIC.name, {"secondary_bus_number": "1\n"}))).device(_NIC, _PROOFS).bridge


def test_a_driver_that_stands_in_uevent_but_has_no_link_is_still_letting_go(tree: Tree) -> None:
    root = tree(pci(_NIC.name, driver="e1000e"))
    assert not Sysfs(root).device(_NIC, _PROOFS).releasing
    (root / _HOME / "driver").unlink()
    assert Sysfs(root).device(_NIC, _PROOFS).releasing


def test_a_key_that_only_ends_in_driver_is_no_driver(tree: Tree) -> None:
    assert not Sysfs(tree(pci(_NIC.name, {"uevent": "OF_DRIVER=x\n"}))).device(_NIC, _PROOFS).releasing


@pytest.mark.parametrize(("text", "noiommu"), [("Y\n", True), ("1\n", True), ("N\n", False), ("0\n", False)])
def test_the_unsafe_mode_of_the_loaded_vfio_is_read(tree: Tree, text: str, noiommu: bool) -> None:
    assert Sysfs(tree(pci(_NIC.name) | {_NOIOMMU: text})).device(_NIC, _PROOFS).noiommu is noiommu


def test_group_members_are_the_others_of_the_group_with_driver_and_claim(tree: Tree) -> None:
    group = "sys/kernel/iommu_groups/7"
    names = [_NIC.name, "0000:01:00.1", "0000:01:00.2", "0000:01:00.3"]
    link = {"iommu_group": "-> ../../../kernel/iommu_groups/7"}
    entries = {f"{group}/devices/{name}": f"-> ../../../../devices/pci0000:00/{name}" for name in names}
    entries |= pci(names[0], {**link, "vfio-dev/vfio0/": ""}, driver="vfio-pci")
    entries |= pci(names[1], link, driver="e1000e")
    entries |= pci(names[2], link)
    entries |= pci(names[3], {**link, "vfio-dev/vfio1/": ""}, driver="vfio-pci")
    device = Sysfs(tree(entries)).device(_NIC, _PROOFS)
    assert device.iommu_group == "7"
    assert device.group_members == (
        GroupMember(DeviceId("pci", names[1]), "e1000e", claimed=False),
        GroupMember(DeviceId("pci", names[2]), None, claimed=False),
        GroupMember(DeviceId("pci", names[3]), "vfio-pci", claimed=True),
    )


def test_proofs_are_the_names_in_each_proof_directory_in_order(tree: Tree) -> None:
    sysfs = Sysfs(tree(pci(_NIC.name, {"vfio-dev/vfio1/": "", "vfio-dev/vfio0/": "", "empty/": ""})))
    device = sysfs.device(_NIC, ("vfio-dev", "empty", "absent"))
    assert device.proofs == (("vfio-dev", ("vfio0", "vfio1")), ("empty", ()), ("absent", ()))
    assert sysfs.proof(_NIC, "vfio-dev") == ("vfio0", "vfio1")
    assert sysfs.proof(_NIC, "absent") == ()


def test_a_network_interface_is_read_from_its_class_and_names_its_pci_device(tree: Tree) -> None:
    entries = pci(_NIC.name)
    entries[f"{_HOME}/net/eth0/subsystem"] = "-> ../../../../../class/net"
    entries[f"{_HOME}/net/eth0/device"] = "-> ../.."
    entries["sys/class/net/eth0"] = f"-> ../../../{_HOME}/net/eth0"
    device = Sysfs(tree(entries)).device(DeviceId("net", "eth0"), _PROOFS)
    assert device.id == DeviceId("net", "eth0")
    assert not device.overridable
    assert device.parent == _NIC


def test_a_disk_names_the_pci_device_below_it_and_not_the_controller_between(tree: Tree) -> None:
    entries = pci(_NIC.name)
    entries[f"{_HOME}/nvme/nvme0/subsystem"] = "-> ../../../../../class/nvme"
    entries[f"{_HOME}/nvme/nvme0/device"] = "-> ../.."
    entries[f"{_HOME}/nvme/nvme0/nvme0n1/subsystem"] = "-> ../../../../../../class/block"
    entries[f"{_HOME}/nvme/nvme0/nvme0n1/device"] = "-> .."
    entries["sys/class/nvme/nvme0"] = f"-> ../../../{_HOME}/nvme/nvme0"
    entries["sys/class/block/nvme0n1"] = f"-> ../../../{_HOME}/nvme/nvme0/nvme0n1"
    device = Sysfs(tree(entries)).device(DeviceId("block", "nvme0n1"), _PROOFS)
    assert device.parent == _NIC  # docs/errors.md, no-override: the message names the PCI device below a disk


def test_a_virtual_interface_has_no_device_below_it(tree: Tree) -> None:
    root = tree({"sys/class/net/lo": "-> ../../devices/virtual/net/lo", "sys/devices/virtual/net/lo/uevent": ""})
    assert Sysfs(root).device(DeviceId("net", "lo"), _PROOFS).parent is None


@pytest.mark.parametrize("name", ["0000:02:00.0", "dangling"])
def test_a_device_that_is_not_there_is_no_device(tree: Tree, name: str) -> None:
    sysfs = Sysfs(tree(pci(_NIC.name) | {"sys/bus/pci/devices/dangling": "-> ../../../devices/gone"}))
    device = DeviceId("pci", name)
    assert not sysfs.exists(device)
    assert sysfs.exists(_NIC)
    with pytest.raises(FlavourError, match=f"there is no device pci/{name}") as caught:
        sysfs.device(device, _PROOFS)
    assert caught.value.code is Code.NO_DEVICE


def test_a_modules_drivers_are_those_that_it_has_on_the_bus(tree: Tree) -> None:
    root = tree(
        {
            "sys/module/xe_vfio_pci/drivers/pci:xe-vfio-pci": "-> ../../../bus/pci/drivers/xe-vfio-pci",
            "sys/module/xe_vfio_pci/drivers/pci:second": "-> ../../../bus/pci/drivers/second",
            "sys/module/xe_vfio_pci/drivers/pci_express:pme": "-> ../../../bus/pci_express/drivers/pme",
            "sys/bus/pci/drivers/xe_vfio_pci/bind": "",
        }
    )
    for spelling in ("xe_vfio_pci", "xe-vfio-pci"):
        assert Sysfs(root).module_drivers(spelling, "pci") == ("second", "xe-vfio-pci")
        assert Sysfs(root).module_loaded(spelling)


@pytest.mark.parametrize(
    ("driver", "drivers"), [("vfio_pci", ("vfio_pci",)), ("vfio-pci", ("vfio-pci",)), ("vfio", ()), ("vfiopci", ())]
)
def test_a_built_in_module_without_links_is_found_by_either_spelling_of_its_name(
    tree: Tree, driver: str, drivers: tuple[str, ...]
) -> None:
    sysfs = Sysfs(tree({f"sys/bus/pci/drivers/{driver}/bind": "", "sys/bus/platform/drivers/vfio-pci/bind": ""}))
    assert sysfs.module_drivers("vfio_pci", "pci") == drivers
    assert not sysfs.module_loaded("vfio_pci")


def written(root: Path) -> bytes:
    return (root / _HOME / "driver_override").read_bytes()


def test_an_override_is_written_as_the_bare_name(tree: Tree) -> None:
    root = tree(pci(_NIC.name, {"driver_override": ""}))
    Sysfs(root).write_override(_NIC, "vfio-pci")
    assert written(root) == b"vfio-pci"


def test_an_override_is_cleared_by_a_newline_because_the_kernel_ignores_an_empty_write(tree: Tree) -> None:
    root = tree(pci(_NIC.name, {"driver_override": ""}))
    Sysfs(root).write_override(_NIC, None)
    assert written(root) == b"\n"


def test_an_override_that_is_no_utf8_is_given_back_byte_for_byte(tree: Tree) -> None:
    root = tree(pci(_NIC.name, {"driver_override": "\udcff\udc80\n"}))
    override = Sysfs(root).override(_NIC)
    (root / _HOME / "driver_override").write_bytes(b"")
    Sysfs(root).write_override(_NIC, override)
    assert written(root) == b"\xff\x80"


def test_a_write_that_fails_names_the_file_and_leaves_no_descriptor(tree: Tree) -> None:
    root = tree({"sys/bus/pci/devices/0000:01:00.0/driver_override": "-> /dev/full"})
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="No space") as caught:
        Sysfs(root).write_override(_NIC, "vfio-pci")
    assert caught.value.filename == f"{root}/sys/bus/pci/devices/0000:01:00.0/driver_override"
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_interfaces_are_those_of_the_device_and_of_its_virtio_device(tree: Tree) -> None:
    root = tree(
        pci(_NIC.name, {"net/eth0/ifindex": "2", "virtio0/net/eth1/ifindex": "3", "usb1/net/eth2/ifindex": "4"})
    )
    assert Sysfs(root).device(_NIC, _PROOFS).interfaces == ("eth0", "eth1")


@pytest.mark.parametrize(
    ("files", "sriov"),
    [
        ({}, None),
        ({"physfn": "-> ../0000:01:00.7"}, None),  # a VF
        ({"sriov_totalvfs": "7\n"}, Sriov(0, total=7)),
        ({"sriov_totalvfs": "7\n", "sriov_drivers_autoprobe": "1\n"}, Sriov(0, total=7)),
        ({"sriov_totalvfs": "7\n", "sriov_drivers_autoprobe": "0\n"}, Sriov(0, autoprobe=False, total=7)),
        (
            {"sriov_totalvfs": "7\n", "virtfn0": "-> ../0000:01:10.0", "virtfn1": "-> ../0000:01:10.1"},
            Sriov(2, total=7),
        ),
    ],
)
def test_of_a_pf_its_vfs_are_counted_without_waiting_for_who_makes_them(
    tree: Tree, files: Mapping[str, str], sriov: Sriov | None
) -> None:
    root = tree(pci(_NIC.name, files))
    os.mkfifo(root / _HOME / "sriov_numvfs")  # who reads it waits
    assert Sysfs(root).device(_NIC, _PROOFS).sriov == sriov
    assert Sysfs(root).sriov(_NIC) == sriov


def test_vfs_are_asked_for_by_number_with_or_without_drivers(tree: Tree) -> None:
    for sriov, written_there in ((Sriov(3), ("1", "3")), (Sriov(0, autoprobe=False), ("0", "0"))):
        files = {"sriov_totalvfs": "7\n", "sriov_numvfs": "", "sriov_drivers_autoprobe": ""}
        root = tree(pci(_NIC.name, files) if not (tree({}) / _HOME).exists() else {f"{_HOME}/{n}": "" for n in files})
        Sysfs(root).enable_vfs(_NIC, sriov)
        home = root / _HOME
        assert tuple((home / f"sriov_{name}").read_text() for name in ("drivers_autoprobe", "numvfs")) == written_there


def test_the_vfs_of_a_pf_come_in_the_order_of_their_indexes(tree: Tree) -> None:
    links = {f"virtfn{number}": f"-> ../0000:01:10.{number % 8}" for number in (10, 2, 0)}
    sysfs = Sysfs(tree(pci(_NIC.name, links | {"virtfnx": "-> ../x"})))
    assert sysfs.vfs(_NIC) == tuple(DeviceId("pci", f"0000:01:10.{number}") for number in (0, 2, 2))
    assert sysfs.vfs(DeviceId("pci", "0000:02:00.0")) == ()


def test_whether_drivers_are_probed_for_vfs_is_written_alone(tree: Tree) -> None:
    root = tree(pci(_NIC.name, {"sriov_drivers_autoprobe": ""}))
    for autoprobe, text in ((False, "0"), (True, "1")):
        Sysfs(root).write_autoprobe(_NIC, autoprobe)
        assert (root / _HOME / "sriov_drivers_autoprobe").read_text() == text


@pytest.mark.parametrize(("text", "total"), [("64\n", 64), ("\n", 0), ("x\n", 0)])
def test_how_many_vfs_a_pf_can_have_is_read(tree: Tree, text: str, total: int) -> None:
    sriov = Sysfs(tree(pci(_NIC.name, {"sriov_totalvfs": text}))).sriov(_NIC)
    assert sriov == Sriov(total=total)
