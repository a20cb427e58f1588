# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a device is known by, read from trees as the kernel makes them."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from flavourd.device import PARKED, DeviceId, Sriov
from flavourd.identity import Identities
from flavourd.traits import Seen, Trait, Traits

from .conftest import Tree

_ALL = frozenset(Trait)
_NIC, _VF = DeviceId("pci", "0000:01:00.0"), DeviceId("pci", "0000:01:10.1")
_BRIDGED = "sys/devices/pci0000:00/0000:00:10.0"
_IDS = {
    "vendor": "0x8086\n",
    "device": "0x10d3\n",
    "subsystem_vendor": "0x8086\n",
    "subsystem_device": "0x0a1f\n",
    "class": "0x020000\n",
    "modalias": "pci:v00008086d000010D3\n",
    "driver_override": "(null)\n",
}


def pci(name: str, facts: Mapping[str, str] | None = None, below: str = _BRIDGED) -> dict[str, str]:
    place = f"{below}/{name}"
    return {
        f"sys/bus/pci/devices/{name}": f"-> ../../../{place.removeprefix('sys/')}",
        f"{place}/subsystem": f"-> {'../' * (place.count('/') + 1)}sys/bus/pci",
        **{f"{place}/{key}": value for key, value in (facts or {}).items()},
    }


def seen(root: Path, device: DeviceId = _NIC, needs: frozenset[Trait] = _ALL) -> Seen:
    found = Identities(root, ["vfio-dev"]).seen(device, needs)
    assert found
    return found


def traits(root: Path, device: DeviceId = _NIC, needs: frozenset[Trait] = _ALL) -> Traits:
    return seen(root, device, needs).traits


def test_of_a_network_card_all_is_read(tree: Tree) -> None:
    root = tree(pci(_NIC.name, _IDS | {"driver": "-> ../x/drivers/e1000e", "vfio-dev/vfio3/": ""}))
    found = seen(root)
    assert found == Seen(
        traits=Traits(
            id=_NIC,
            vendor="8086",
            device="10d3",
            subsystem_vendor="8086",
            subsystem_device="0a1f",
            class_code="020000",
            modalias="pci:v00008086d000010D3",
            driver="e1000e",
            path="0000:00/10.0/00.0",
        ),
        instance=(root / "sys/bus/pci/devices" / _NIC.name).stat().st_ino,
        driver="e1000e",
        proofs=(("vfio-dev", ("vfio3",)),),
    )
    assert found.id == _NIC


def test_of_a_device_that_says_nothing_nothing_is_known(tree: Tree) -> None:
    found = seen(tree({"sys/bus/foo/devices/x0/y": ""}), DeviceId("foo", "x0"))
    assert found.traits == Traits(DeviceId("foo", "x0"))
    assert not found.overridable
    assert not found.bridge


def test_what_is_not_there_is_none(tree: Tree) -> None:
    assert Identities(tree(pci(_NIC.name))).seen(DeviceId("pci", "0000:02:00.0")) is None


def test_a_device_that_goes_away_while_it_is_read_is_none(tree: Tree) -> None:
    root = tree(pci(_NIC.name, _IDS | {"driver_override": "-> driver_override"}))  # reading it fails: ELOOP
    assert Identities(root).seen(_NIC) is None
    assert Identities(root).all(["pci"]) == ()


def test_all_devices_of_the_buses_are_seen_and_no_others(tree: Tree) -> None:
    root = tree(pci(_NIC.name) | pci(_VF.name) | {f"sys/bus/{bus}/devices/x0/y": "" for bus in ("usb", "cdx")})
    names = [str(each.id) for each in Identities(root).all(["pci", "cdx", "nosuch"])]
    assert names == ["cdx/x0", str(_NIC), str(_VF)]


def test_the_override_a_bridge_and_a_pf_are_seen(tree: Tree) -> None:
    root = tree(
        pci(_NIC.name, {"driver_override": f"{PARKED}\n", "sriov_totalvfs": "7\n", "virtfn0": "-> ../x"})
        | pci("0000:00:10.0", {"secondary_bus_number": "1\n"}, "sys/devices/pci0000:00")
    )
    found = seen(root)
    assert (found.override, found.bridge) == (PARKED, False)
    assert isinstance(found.sriov, Sriov)
    assert found.sriov.vfs == 1
    assert seen(root, DeviceId("pci", "0000:00:10.0")).bridge


# --- the native driver


def native(root: Path, instance: int) -> str | None:
    (found,) = Identities(root, (), {_NIC: (instance, "e1000e")}).all(["pci"])
    assert found.driver == "vfio-pci"
    return found.traits.driver


