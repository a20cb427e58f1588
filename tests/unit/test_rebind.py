# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is written to a device, in which order, and what is never written over. What the kernel does with it is tested
in the virtual machine.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from flavourd.device import PARKED, Binding, DeviceId, Sriov
from flavourd.kmod import Kmod
from flavourd.rebind import Contested, Kept, Rebind
from flavourd.step import Step
from flavourd.sysfs import Sysfs

from .conftest import Tree

_ID = DeviceId("pci", "0000:01:00.0")
_VFS = [DeviceId("pci", f"0000:01:10.{number}") for number in range(3)]


def device(id_: DeviceId, files: Mapping[str, str] | None = None) -> dict[str, str]:
    return {
        f"sys/bus/pci/devices/{id_.name}/{name}": text
        for name, text in ({"driver_override": "(null)\n"} | dict(files or {})).items()
    }


class Place:
    """A host of plain files. before: called at each step, before what it tells of is done; `last` is the last one."""

    def __init__(self, root: Path, before: Callable[[Step], object] = lambda _: None) -> None:
        self.root, self.last = root, ""
        self._before = before
        self.sysfs = Sysfs(root)
        kmod = Kmod(root, "none")
        self.rebind = Rebind(_ID, self.sysfs, kmod, self.sysfs.override(_ID), self._tell, lambda _: None)

    def _tell(self, step: Step) -> None:
        self.last = step.text
        self._before(step)

    def text(self, name: str, id_: DeviceId = _ID) -> str:
        return (self.root / f"sys/bus/pci/devices/{id_.name}/{name}").read_text().strip()


# --- parked devices


def test_going_back_to_being_parked_means_that_the_override_is_cleared_and_the_bus_chooses(tree: Tree) -> None:
    files = {"driver_override": f"{PARKED}\n", "modalias": "pci:x\n"}
    root = tree(device(_ID, files) | {"sys/bus/pci/drivers_probe": ""})
    place = Place(root)
    place.rebind.put(Binding(None, None, PARKED), "pci:x")
    assert (root / f"sys/bus/pci/devices/{_ID.name}/driver_override").read_text().startswith("\n")
    assert (root / "sys/bus/pci/drivers_probe").read_text() == _ID.name
    assert place.last == "loading what fits pci:x"


def test_who_has_its_driver_though_it_was_parked_keeps_it_without_the_override(tree: Tree) -> None:
    files = {"driver_override": f"{PARKED}\n", "driver": "-> ../../drivers/e1000e"}
    root = tree(device(_ID, files))
    place = Place(root)
    place.rebind.put(Binding("e1000e", None, PARKED))
    assert (root / f"sys/bus/pci/devices/{_ID.name}/driver_override").read_text().startswith("\n")
    assert place.last == ""


def test_a_parked_device_that_somebody_else_is_after_is_not_written_over(tree: Tree) -> None:
    root = tree(device(_ID, {"driver_override": f"{PARKED}\n"}))
    place = Place(root)
    (root / f"sys/bus/pci/devices/{_ID.name}/driver_override").write_text("pci-stub\n")
    with pytest.raises(Contested):
        place.rebind.put(Binding(None, None, PARKED))
    assert place.text("driver_override") == "pci-stub"


# --- an override that names another driver


def test_an_override_is_mended_and_read_back(tree: Tree) -> None:
    place = Place(tree(device(_ID, {"driver": "-> ../../drivers/vfio-pci"})))
    place.rebind.mend("vfio-pci")
    assert place.text("driver_override") == "vfio-pci"


def test_an_override_that_is_not_what_was_seen_any_more_is_not_mended(tree: Tree) -> None:
    place = Place(tree(device(_ID)))
    (place.root / f"sys/bus/pci/devices/{_ID.name}/driver_override").write_text("igb\n")
    with pytest.raises(Contested):
        place.rebind.mend("vfio-pci")
    assert place.text("driver_override") == "igb"


# --- VFs


