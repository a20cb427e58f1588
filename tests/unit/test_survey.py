# SPDX-License-Identifier: LGPL-2.1-or-later
"""A look at all devices, on trees as the kernel makes them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from flavourd.device import DeviceId, Glance
from flavourd.survey import Survey

from .conftest import Tree

_PROOFS = ("vfio-dev",)
_A, _B = DeviceId("pci", "0000:01:00.0"), DeviceId("pci", "0000:01:00.1")
_PCI = "sys/devices/pci0000:00"


def pci(name: str, facts: Mapping[str, str] | None = None) -> dict[str, str]:
    """A PCI device. What must not be opened is a folder: reading one fails, so that the device would be missing."""
    place = f"{_PCI}/{name}"
    return {
        f"sys/bus/pci/devices/{name}": f"-> ../../../devices/pci0000:00/{name}",
        f"{place}/subsystem": "-> ../../../bus/pci",
        f"{place}/driver_override/": "",
        f"{place}/uevent/": "",
        f"{place}/sriov_numvfs/": "",
        f"{place}/config/": "",
        **{f"{place}/{key}": value for key, value in (facts or {}).items()},
    }


def in_group(number: str, *names: str) -> dict[str, str]:
    folder = f"sys/kernel/iommu_groups/{number}/devices"
    links = {f"{folder}/{name}": f"-> ../../../../devices/pci0000:00/{name}" for name in names}
    return links | {f"{_PCI}/{name}/iommu_group": f"-> ../../../kernel/iommu_groups/{number}" for name in names}


def glance(root: Path, device: DeviceId = _A) -> Glance:
    """The same, whether one is looked for or all."""
    survey = Survey(root)
    one = survey.glance(device, _PROOFS)
    assert one is not None
    assert one in survey.glances(["pci"], _PROOFS)
    return one


def ids(root: Path, *buses: str) -> list[str]:
    return [str(one.id) for one in Survey(root).glances(buses or ("pci",), _PROOFS)]


def test_a_device_is_seen_without_opening_what_takes_its_lock(tree: Tree) -> None:
    facts = {"driver": "-> ../../../bus/pci/drivers/e1000e", "modalias": "pci:v00008086\n", "class": "0x020000\n"}
    root = tree(pci(_A.name, facts) | in_group("7", _A.name))
    assert glance(root) == Glance(_A, "e1000e", "pci:v00008086", "020000", iommu_group="7")


def test_of_a_device_that_says_nothing_nothing_is_known(tree: Tree) -> None:
    assert glance(tree(pci(_A.name))) == Glance(_A)


def test_a_device_that_is_not_there_is_none(tree: Tree) -> None:
    root = tree(pci(_A.name))
    assert Survey(root).glance(_B, _PROOFS) is None
    assert Survey(root / "nowhere").glances(["pci"], _PROOFS) == ()


def test_proofs_bridges_vfs_and_their_pf_are_seen(tree: Tree) -> None:
    bridge = DeviceId("pci", "0000:00:1c.0")
    pf = {"virtfn0": f"-> ../{_B.name}", "virtfn1": "-> ../x", "virtfn": "", "sriov_totalvfs": "7\n"}
    root = tree(
        pci(_A.name, pf)
        | pci(_B.name, {"physfn": f"-> ../{_A.name}", "vfio-dev/vfio3/": "", "vfio-dev/vfio12/": ""})
        | pci(bridge.name, {"secondary_bus_number": "1\n"})
    )
    assert glance(root) == Glance(_A, vfs=2)
    assert glance(root, _B) == Glance(_B, pf=_A, proofs=(("vfio-dev", ("vfio12", "vfio3")),))
    assert glance(root, bridge).bridge


def test_words_come_from_udevs_database(tree: Tree) -> None:
    words = "E:ID_VENDOR_FROM_DATABASE=Intel\nE:ID_MODEL_FROM_DATABASE=82574L\nE:ID_PCI_CLASS_FROM_DATABASE=Network\n"
    database = f"run/udev/data/+pci:{_A.name}"
    root = tree(pci(_A.name) | {database: words})
    assert glance(root) == Glance(_A, vendor="Intel", model="82574L", class_name="Network")
    (root / database).write_text(words + "E:ID_PCI_SUBCLASS_FROM_DATABASE=Ethernet\n")
    assert glance(root).class_name == "Ethernet"


def test_devices_of_all_buses_asked_for_are_seen_in_order_and_no_others(tree: Tree) -> None:
    root = tree(pci(_B.name) | pci(_A.name) | {"sys/bus/cdx/devices/c0/x": "", "sys/bus/usb/devices/1-1/x": ""})
    assert ids(root, "pci", "cdx", "nosuch") == ["cdx/c0", str(_A), str(_B)]
    assert ids(root, "pci") == [str(_A), str(_B)]


def test_who_shares_a_group_with_a_device_is_seen_whatever_its_bus(tree: Tree) -> None:
    foreign = "sys/devices/platform/dma0"
    root = tree(
        pci(_A.name)
        | in_group("7", _A.name)
        | {
            f"{foreign}/subsystem": "-> ../../../bus/platform",
            f"{foreign}/driver": "-> ../../../bus/platform/drivers/pl330",
        }
        | {"sys/kernel/iommu_groups/7/devices/dma0": "-> ../../../../devices/platform/dma0"}
        | {"sys/kernel/iommu_groups/8/devices/dma1": "-> ../../../../devices/platform/dma1"}
        | {"sys/devices/platform/dma1/subsystem": "-> ../../../bus/platform"}
    )
    assert ids(root) == [str(_A), "platform/dma0"]
    found = Survey(root).group("7", _PROOFS)
    assert {(member.id, member.driver) for member in found} == {(_A, None), (DeviceId("platform", "dma0"), "pl330")}
    assert Survey(root).group("9", _PROOFS) == ()


# --- what goes away


@pytest.mark.parametrize("attribute", ["modalias", "class"])
def test_a_device_that_goes_away_while_it_is_read_hides_no_other(tree: Tree, attribute: str) -> None:
    """Its attributes answer with an error then (ENODEV from the kernel; here it is another one)."""
    root = tree(pci(_A.name, {f"{attribute}/": ""}) | pci(_B.name))
    assert ids(root) == [str(_B)]
    assert Survey(root).glance(_A, _PROOFS) is None


def test_a_disk_that_goes_away_while_it_is_read_hides_nothing_else(tree: Tree) -> None:
    going, staying = (f"pci0000:00/{_A.name}/block/{name}" for name in ("sda", "sdb"))
    root = tree(
        pci(_A.name) | endpoint("block", going) | endpoint("block", staying) | {f"sys/devices/{going}/hidden/": ""}
    )
    assert "sdb" in glance(root).disks


def test_links_to_what_has_gone_are_passed_over(tree: Tree) -> None:
    root = tree(
        pci(_A.name, {"virtfn0": "-> ../gone"})
        | in_group("7", _A.name)
        | {"sys/bus/pci/devices/gone": "-> ../../../devices/gone"}
        | {"sys/kernel/iommu_groups/7/devices/gone2": "-> ../../../../devices/gone2"}
        | {
            "sys/class/net/gone": "-> ../../devices/gone/net/gone",
            "sys/class/block/gone": "-> ../../devices/gone/block/gone",
        }
    )
    assert ids(root) == [str(_A)]
    assert [member.id for member in Survey(root).group("7", _PROOFS)] == [_A]


# --- what stands on a device


def endpoint(kind: str, place: str) -> dict[str, str]:
    """An interface or disk at this place below sys/devices."""
    name = Path(place).name
    return {f"sys/devices/{place}/dev_id": "", f"sys/class/{kind}/{name}": f"-> ../../devices/{place}"}


def test_interfaces_and_disks_stand_on_the_closest_device_with_an_override(tree: Tree) -> None:
    on_a, on_b = f"pci0000:00/{_A.name}", f"pci0000:00/{_B.name}"
    root = tree(
        pci(_A.name)
        | pci(_B.name)
        | endpoint("net", f"{on_a}/net/eth0")
        | endpoint("net", f"{on_a}/virtio0/net/eth1")  # virtio itself has no override
        | endpoint("block", f"{on_b}/ata1/host0/target0:0:0/0:0:0:0/block/sda")
        | endpoint("block", f"{on_b}/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda1")
        | {f"sys/devices/{on_b}/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda1/partition": "1\n"}
        | endpoint("net", "virtual/net/lo")
        | endpoint("block", "virtual/block/dm-0")
        | {"sys/class/net/bonding_masters": ""}  # a file among the links
    )
    assert glance(root) == Glance(_A, interfaces=("eth0", "eth1"))
    assert glance(root, _B) == Glance(_B, disks=("sda",))


def test_behind_a_bridge_a_disk_stands_on_its_own_device_and_not_on_the_bridge(tree: Tree) -> None:
    bridge = "0000:00:1c.0"
    place = f"{_PCI}/{bridge}/{_A.name}"
    root = tree(
        pci(bridge)
        | {f"sys/bus/pci/devices/{_A.name}": f"-> ../../../devices/pci0000:00/{bridge}/{_A.name}"}
        | {f"{place}/driver_override/": "", f"{place}/subsystem": "-> ../../../../bus/pci"}
        | endpoint("block", f"pci0000:00/{bridge}/{_A.name}/nvme/nvme0/nvme0n1")
    )
    assert glance(root).disks == ("nvme0n1",)
    assert glance(root, DeviceId("pci", bridge)).disks == ()


def test_a_disk_with_several_paths_stands_on_every_device_that_leads_to_it(tree: Tree) -> None:
    subsystem = "virtual/nvme-subsystem/nvme-subsys0"
    links = {
        f"sys/devices/{subsystem}/{name}": f"-> ../../../pci0000:00/{device.name}/nvme/{name}"
        for name, device in (("nvme0", _A), ("nvme12", _B))
    }
    hidden = f"pci0000:00/{_A.name}/nvme/nvme0/nvme0c0n1"
    root = tree(
        pci(_A.name, {"nvme/nvme0/": ""})
        | pci(_B.name, {"nvme/nvme12/": ""})
        | endpoint("block", f"{subsystem}/nvme0n1")
        | endpoint("block", f"{subsystem}/nvme0n1/nvme0n1p1")
        | {f"sys/devices/{subsystem}/nvme0n1/nvme0n1p1/partition": "1\n"}
        | {f"sys/devices/{subsystem}/nvme0n1/hidden": "0\n"}
        | endpoint("block", hidden)
        | {f"sys/devices/{hidden}/hidden": "1\n"}
        | links
    )
    assert glance(root).disks == glance(root, _B).disks == ("nvme0n1",)


def test_the_members_of_a_group_are_seen_without_what_stands_on_them(tree: Tree) -> None:
    root = tree(pci(_A.name) | in_group("7", _A.name) | endpoint("net", f"pci0000:00/{_A.name}/net/eth0"))
    whole = glance(root)
    assert whole.interfaces == ("eth0",)
    assert Survey(root).group("7", _PROOFS) == (replace(whole, interfaces=()),)