def test_the_native_driver_is_the_recorded_one_of_this_very_device(tree: Tree) -> None:
    root = tree(pci(_NIC.name, {"driver": "-> ../x/drivers/vfio-pci"}))
    instance = (root / "sys/bus/pci/devices" / _NIC.name).stat().st_ino
    assert native(root, instance) == "e1000e"
    assert native(root, instance + 1) == "vfio-pci"


# --- VFs


def test_a_vf_knows_its_pf_and_its_index_there(tree: Tree) -> None:
    links = {f"virtfn{number}": f"-> ../0000:01:10.{number}" for number in (0, 1)} | {"virtfnx": "", "virtfn": ""}
    root = tree(pci(_NIC.name, links) | pci(_VF.name, {"physfn": f"-> ../{_NIC.name}"}))
    found = traits(root, _VF)
    assert (found.pf, found.vf) == (_NIC, 1)
    assert (traits(root).pf, traits(root).vf) == (None, None)


def test_vfs_that_came_since_the_pf_was_read_have_an_index_too(tree: Tree) -> None:
    physfn = {"physfn": f"-> ../{_NIC.name}"}
    root = tree(pci(_NIC.name, {"virtfn1": f"-> ../{_VF.name}"}) | pci(_VF.name, physfn))
    identities = Identities(root)
    assert [each.traits.vf for each in identities.all(["pci"])] == [None, 1]
    late = "0000:01:10.2"
    tree(pci(late, physfn) | {f"{_BRIDGED}/{_NIC.name}/virtfn2": f"-> ../{late}"})
    found = identities.seen(DeviceId("pci", late))
    assert found
    assert found.traits.vf == 2


# --- where it is


@pytest.mark.parametrize(
    ("below", "path"),
    [
        ("sys/devices/pci0000:00", "0000:00/00.0"),
        ("sys/devices/pci0000:00/0000:00:1c.4/0000:02:00.0", "0000:00/1c.4/00.0/00.0"),
        ("sys/devices/platform/soc/pci0001:00/0001:00:01.0", "0001:00/01.0/00.0"),
        ("sys/devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0", "10000:e0/06.0/00.0"),
        ("sys/devices/elsewhere", None),
    ],
)
def test_the_path_names_the_bridges_below_the_closest_root_bus(tree: Tree, below: str, path: str | None) -> None:
    assert traits(tree(pci(_NIC.name, below=below))).path == path


@pytest.mark.parametrize(
    ("address", "slot"),
    [("0000:01:00", "7"), ("0000:01", "7"), ("0000:00:10", "7"), ("0000:00:11", None), ("", None)],
)
def test_the_slot_is_that_of_the_device_or_of_the_closest_bridge(tree: Tree, address: str, slot: str | None) -> None:
    root = tree(pci(_NIC.name) | {"sys/bus/pci/slots/7/address": f"{address}\n"})
    assert traits(root).slot == slot
    tree({"sys/bus/pci/slots/0-2/address": "0000:00:10\n"})
    assert traits(root).slot == (slot or "0-2")


# --- what costs something


_KNOWN = {
    "serial_number": "00-80-EE-00-00-00-41-80\n",
    "uevent": "PCI_ID=8086:10D3\n",
    f"../../../../../run/udev/data/+pci:{_NIC.name}": "E:ID_X=y\nE:FLAVOUR_SERIAL=11-22-33-44-55-66-77-88\n",
}


def test_what_costs_something_is_read_only_if_it_is_asked_for(tree: Tree) -> None:
    root = tree(pci(_NIC.name, _KNOWN) | {"sys/bus/pci/slots/7/address": "0000:01:00\n"})
    asked_for_nothing = traits(root, needs=frozenset())
    assert (asked_for_nothing.slot, asked_for_nothing.serial, asked_for_nothing.properties) == (None, None, {})
    assert traits(root, needs=frozenset({Trait.SLOT})).slot == "7"
    properties = traits(root, needs=frozenset({Trait.PROPERTY})).properties
    assert (properties["ID_X"], properties["PCI_ID"]) == ("y", "8086:10D3")


def test_the_serial_number_is_the_kernels_or_else_udevs(tree: Tree) -> None:
    needs = frozenset({Trait.SERIAL})
    root = tree(pci(_NIC.name, _KNOWN))
    assert traits(root, needs=needs).serial == "00-80-ee-00-00-00-41-80"
    (root / _BRIDGED / _NIC.name / "serial_number").unlink()
    assert traits(root, needs=needs).serial == "11-22-33-44-55-66-77-88"
    (root / f"run/udev/data/+pci:{_NIC.name}").write_text("E:FLAVOUR_SERIAL=none\n")
    assert traits(root, needs=needs).serial is None
