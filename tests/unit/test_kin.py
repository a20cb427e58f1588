# SPDX-License-Identifier: LGPL-2.1-or-later
"""What devices have in common, read from links that are laid out as the kernel lays them out."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from flavourd.device import DeviceId
from flavourd.keys import Keys
from flavourd.kin import Kin

from .conftest import Tree

_PF, _VF, _OTHER_VF, _BRIDGE, _ALONE = (
    DeviceId("pci", name) for name in ("0000:01:00.0", "0000:01:10.0", "0000:01:10.2", "0000:00:01.0", "0000:02:00.0")
)
_ON_PLATFORM = DeviceId("platform", "fff50000.dma")


def device(id_: DeviceId, group: str | None = None, files: Mapping[str, str] | None = None) -> dict[str, str]:
    home = f"sys/devices/x/{id_.name}"
    found = {
        f"sys/bus/{id_.bus}/devices/{id_.name}": f"-> ../../../devices/x/{id_.name}",
        f"{home}/subsystem": f"-> ../../../bus/{id_.bus}",
    }
    if group:
        found[f"{home}/iommu_group"] = f"-> ../../../kernel/iommu_groups/{group}"
        found[f"sys/kernel/iommu_groups/{group}/devices/{id_.name}"] = f"-> ../../../../devices/x/{id_.name}"
    return found | {f"{home}/{name}": text for name, text in (files or {}).items()}


@pytest.fixture
def host(tree: Tree) -> Path:
    return tree(
        device(_PF, "9", {"sriov_totalvfs": "7\n", "driver": "-> ../../../bus/pci/drivers/igb"})
        | device(_VF, "10", {"physfn": f"-> ../{_PF.name}"})
        | device(_OTHER_VF, "11", {"physfn": f"-> ../{_PF.name}", "driver": "-> ../../../bus/pci/drivers/vfio-pci"})
        | device(_BRIDGE, "9", {"secondary_bus_number": "1\n", "driver": "-> ../../../bus/pci/drivers/pcieport"})
        | device(_ALONE)
        | device(_ON_PLATFORM, "9")
    )


def alone(*keys: str) -> Keys:
    return Keys(frozenset(keys))


def test_a_device_alone_has_nothing_but_its_own_name(host: Path) -> None:
    assert Kin(host).keys(_ALONE) == alone("pci/0000:02:00.0")
    assert Kin(host).keys(DeviceId("pci", "0000:ff:00.0")) == alone("pci/0000:ff:00.0"), "nor has one that is not there"


def test_a_pf_is_alone_with_what_its_vfs_share(host: Path) -> None:
    kin = Kin(host)
    assert kin.keys(_PF) == alone(str(_PF), "IOMMU group 9", f"PF {_PF}")
    assert kin.keys(_VF) == Keys(frozenset({str(_VF), "IOMMU group 10"}), frozenset({f"PF {_PF}"}))
    assert kin.keys(_VF).between(kin.keys(_PF)) == {f"PF {_PF}"}
    assert not kin.keys(_VF).between(kin.keys(_OTHER_VF))


def test_who_shares_an_iommu_group_shares_a_key_whatever_the_bus(host: Path) -> None:
    kin = Kin(host)
    assert kin.keys(_PF).between(kin.keys(_ON_PLATFORM)) == {"IOMMU group 9"}
    assert kin.keys(_PF).between(kin.keys(_BRIDGE)) == {"IOMMU group 9"}
    assert not kin.keys(_PF).between(kin.keys(_ALONE))


def test_a_driver_is_shared_only_if_it_wants_its_devices_one_by_one(host: Path) -> None:
    kin = Kin(host)
    assert kin.keys(_PF, ["ioatdma", "igb"]).alone - kin.keys(_PF).alone == {"driver igb"}
    assert kin.keys(_OTHER_VF, ["vfio-pci"]).alone - kin.keys(_OTHER_VF).alone == {"driver vfio-pci"}
    assert kin.keys(_PF, ["ioatdma"]) == kin.keys(_PF)
    assert kin.keys(_ALONE, ["igb"]) == kin.keys(_ALONE), "nobody has it"


def test_a_group_is_its_endpoints_and_bridges_stay_with_the_host(host: Path) -> None:
    kin = Kin(host)
    assert kin.group(_PF) == kin.group(_ON_PLATFORM) == kin.group(_BRIDGE) == (_PF, _ON_PLATFORM)
    assert kin.group(_VF) == (_VF,)


def test_without_a_group_a_device_is_its_own(host: Path) -> None:
    assert Kin(host).group(_ALONE) == (_ALONE,)
    gone = DeviceId("pci", "0000:ff:00.0")
    assert Kin(host).group(gone) == (gone,)


def test_a_group_of_bridges_alone_is_the_one_that_was_named(tree: Tree) -> None:
    bridge = {"secondary_bus_number": "1\n"}
    root = tree(device(_BRIDGE, "3", bridge) | device(_PF, "3", bridge))
    assert Kin(root).group(_BRIDGE) == (_BRIDGE,)


def test_only_links_are_read_for_the_daemon_itself_looks_here(host: Path) -> None:
    home = host / "sys/devices/x" / _PF.name
    (home / "sriov_totalvfs").unlink()
    for name in ("sriov_totalvfs", "sriov_numvfs", "driver_override", "uevent", "secondary_bus_number"):
        os.mkfifo(home / name)  # who opens it to read it waits for ever
    kin = Kin(host)
    assert f"PF {_PF}" in kin.keys(_PF, ["igb"])
    assert kin.group(_ON_PLATFORM) == (_ON_PLATFORM,), "it counts as a bridge now"
