# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a transaction writes down, and whom it leaves out, where no driver is asked: devices that are there already,
that have the driver to which they are to go back, or for which no module can be loaded. That devices are bound and
taken back is tested in the virtual machine.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from flavourd.device import PARKED, Binding, DeviceId, Sriov
from flavourd.errors import Code, FlavourError
from flavourd.flavour import Flavour, FlavourOnBus, Flavours, Universal
from flavourd.host import Host
from flavourd.module_index import ModuleIndex
from flavourd.outcome import Kind, Outcome
from flavourd.plan import Plan, plan
from flavourd.record import Record
from flavourd.request import Origin, Request
from flavourd.step import Step, What
from flavourd.together import carry_out, left_out, not_written
from flavourd.use import Finding, Guard

from .conftest import Tree
from .full import full_at

_ONE, _TWO, _THREE = (DeviceId("pci", f"0000:0{number}:00.0") for number in (1, 2, 3))
_MODULE = "no_such_module_anywhere"
_FLAVOURS = Flavours({"vfio": Flavour("x", "vfio-dev", {"pci": FlavourOnBus(Universal(_MODULE, "x"))})})


def device(id_: DeviceId, files: Mapping[str, str] | None = None) -> dict[str, str]:
    common = {"driver_override": "(null)\n", "driver": "-> ../../drivers/e1000e", "modalias": "pci:x\n"}
    return {f"sys/bus/pci/devices/{id_.name}/{name}": text for name, text in (common | dict(files or {})).items()}


_IN_FLAVOUR = {"vfio-dev/vfio0/": ""}


class Place:
    """A host of plain files, and what was told and stood on disk at each step."""

    def __init__(self, tree: Tree, *devices: dict[str, str]) -> None:
        for files in devices:
            self.root = tree(files)
        self.host = Host.at(self.root)
        self.host.journal.prepare()
        self.told: list[tuple[int, Step]] = []
        self.on_disk: list[dict[DeviceId, Record]] = []
        self._before = self.devices()

    def plan(
        self, id_: DeviceId, wanted: str = "vfio", record: Record | None = None, *, rule: bool = False, **more: Any
    ) -> Plan:
        request = Request(id_, wanted, Origin.POLICY if rule else Origin.VARLINK, **more)
        return plan(request, self.host.sysfs.device(id_, _FLAVOURS.proofs), _FLAVOURS, ModuleIndex(), record)

    def record(self, id_: DeviceId, flavour: str = "vfio", *, unfinished: bool = False) -> Record:
        """Kept from before."""
        instance = self.host.sysfs.instance(id_)
        made = Record(
            id_, instance, Binding("e1000e"), flavour, "vfio-pci", unfinished=unfinished, interfaces=("eth7",)
        )
        self.host.journal.save(made)
        return made

    def carry_out(self, plans: Sequence[Plan], *records: Record | None) -> list[Outcome]:
        return carry_out(plans, records or [None] * len(plans), self.host, self._tell, lambda: True)

    def records(self) -> dict[DeviceId, Record]:
        return {record.device: record for record in self.host.journal.records()}

    def devices(self) -> dict[str, object]:
        """All that there is of devices, and when it was last changed."""
        return {
            str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
            for path in (self.root / "sys").rglob("*")
        }

    def text(self, name: str) -> str:
        """An attribute of the first device."""
        return (self.root / f"sys/bus/pci/devices/{_ONE.name}/{name}").read_text()

    def untouched(self) -> bool:
        return self.devices() == self._before

    def _tell(self, number: int, step: Step) -> None:
        self.told.append((number, step))
        self.on_disk.append(self.records())


def test_what_is_in_the_flavour_already_is_told_so_and_nothing_is_written(tree: Tree) -> None:
    place = Place(tree, device(_ONE, _IN_FLAVOUR), device(_TWO, _IN_FLAVOUR))
    kept = place.record(_TWO)
    files = {file: file.stat() for file in (place.root / "run").rglob("*")}
    outcomes = place.carry_out([place.plan(_ONE), place.plan(_TWO, record=kept)], None, kept)
    assert [(outcome.kind, outcome.driver, outcome.proof) for outcome in outcomes] == [
        (Kind.ALREADY, "e1000e", ("vfio0",)),
        (Kind.ALREADY, "e1000e", ("vfio0",)),
    ]
    assert {file: file.stat() for file in (place.root / "run").rglob("*")} == files
    assert place.told == []
    assert place.untouched()


