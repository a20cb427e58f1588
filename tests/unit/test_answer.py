# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is answered without touching the device: from a tree that is only read."""

from pathlib import Path

import pytest

from flavourd.answer import Host, answer, explain
from flavourd.device import Binding, DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.flavour import Flavour, FlavourOnBus, Flavours, Universal
from flavourd.journal import Journal
from flavourd.kmod import Kmod
from flavourd.module_index import ModuleIndex
from flavourd.outcome import Kind, Outcome
from flavourd.plan import Plan
from flavourd.record import Record
from flavourd.request import Origin, Request
from flavourd.sysfs import Sysfs

from .conftest import Tree

_ID = DeviceId("pci", "0000:01:00.0")
_PATH = f"sys/bus/pci/devices/{_ID.name}"
_FLAVOURS = Flavours({"vfio": Flavour("x", "vfio-dev", {"pci": FlavourOnBus(Universal("vfio_pci", "vfio-pci"))})})
_NATIVE = {
    f"{_PATH}/driver_override": "(null)\n",
    f"{_PATH}/driver": "-> ../../drivers/e1000e",
    f"{_PATH}/modalias": "pci:x\n",
}


def host(tree: Tree) -> Host:
    root = tree(_NATIVE)
    made = Host(Sysfs(root), Kmod(root), Journal(root))
    made.journal.prepare()
    return made


def ask(where: Host, wanted: str, origin: Origin) -> Outcome:
    return answer(Request(_ID, wanted, origin), where, _FLAVOURS, ModuleIndex())


def record(where: Host, *, instance: int | None = None, unfinished: bool = False) -> Record:
    own = where.sysfs.instance(_ID) if instance is None else instance
    made = Record(_ID, own, Binding("e1000e"), "vfio", override="vfio-pci", unfinished=unfinished)
    where.journal.save(made)
    return made


@pytest.mark.parametrize(("wanted", "origin"), [("default", Origin.PUT_BACK), ("default", Origin.RECOVERY)])
def test_what_an_earlier_run_left_open_is_overtaken_if_there_is_no_record(
    tree: Tree, wanted: str, origin: Origin
) -> None:
    where = host(tree)
    # Held, as if somebody else had brought it there: `default` would let the bus choose.
    tree({f"{_PATH}/vfio-dev/vfio0/": ""})
    told = ask(where, wanted, origin)
    assert (told.kind, told.code) == (Kind.REFUSED, Code.OVERTAKEN)


@pytest.mark.parametrize(("wanted", "origin"), [("default", Origin.PUT_BACK), ("vfio", Origin.RECOVERY)])
def test_what_an_earlier_run_left_open_is_overtaken_if_its_record_is_finished(
    tree: Tree, wanted: str, origin: Origin
) -> None:
    where = host(tree)
    made = record(where)
    told = ask(where, wanted, origin)
    assert (told.kind, told.code) == (Kind.REFUSED, Code.OVERTAKEN)
    assert where.journal.record(_ID) == made


def test_what_had_succeeded_before_the_answer_is_told_as_such(tree: Tree) -> None:
    where = host(tree)
    tree({f"{_PATH}/vfio-dev/vfio0/": ""})
    record(where)
    told = ask(where, "vfio", Origin.RECOVERY)
    assert (told.kind, told.proof) == (Kind.ALREADY, ("vfio0",))


def test_a_record_of_other_hardware_is_dropped_and_does_not_count(tree: Tree) -> None:
    where = host(tree)
    record(where, instance=1, unfinished=True)
    assert ask(where, "default", Origin.UEVENT).kind is Kind.ALREADY
    assert where.journal.record(_ID) is None


def test_a_finished_switch_whose_end_was_not_written_down_is_written_down(tree: Tree) -> None:
    where = host(tree)
    tree({f"{_PATH}/vfio-dev/vfio0/": ""})
    record(where, unfinished=True)
    assert ask(where, "vfio", Origin.RECOVERY).kind is Kind.ALREADY
    kept = where.journal.record(_ID)
    assert kept is not None
    assert not kept.unfinished


def test_a_corrupt_record_is_told_and_set_aside(tree: Tree) -> None:
    where = host(tree)
    root = tree({f"run/flavourd/records/pci:{_ID.name}.json": "{"})
    assert ask(where, "vfio", Origin.UEVENT).code is Code.RECORD
    assert list((root / "run/flavourd/records").glob("*.corrupt"))
    assert ask(where, "default", Origin.UEVENT).kind is Kind.ALREADY


def test_a_device_that_is_not_there_is_told(tree: Tree) -> None:
    where = host(tree)
    gone = DeviceId("pci", "0000:ff:00.0")
    told = answer(Request(gone, "vfio", Origin.UEVENT), where, _FLAVOURS, ModuleIndex())
    assert (told.kind, told.code) == (Kind.REFUSED, Code.NO_DEVICE)


def everything(root: Path) -> dict[str, object]:
    """All that is in a tree, and when it was last changed."""
    return {
        str(path): (
            path.lstat().st_mtime_ns,
            path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes(),
        )
        for path in root.rglob("*")
    }


def plan_for(where: Host, wanted: str) -> Plan:
    return explain(Request(_ID, wanted, Origin.VARLINK), where, _FLAVOURS, ModuleIndex())


def test_explaining_touches_nothing(tree: Tree) -> None:
    where = host(tree)
    root = tree({})
    for made in (None, record(where), record(where, instance=1), record(where, unfinished=True)):
        before = everything(root)
        planned = plan_for(where, "vfio")
        assert [candidate.module for candidate in planned.candidates] == ["vfio_pci"]
        assert everything(root) == before, made


def test_explaining_touches_no_corrupt_record_either_and_says_what_would_become_of_it(tree: Tree) -> None:
    where = host(tree)
    root = tree({f"run/flavourd/records/pci:{_ID.name}.json": "{"})
    before = everything(root)
    for _ in range(2):
        with pytest.raises(FlavourError) as caught:
            plan_for(where, "vfio")
        assert caught.value.code is Code.RECORD
        assert "will be set aside" in caught.value.hint
    assert everything(root) == before


def test_explaining_says_what_an_answer_would_do(tree: Tree) -> None:
    where = host(tree)
    assert plan_for(where, "default").already
    record(where, instance=1)  # of other hardware
    assert plan_for(where, "default").already
    tree({f"{_PATH}/vfio-dev/vfio0/": ""})
    assert plan_for(where, "vfio").already
    assert plan_for(where, "default").target is None
    record(where)
    assert plan_for(where, "default").target == Binding("e1000e")


def test_explaining_what_cannot_be_is_refused(tree: Tree) -> None:
    where = host(tree)
    with pytest.raises(FlavourError) as caught:
        plan_for(where, "no")
    assert caught.value.code is Code.UNKNOWN_FLAVOUR
    with pytest.raises(FlavourError) as caught:
        explain(Request(DeviceId("pci", "gone"), "vfio", Origin.VARLINK), where, _FLAVOURS, ModuleIndex())
    assert caught.value.code is Code.NO_DEVICE