class Pf(Place):
    """As soon as VFs are to be made they are there, as many as `made`, and those that there were are gone."""

    def __init__(self, tree: Tree, had: int = 0, made: int = 3, autoprobe: str = "1") -> None:
        files = {"sriov_totalvfs": "7\n", "sriov_numvfs": f"{had}\n", "sriov_drivers_autoprobe": f"{autoprobe}\n"}
        self._tree, self._made = tree, made
        super().__init__(tree(device(_ID, files) | {"sys/bus/pci/drivers_probe": ""}), self._make)
        self._link(had)

    def _link(self, count: int) -> None:
        for number, vf in enumerate(_VFS[:count]):
            self._tree({f"sys/bus/pci/devices/{_ID.name}/virtfn{number}": f"-> ../{vf.name}"} | device(vf))

    def _make(self, step: Step) -> None:
        if step.text.startswith("making"):
            for link in (self.root / f"sys/bus/pci/devices/{_ID.name}").glob("virtfn*"):
                shutil.rmtree(link.resolve())
                link.unlink()
            self._link(self._made)

    def change(self, vfs: int, kept: Kept | None = None, seen: int = 0) -> None:
        self.rebind.change_vfs(vfs, Sriov(seen, self.text("sriov_drivers_autoprobe") == "1", 7), kept)

    @property
    def probed(self) -> str:
        return (self.root / "sys/bus/pci/drivers_probe").read_text()


def test_vfs_that_the_policy_keeps_are_parked_before_any_driver_is_probed_and_the_others_are_probed(
    tree: Tree,
) -> None:
    place = Pf(tree)
    asked: list[tuple[DeviceId, str]] = []

    def kept(vf: DeviceId) -> bool:
        asked.append((vf, place.text("sriov_drivers_autoprobe")))
        return vf != _VFS[1]

    place.change(3, kept)
    assert asked == [(vf, "0") for vf in _VFS], "no driver but by its override as long as not all are parked"
    assert [place.text("driver_override", vf) for vf in _VFS] == [PARKED, "(null)", PARKED]
    assert (place.text("sriov_numvfs"), place.text("sriov_drivers_autoprobe")) == ("3", "1")
    assert place.probed == _VFS[1].name
    assert place.rebind.touched


def test_without_a_rule_that_could_keep_any_the_kernel_probes(tree: Tree) -> None:
    place = Pf(tree)
    place.change(3)
    assert (place.text("sriov_numvfs"), place.text("sriov_drivers_autoprobe")) == ("3", "1")
    assert {place.text("driver_override", vf) for vf in _VFS} == {"(null)"}
    assert place.probed == ""


def test_where_no_driver_is_probed_for_vfs_none_is(tree: Tree) -> None:
    place = Pf(tree, autoprobe="0")
    place.change(3, lambda _: False)
    assert (place.text("sriov_numvfs"), place.text("sriov_drivers_autoprobe")) == ("3", "0")
    assert place.probed == ""


def test_what_has_a_driver_or_an_override_of_somebody_else_is_neither_parked_nor_probed(tree: Tree) -> None:
    place = Pf(tree)

    def kept(vf: DeviceId) -> bool:
        if vf == _VFS[0]:
            tree({f"sys/bus/pci/devices/{vf.name}/driver": "-> ../../drivers/igbvf"})
        if vf == _VFS[1]:
            (place.root / f"sys/bus/pci/devices/{vf.name}/driver_override").write_text("mine\n")
        return True

    place.change(3, kept)
    assert [place.text("driver_override", vf) for vf in _VFS] == ["(null)", "mine", PARKED]


def test_if_not_as_many_came_as_were_asked_for_that_is_an_error(tree: Tree) -> None:
    place = Pf(tree, made=2)
    with pytest.raises(OSError, match="the kernel made 2"):
        place.change(3)


def test_whether_drivers_are_probed_is_as_it_was_even_if_vfs_could_not_be_made(tree: Tree) -> None:
    place = Pf(tree)
    (place.root / f"sys/bus/pci/devices/{_ID.name}/sriov_numvfs").unlink()
    with pytest.raises(FileNotFoundError):
        place.change(3, lambda _: True)
    assert place.text("sriov_drivers_autoprobe") == "1"


def test_if_there_are_other_vfs_than_were_looked_at_none_is_touched(tree: Tree) -> None:
    place = Pf(tree, had=2)
    with pytest.raises(OSError, match="meanwhile"):
        place.change(3, seen=1)
    assert (place.text("sriov_numvfs"), place.rebind.touched) == ("2", False)


@pytest.mark.parametrize("vfs", [0, 2])
def test_the_number_that_there_was_comes_back(tree: Tree, vfs: int) -> None:
    place = Pf(tree, had=3, made=vfs)
    assert place.rebind.restore_vfs(Sriov(vfs, autoprobe=True)) is (vfs > 0)
    assert place.text("sriov_numvfs") == str(vfs)
    assert not place.rebind.restore_vfs(Sriov(vfs, autoprobe=True, total=7)), "now there is nothing to do"