def test_the_end_of_a_switch_whose_end_was_not_written_down_is(tree: Tree) -> None:
    place = Place(tree, device(_ONE, _IN_FLAVOUR))
    kept = place.record(_ONE, unfinished=True)
    (outcome,) = place.carry_out([place.plan(_ONE, record=kept)], kept)
    assert (outcome.kind, outcome.notes) == (Kind.ALREADY, ())
    assert not place.records()[_ONE].unfinished

    kept = place.record(_ONE, unfinished=True)
    size = (place.root / f"run/flavourd/records/pci:{_ONE.name}.json").stat().st_size
    with full_at(size):
        (outcome,) = place.carry_out([place.plan(_ONE, record=kept)], kept)
    assert outcome.kind is Kind.ALREADY
    assert "could not be written down" in outcome.notes[0]
    assert place.records() == {_ONE: kept}


def test_the_intents_of_all_are_on_disk_before_the_first_step_and_each_step_before_it_is_told(tree: Tree) -> None:
    place = Place(
        tree,
        device(_ONE, {"net/eth0/": ""}),
        device(_TWO, {"sriov_totalvfs": "7\n", "sriov_drivers_autoprobe": "0\n"}),
        device(_THREE, _IN_FLAVOUR),
    )
    place.carry_out([place.plan(_ONE), place.plan(_TWO), place.plan(_THREE)])
    first = place.on_disk[0]
    assert set(first) == {_ONE, _TWO}, "nothing is to be done with the third"
    for id_, record in first.items():
        assert record.unfinished
        assert record.original == Binding("e1000e")
        assert (record.flavour, record.origin, record.intent) == ("vfio", "varlink", (_MODULE,))
        assert record.instance == place.host.sysfs.instance(id_)
        assert record.since.endswith("+00:00")
    assert (first[_ONE].interfaces, first[_ONE].sriov) == (("eth0",), None)
    assert (first[_TWO].interfaces, first[_TWO].sriov) == ((), Sriov(0, autoprobe=False, total=7))
    for (number, step), records in zip(place.told, place.on_disk, strict=True):
        assert records[(_ONE, _TWO)[number]].steps[-1] == step.text
    assert next(step.text for number, step in place.told if number == 0) == f"loading {_MODULE}"


def test_if_one_cannot_go_those_after_it_are_left_out_and_nothing_is_remembered_of_any(tree: Tree) -> None:
    place = Place(tree, device(_ONE), device(_TWO), device(_THREE, _IN_FLAVOUR))
    outcomes = place.carry_out([place.plan(_ONE), place.plan(_TWO), place.plan(_THREE)])
    assert [(outcome.kind, outcome.code) for outcome in outcomes] == [
        (Kind.REFUSED, Code.NO_CANDIDATE),
        (Kind.REFUSED, Code.TOGETHER),
        (Kind.ALREADY, None),
    ]
    assert outcomes[0].refusals[0].who == _MODULE
    assert str(_ONE) in outcomes[1].sentence
    assert outcomes[1].hint
    assert {number for number, _ in place.told} == {0}, "the others are not even begun"
    assert place.records() == {}
    assert place.untouched()


def test_if_one_cannot_go_those_before_it_are_taken_back(tree: Tree) -> None:
    """The first one has its native driver, and only its record does not know it: nothing is written either way."""
    place = Place(tree, device(_ONE), device(_TWO))
    kept = place.record(_ONE, unfinished=True)
    outcomes = place.carry_out([place.plan(_ONE, "default", kept), place.plan(_TWO)], kept, None)
    assert [(outcome.kind, outcome.code) for outcome in outcomes] == [
        (Kind.UNDONE, Code.TOGETHER),
        (Kind.REFUSED, Code.NO_CANDIDATE),
    ]
    assert (outcomes[0].driver, outcomes[0].candidate) == ("e1000e", None)
    assert str(_TWO) in outcomes[0].sentence
    assert place.records() == {}
    assert place.untouched()


def test_a_switch_that_did_not_begin_leaves_the_record_that_was_there(tree: Tree) -> None:
    place = Place(
        tree, device(_ONE, {"driver_override": "vfio-pci\n"}), device(_TWO, {"driver_override": "vfio-pci\n"})
    )
    kept = [place.record(id_, "other") for id_ in (_ONE, _TWO)]
    plans = [place.plan(record.device, record=record) for record in kept]
    assert not any(planned.already for planned in plans)
    outcomes = place.carry_out(plans, *kept)
    assert [outcome.code for outcome in outcomes] == [Code.NO_CANDIDATE, Code.TOGETHER]
    assert {record.unfinished for records in place.on_disk for record in records.values()} == {True}
    assert place.on_disk[0][_ONE].interfaces == ("eth7",), "the interfaces that it had when it was first touched"
    assert place.records() == {_ONE: kept[0], _TWO: kept[1]}
    assert place.untouched()


@pytest.mark.parametrize("before", [False, True], ids=["never touched", "with a record"])
def test_if_one_intent_cannot_be_written_down_nothing_is_begun_and_the_others_are_as_they_were(
    tree: Tree, before: bool
) -> None:
    many = {f"net/interface{number}/": "" for number in range(300)}
    place = Place(tree, device(_ONE, {"driver_override": "vfio-pci\n"}), device(_TWO, many))
    kept = place.record(_ONE, "other") if before else None
    plans = [place.plan(_ONE, record=kept), place.plan(_TWO)]
    with full_at(2000):
        outcomes = place.carry_out(plans, kept, None)
    assert [(outcome.kind, outcome.code) for outcome in outcomes] == [(Kind.REFUSED, Code.HOST)] * 2
    assert all(str(_TWO) in outcome.sentence and outcome.hint for outcome in outcomes)
    assert all(outcome.errno for outcome in outcomes)
    assert place.records() == ({_ONE: kept} if kept else {})
    assert place.told == []
    assert place.untouched()


def test_what_goes_back_to_the_driver_that_it_has_is_done_and_forgotten(tree: Tree) -> None:
    place = Place(tree, device(_ONE))
    kept = place.record(_ONE, unfinished=True)
    (outcome,) = place.carry_out([place.plan(_ONE, "default", kept)], kept)
    assert (outcome.kind, outcome.flavour, outcome.driver) == (Kind.SWITCHED, "default", "e1000e")
    assert place.records() == {}
    assert place.untouched()


def test_a_step_that_cannot_be_written_down_hinders_nothing(tree: Tree) -> None:
    place = Place(tree, device(_ONE))
    steps: list[Step] = []

    def tell(_number: int, step: Step) -> None:
        steps.append(step)
        assert place.records()[_ONE].steps == (), "there was no room for it"

    planned = place.plan(_ONE)
    size = len(replace(_intent_of(place, planned), steps=()).to_text())
    with full_at(size):
        (outcome,) = carry_out([planned], [None], place.host, tell, lambda: True)
    assert steps
    assert outcome.code is Code.NO_CANDIDATE
    assert place.records() == {}


def _intent_of(place: Place, planned: Plan) -> Record:
    """As it stands on disk at the first step."""
    place.carry_out([planned])
    return place.on_disk[0][planned.device.id]


# --- what comes to light on the way


def loaded(driver: str) -> dict[str, str]:
    """The candidate's module is there already, with a driver of this name."""
    return {f"sys/module/{_MODULE}/drivers/pci:{driver}": "-> ../../../bus/pci/drivers/x"}


def in_use(_planned: Plan) -> None:
    raise FlavourError(Code.IN_USE, "it is in use by now", "free it", findings=(_MOUNTED,))


_MOUNTED = Finding(Guard.MOUNTED, "nvme0n1p1 is mounted at /srv", "umount /srv")


def test_a_driver_that_came_after_the_snapshot_is_on_disk_as_the_original_before_it_loses_the_device(
    tree: Tree,
) -> None:
    driverless = {path: text for path, text in device(_ONE).items() if not path.endswith("/driver")}
    place = Place(tree, driverless, loaded("x"))
    planned = place.plan(_ONE)
    assert planned.original == Binding()
    tree(device(_TWO) | {f"sys/bus/pci/devices/{_ONE.name}/driver": "-> ../../drivers/e1000e"})
    place.carry_out([planned])
    steps = [step.what for _, step in place.told]
    assert place.on_disk[steps.index(What.UNBINDING)][_ONE].original == Binding("e1000e")


@pytest.mark.parametrize("pf", [False, True], ids=["a device", "a PF with VFs"])
def test_right_before_the_first_write_it_is_looked_again_and_who_uses_it_by_now_keeps_it(tree: Tree, pf: bool) -> None:
    files = {"sriov_totalvfs": "7\n", "sriov_numvfs": "1\n", "virtfn0": "-> ../x"} if pf else {}
    place = Place(tree, device(_ONE, files) | loaded("x"), device(_TWO))
    plans = [place.plan(_ONE), place.plan(_TWO)]
    outcomes = carry_out(plans, [None, None], place.host, lambda *_: None, look_again=in_use)
    assert [(outcome.kind, outcome.code) for outcome in outcomes] == [
        (Kind.REFUSED, Code.IN_USE),
        (Kind.REFUSED, Code.TOGETHER),
    ]
    assert (outcomes[0].sentence, outcomes[0].hint) == ("it is in use by now", "free it")
    assert outcomes[0].findings == (_MOUNTED,)
    assert place.records() == {}
    assert place.untouched()


def test_on_the_way_back_it_is_looked_again_too(tree: Tree) -> None:
    place = Place(tree, device(_ONE, {"driver_override": "vfio-pci\n"} | _IN_FLAVOUR))
    kept = replace(place.record(_ONE), original=Binding("igb"))
    place.host.journal.save(kept)
    planned = place.plan(_ONE, "default", kept)
    (outcome,) = carry_out([planned], [kept], place.host, lambda *_: None, look_again=in_use)
    assert (outcome.kind, outcome.code, outcome.findings) == (Kind.REFUSED, Code.IN_USE, (_MOUNTED,))
    assert place.records() == {_ONE: kept}
    assert place.untouched()


@pytest.mark.parametrize("gone", [False, True])
def test_what_cannot_be_read_on_the_way_back_is_an_outcome_and_hinders_no_other(tree: Tree, gone: bool) -> None:
    """The device may be unplugged at any instant."""
    place = Place(tree, device(_ONE, {"driver_override": "vfio-pci\n"}), device(_TWO, _IN_FLAVOUR))
    kept = place.record(_ONE, unfinished=True)
    plans = [place.plan(_ONE, "default", kept), place.plan(_TWO)]
    home = place.root / f"sys/bus/pci/devices/{_ONE.name}"
    (home / "driver_override").unlink()
    (home / "driver_override").mkdir()
    if gone:
        shutil.rmtree(home)
    outcomes = place.carry_out(plans, kept, None)
    assert [outcome.kind for outcome in outcomes] == [Kind.GONE if gone else Kind.BROKEN, Kind.ALREADY]


# --- VFs


def pf(numvfs: str | None = "0\n") -> dict[str, str]:
    """A PF that has no VFs."""
    files = {"sriov_totalvfs": "7\n", "sriov_drivers_autoprobe": "0\n"}
    return device(_ONE, files | ({"sriov_numvfs": numvfs} if numvfs else {}))


def pf_with_a_record(place: Place, vfs: int) -> Record:
    kept = replace(place.record(_ONE, unfinished=True), sriov=Sriov(vfs, autoprobe=True))
    place.host.journal.save(kept)
    return kept


def test_a_pf_that_is_back_gets_its_vfs_again_and_it_is_told_that_they_are_other_ones(tree: Tree) -> None:
    place = Place(tree, pf())
    kept = pf_with_a_record(place, 3)
    (outcome,) = place.carry_out([place.plan(_ONE, "default", kept)], kept)
    assert outcome.kind is Kind.SWITCHED
    (note,) = outcome.notes
    assert note.startswith("its 3 VFs were made anew")
    assert "MAC address" in note
    home = place.root / f"sys/bus/pci/devices/{_ONE.name}"
    assert [(home / name).read_text() for name in ("sriov_drivers_autoprobe", "sriov_numvfs")] == ["1\n", "3\n"]


def test_vfs_that_do_not_come_are_told_with_what_to_do(tree: Tree) -> None:
    place = Place(tree, pf(numvfs=None))
    kept = pf_with_a_record(place, 3)
    (outcome,) = place.carry_out([place.plan(_ONE, "default", kept)], kept)
    assert outcome.kind is Kind.SWITCHED
    assert outcome.notes == (
        "its 3 VFs did not come back: ENOENT (No such file or directory); try echo 3 > sriov_numvfs",
    )


def test_of_a_pf_that_had_no_vfs_nothing_is_told(tree: Tree) -> None:
    place = Place(tree, pf())
    kept = pf_with_a_record(place, 0)
    (outcome,) = place.carry_out([place.plan(_ONE, "default", kept)], kept)
    assert (outcome.kind, outcome.notes) == (Kind.SWITCHED, ())


# --- VFs that a rule wants


def test_if_vfs_cannot_be_made_it_has_as_many_as_before_and_the_kernels_answer_is_told(tree: Tree) -> None:
    place = Place(tree, pf(numvfs=None))
    (outcome,) = place.carry_out([place.plan(_ONE, "default", rule=True, vfs=5)])
    assert (outcome.kind, outcome.code, outcome.errno) == (Kind.UNDONE, Code.NO_SRIOV, 2)
    assert outcome.sentence == "5 VFs could not be made: No such file or directory (ENOENT)"
    assert outcome.refusals[0].who == "e1000e"
    assert outcome.driver == "e1000e"
    assert place.records() == {}


def test_what_there_was_is_on_disk_before_vfs_are_made_and_nothing_is_left_to_give_back_afterwards(tree: Tree) -> None:
    place = Place(tree, pf())

    def tell(_number: int, step: Step) -> None:
        (record,) = place.records().values()
        assert (record.flavour, record.original, record.unfinished) == ("default", Binding("e1000e"), True)
        assert record.sriov == Sriov(0, autoprobe=False, total=7)
        assert (record.intent, record.steps) == (("2 VFs",), (step.text,))
        for number in range(2):
            tree({f"sys/bus/pci/devices/{_ONE.name}/virtfn{number}": f"-> ../{_TWO.name}"})

    (outcome,) = carry_out([place.plan(_ONE, "default", rule=True, vfs=2)], [None], place.host, tell)
    assert (outcome.kind, outcome.code, outcome.notes) == (Kind.SWITCHED, None, ("2 VFs were made (it had 0)",))
    assert (outcome.flavour, outcome.driver) == ("default", "e1000e")
    assert place.records() == {}


def test_if_vfs_were_made_by_another_meanwhile_nothing_is_touched(tree: Tree) -> None:
    place = Place(tree, pf())
    planned = place.plan(_ONE, "default", rule=True, vfs=2)
    tree({f"sys/bus/pci/devices/{_ONE.name}/virtfn0": f"-> ../{_TWO.name}"})
    (outcome,) = place.carry_out([planned])
    assert (outcome.kind, outcome.code) == (Kind.REFUSED, Code.NO_SRIOV)
    assert "meanwhile" in outcome.sentence
    assert place.text("sriov_numvfs") == "0\n"


# --- devices that were parked


def parked(files: Mapping[str, str] | None = None) -> dict[str, str]:
    made = device(_ONE, {"driver_override": f"{PARKED}\n"} | dict(files or {}))
    return {path: text for path, text in made.items() if not path.endswith("/driver")} | _PROBE


_PROBE = {"sys/bus/pci/drivers_probe": ""}


def test_a_parked_device_that_nothing_could_be_loaded_for_gets_its_native_driver(tree: Tree) -> None:
    place = Place(tree, parked())

    def tell(number: int, step: Step) -> None:
        if step.text == "letting bus pci choose a driver":
            tree({f"sys/bus/pci/devices/{_ONE.name}/driver": "-> ../../drivers/e1000e"})

    planned = place.plan(_ONE, rule=True)
    (outcome,) = carry_out([planned], [None], place.host, tell)
    assert (outcome.kind, outcome.code, outcome.driver) == (Kind.UNDONE, Code.NO_CANDIDATE, "e1000e")
    assert outcome.parked
    assert "is not parked for it any more, driver e1000e" in str(outcome)
    assert place.text("driver_override").startswith("\n")
    assert place.records() == {}


def test_a_parked_device_that_is_refused_or_left_out_is_not_left_parked(tree: Tree) -> None:
    place = Place(tree, parked(), loaded("x"))
    planned = place.plan(_ONE, rule=True)
    (outcome,) = carry_out([planned], [None], place.host, lambda *_: None, look_again=in_use)
    assert (outcome.kind, outcome.code, outcome.findings) == (Kind.UNDONE, Code.IN_USE, (_MOUNTED,))
    assert place.text("driver_override").startswith("\n")
    assert outcome.notes == ("no native driver of this kernel takes it",)


def test_default_of_a_parked_device_is_what_the_bus_chooses(tree: Tree) -> None:
    place = Place(tree, parked())
    (outcome,) = place.carry_out([place.plan(_ONE, "default")])
    assert (outcome.kind, outcome.flavour, outcome.parked) == (Kind.SWITCHED, "default", True)
    assert outcome.notes == ("no native driver of this kernel takes it",)
    assert (place.root / "sys/bus/pci/drivers_probe").read_text() == _ONE.name
    assert place.text("driver_override").startswith("\n")
    assert place.records() == {}


def test_what_was_parked_and_is_half_switched_is_given_to_the_driver_that_the_bus_chooses(tree: Tree) -> None:
    place = Place(tree, parked())
    kept = replace(place.record(_ONE, unfinished=True), original=Binding(None, None, PARKED))
    place.host.journal.save(kept)
    (outcome,) = place.carry_out([place.plan(_ONE, "default", kept)], kept)
    assert outcome.kind is Kind.SWITCHED
    assert (place.root / "sys/bus/pci/drivers_probe").read_text() == _ONE.name
    assert place.records() == {}


# --- overrides that are mended


@pytest.mark.parametrize("with_record", [False, True])
def test_for_a_rule_the_override_of_what_is_in_the_flavour_names_its_driver_again(
    tree: Tree, with_record: bool
) -> None:
    place = Place(tree, device(_ONE, _IN_FLAVOUR))
    kept = place.record(_ONE) if with_record else None
    (outcome,) = place.carry_out([place.plan(_ONE, record=kept, rule=True)], kept)
    assert (outcome.kind, outcome.notes) == (
        Kind.ALREADY,
        ("its driver_override was cleared and names e1000e again",),
    )
    assert place.text("driver_override") == "e1000e\n"
    assert place.told[0][1].text == "writing e1000e to its driver_override again"
    records = place.records()
    assert set(records) == ({_ONE} if with_record else set())
    if kept:
        assert (records[_ONE].override, records[_ONE].original) == ("e1000e", kept.original)
        assert not records[_ONE].unfinished


def test_an_override_that_cannot_be_written_or_that_another_has_written_is_told(tree: Tree) -> None:
    place = Place(tree, device(_ONE, _IN_FLAVOUR), device(_TWO, _IN_FLAVOUR))
    plans = [place.plan(id_, rule=True) for id_ in (_ONE, _TWO)]
    (place.root / f"sys/bus/pci/devices/{_ONE.name}/driver_override").write_text("igb\n")
    (place.root / f"sys/bus/pci/devices/{_TWO.name}/driver_override").unlink()
    outcomes = place.carry_out(plans)
    assert [outcome.kind for outcome in outcomes] == [Kind.ALREADY, Kind.ALREADY]
    assert outcomes[0].notes == (
        "its driver_override was cleared, and another program has given its override to igb meanwhile",
    )
    assert outcomes[1].notes == (
        "its driver_override was cleared and could not be written again: ENOENT (No such file or directory)",
    )


# --- words


def test_who_is_left_out_is_told_for_whom_and_what_to_do() -> None:
    request, other = (Request(id_, "vfio", Origin.VARLINK) for id_ in (_ONE, _TWO))
    error = left_out(request, Outcome(other, Kind.REFUSED, "vfio"))
    assert error.code is Code.TOGETHER
    assert error.sentence == (f"{_ONE} is switched together with {_TWO} or not at all, and that one did not go")
    assert error.hint
    full = not_written(_ONE, OSError(28, "No space left on device"))
    assert (full.code, full.errno) == (Code.HOST, 28)
    assert full.sentence == (
        f"what was to be done with {_ONE} could not be written down: ENOSPC (No space left on device)"
    )
