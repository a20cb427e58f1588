# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is answered without touching the device: from a tree that is only read."""

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flavourd.answer import Answerer, Job, Rules, answer, explain
from flavourd.device import PARKED, Binding, DeviceId, Sriov
from flavourd.errors import Code, FlavourError
from flavourd.flavour import DEFAULT, Flavour, FlavourOnBus, Flavours, Universal
from flavourd.host import Host
from flavourd.journal import since_boot
from flavourd.keys import Keys
from flavourd.module_index import ModuleIndex
from flavourd.outcome import Kind, Outcome
from flavourd.plan import Plan
from flavourd.record import Record
from flavourd.request import Origin, Request
from flavourd.step import Step, What
from flavourd.use import SEVERITIES, Guard, Severity

from .conftest import Tree
from .full import full_at

_ID, _OTHER, _VF = (DeviceId("pci", name) for name in ("0000:01:00.0", "0000:01:00.1", "0000:01:10.0"))
_PATH, _OTHER_PATH = (f"sys/bus/pci/devices/{device.name}" for device in (_ID, _OTHER))
_FLAVOURS = Flavours({"vfio": Flavour("x", "vfio-dev", {"pci": FlavourOnBus(Universal("vfio_pci", "vfio-pci"))})})
_RULES = Rules(_FLAVOURS, ModuleIndex(), SEVERITIES)
_NATIVE = {
    f"{path}/{name}": text
    for path in (_PATH, _OTHER_PATH)
    for name, text in (
        ("driver_override", "(null)\n"),
        ("driver", "-> ../../drivers/e1000e"),
        ("modalias", "pci:x\n"),
        ("subsystem", "-> ../../../pci"),
    )
}
# In use: a PF with a VF.
_WITH_VF = {
    f"{_PATH}/sriov_totalvfs": "7\n",
    f"{_PATH}/virtfn0": f"-> ../{_VF.name}",
    f"sys/bus/pci/devices/{_VF.name}/physfn": f"-> ../{_ID.name}",
}
_GROUP = "sys/kernel/iommu_groups/7"
_IN_A_GROUP = {f"{path}/iommu_group": "-> ../../../../kernel/iommu_groups/7" for path in (_PATH, _OTHER_PATH)} | {
    f"{_GROUP}/devices/{id_.name}": f"-> ../../../../bus/pci/devices/{id_.name}" for id_ in (_ID, _OTHER)
}


def host(tree: Tree) -> Host:
    made = Host.at(tree(_NATIVE | {"proc/1/fd/": "", "proc/1/task/1/": ""}))  # all processes can be seen
    made.journal.prepare()
    return made


def no_step(_number: int, step: Step) -> None:
    pytest.fail(f"nothing was to be done, and this was told: {step.text}")


def keys_of(*devices: DeviceId) -> Keys:
    return Keys(frozenset(map(str, devices)))


def ask_all(where: Host, *requests: Request, rules: Rules = _RULES) -> list[Outcome]:
    return answer(requests, keys_of(*(request.device for request in requests)), where, rules, no_step)


def ask(where: Host, wanted: str, origin: Origin) -> Outcome:
    (told,) = ask_all(where, Request(_ID, wanted, origin))
    return told


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


def test_a_finished_switch_whose_end_was_not_written_down_is_written_dkeys_of(tree: Tree) -> None:
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
    (told,) = ask_all(where, Request(gone, "vfio", Origin.UEVENT))
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
    return explain(Request(_ID, wanted, Origin.VARLINK), where, _RULES)


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
        explain(Request(DeviceId("pci", "gone"), "vfio", Origin.VARLINK), where, _RULES)
    assert caught.value.code is Code.NO_DEVICE


# --- what the host uses the device for


def untouched(root: Path) -> dict[str, object]:
    """All but the locks."""
    locks = str(root / "run/flavourd/locks")
    return {path: found for path, found in everything(root).items() if not path.startswith(locks)}


def severities(**changed: Severity) -> Rules:
    return replace(_RULES, severities=SEVERITIES | {Guard(name): severity for name, severity in changed.items()})


def test_a_device_that_is_in_use_is_refused_and_nothing_is_touched(tree: Tree) -> None:
    where = host(tree)
    root = tree(_WITH_VF)
    before = untouched(root)
    told = ask(where, "vfio", Origin.VARLINK)
    assert (told.kind, told.code) == (Kind.REFUSED, Code.IN_USE)
    assert [finding.guard for finding in told.findings] == [Guard.VFS]
    assert "--force=vfs" in told.hint
    assert untouched(root) == before


def test_what_is_in_the_flavour_already_is_not_looked_at(tree: Tree) -> None:
    where = host(tree)
    tree({**_WITH_VF, f"{_PATH}/vfio-dev/vfio0/": ""})
    told = ask(where, "vfio", Origin.VARLINK)
    assert (told.kind, told.findings) == (Kind.ALREADY, ())


def test_explaining_shows_what_is_in_use_and_who_passes_over_it_reads_it_all_the_same(tree: Tree) -> None:
    where = host(tree)
    root = tree(_WITH_VF)
    before = everything(root)
    with pytest.raises(FlavourError) as caught:
        plan_for(where, "vfio")
    assert caught.value.code is Code.IN_USE
    assert [finding.guard for finding in caught.value.findings] == [Guard.VFS]
    asked = Request(_ID, "vfio", Origin.VARLINK)
    forced = explain(replace(asked, force=frozenset({"vfs"})), where, _RULES)
    warned = explain(asked, where, severities(vfs=Severity.WARNING))
    assert forced.findings == warned.findings == caught.value.findings
    assert explain(asked, where, severities(vfs=Severity.OFF)).findings == ()
    assert everything(root) == before


def test_who_shares_the_group_is_a_finding_only_where_it_is_an_error(tree: Tree) -> None:
    where = host(tree)
    tree(_IN_A_GROUP)
    asked = Request(_ID, "vfio", Origin.VARLINK)
    assert explain(asked, where, _RULES).findings == ()
    strict = severities(group=Severity.ERROR)
    with pytest.raises(FlavourError) as caught:
        explain(asked, where, strict)
    assert [finding.guard for finding in caught.value.findings] == [Guard.GROUP]
    assert str(_OTHER) in caught.value.findings[0].sentence
    with pytest.raises(FlavourError):  # who is only asked for in the same breath may yet stay where he is
        explain(replace(asked, beside=frozenset({_OTHER})), where, strict)
    assert explain(asked, where, strict, {_ID, _OTHER}).findings == ()
    assert explain(replace(asked, wanted="default"), where, strict).findings == ()


def test_a_way_back_that_takes_nothing_from_anybody_is_not_looked_at(tree: Tree) -> None:
    """Nothing is written here: the device has its driver, and only the record does not know it."""
    where = host(tree)
    tree(_WITH_VF)
    record(where, unfinished=True)
    told = ask(where, "default", Origin.PUT_BACK)
    assert (told.kind, told.driver, told.findings) == (Kind.SWITCHED, "e1000e", ())
    assert where.journal.record(_ID) is None


def test_who_takes_its_driver_from_a_device_is_looked_at_even_on_the_way_back(tree: Tree) -> None:
    where = host(tree)
    root = tree(_WITH_VF)
    made = replace(record(where, unfinished=True), original=Binding("igb"))
    where.journal.save(made)
    before = everything(root / "sys")
    told = ask(where, "default", Origin.PUT_BACK)
    assert (told.kind, told.code) == (Kind.REFUSED, Code.IN_USE)
    assert "still half switched" in told.headline
    assert where.journal.record(_ID) == made
    assert everything(root / "sys") == before


def test_only_those_of_the_same_transaction_are_sure_to_leave_the_group_with_it(tree: Tree) -> None:
    """Who is asked for in the same breath may be refused, and then the group could not be opened."""
    where = host(tree)
    tree({**_IN_A_GROUP, f"{_OTHER_PATH}/secondary_bus_number": "1\n"})
    strict = severities(group=Severity.ERROR)
    one, other = (
        Request(device, "vfio", Origin.VARLINK, beside=frozenset({beside}))
        for device, beside in ((_ID, _OTHER), (_OTHER, _ID))
    )
    (alone,) = ask_all(where, one, rules=strict)
    assert (alone.kind, alone.code) == (Kind.REFUSED, Code.IN_USE)
    assert [finding.guard for finding in alone.findings] == [Guard.GROUP]
    told = ask_all(where, replace(one, beside=frozenset()), other, rules=strict)
    assert [outcome.code for outcome in told] == [Code.TOGETHER, Code.BRIDGE]


# --- another device than the one that was meant


def test_what_stands_there_now_is_left_alone_if_another_device_was_meant(tree: Tree) -> None:
    where = host(tree)
    root = tree({f"{_PATH}/vfio-dev/vfio0/": ""})
    made = record(where)
    before = untouched(root)
    own = where.sysfs.instance(_ID)
    for wanted in ("vfio", "default"):
        (told,) = ask_all(where, Request(_ID, wanted, Origin.VARLINK, instance=own + 1))
        assert (told.kind, told.code) == (Kind.REFUSED, Code.NO_DEVICE)
        assert "another device" in told.sentence
        assert told.hint
    assert untouched(root) == before
    assert where.journal.record(_ID) == made
    for instance in (own, 0):  # the one that was meant, or nobody knows which was
        (told,) = ask_all(where, Request(_ID, "vfio", Origin.VARLINK, instance=instance))
        assert told.kind is Kind.ALREADY


def test_if_one_of_several_is_another_device_now_none_is_touched_and_what_was_half_done_is_put_back(
    tree: Tree,
) -> None:
    where = host(tree)
    before = everything(tree({}) / "sys")
    record(where, unfinished=True)
    own, other = (where.sysfs.instance(device) for device in (_ID, _OTHER))
    requests = [
        Request(device, "vfio", Origin.RECOVERY, instance=instance)
        for device, instance in ((_ID, own), (_OTHER, other + 1))
    ]
    steps: list[Step] = []
    told = answer(requests, keys_of(_ID, _OTHER), where, _RULES, lambda _, step: steps.append(step))
    assert [(outcome.kind, outcome.code) for outcome in told] == [
        (Kind.UNDONE, Code.TOGETHER),
        (Kind.REFUSED, Code.NO_DEVICE),
    ]
    assert where.journal.record(_ID) is None
    assert everything(tree({}) / "sys") == before


# --- no longer wanted


def test_what_the_kernel_let_go_so_late_that_it_is_not_wanted_any_more_is_not_even_begun(tree: Tree) -> None:
    where = host(tree)
    before = untouched(tree({}))
    (told,) = answer([Request(_ID, "vfio", Origin.VARLINK)], keys_of(_ID), where, _RULES, no_step, lambda: False)
    assert (told.kind, told.code) == (Kind.REFUSED, Code.STUCK)
    assert told.hint
    assert untouched(tree({})) == before


def test_what_is_done_already_is_told_so_however_late_it_is(tree: Tree) -> None:
    where = host(tree)
    tree({f"{_PATH}/vfio-dev/vfio0/": ""})
    record(where, unfinished=True)
    (told,) = answer([Request(_ID, "vfio", Origin.RECOVERY)], keys_of(_ID), where, _RULES, no_step, lambda: False)
    assert told.kind is Kind.ALREADY


# --- several together


def test_several_that_are_all_there_already_stay_there_whoever_uses_them_though_their_end_was_not_written_dkeys_of(
    tree: Tree,
) -> None:
    """Whoever began to use them after the last of them was switched does so rightly."""
    where = host(tree)
    tree({**_WITH_VF, **{f"{path}/vfio-dev/vfio0/": "" for path in (_PATH, _OTHER_PATH)}})
    made = replace(record(where, unfinished=True), original=Binding("igb"))
    for device in (_ID, _OTHER):
        where.journal.save(replace(made, device=device, instance=where.sysfs.instance(device)))
    told = ask_all(where, *(Request(device, "vfio", Origin.RECOVERY) for device in (_ID, _OTHER)))
    assert [(outcome.kind, outcome.findings) for outcome in told] == [(Kind.ALREADY, ())] * 2
    assert list(where.journal.unfinished()) == []
    assert len(list(where.journal.records())) == 2


def test_what_an_earlier_worker_has_switched_is_looked_at_if_it_would_be_taken_back_with_the_others(
    tree: Tree,
) -> None:
    where = host(tree)
    root = tree({**_WITH_VF, f"{_PATH}/vfio-dev/vfio0/": ""})
    made = replace(record(where, unfinished=True), original=Binding("igb"))
    where.journal.save(made)
    before = everything(root / "sys")
    told = ask_all(where, *(Request(device, "vfio", Origin.RECOVERY) for device in (_ID, _OTHER)))
    assert [outcome.code for outcome in told] == [Code.IN_USE, Code.TOGETHER]
    assert where.journal.record(_ID) == made
    assert everything(root / "sys") == before


def test_if_one_of_several_is_refused_none_is_touched_and_the_others_are_told_for_whom(tree: Tree) -> None:
    where = host(tree)
    root = tree({f"{_OTHER_PATH}/secondary_bus_number": "1\n"})
    before = untouched(root)
    asked = [Request(device, "vfio", Origin.VARLINK) for device in (_ID, _OTHER)]
    for requests in (asked, asked[::-1]):
        told = ask_all(where, *requests)
        assert [outcome.request for outcome in told] == requests
        codes = {outcome.request.device: (outcome.kind, outcome.code) for outcome in told}
        assert codes == {_ID: (Kind.REFUSED, Code.TOGETHER), _OTHER: (Kind.REFUSED, Code.BRIDGE)}
        (left_out,) = (outcome for outcome in told if outcome.code is Code.TOGETHER)
        assert str(_ID) in left_out.sentence
        assert str(_OTHER) in left_out.sentence
    assert untouched(root) == before


def test_if_several_are_refused_each_has_its_own_reason(tree: Tree) -> None:
    where = host(tree)
    tree({**_WITH_VF, f"{_OTHER_PATH}/secondary_bus_number": "1\n"})
    told = ask_all(where, *(Request(device, "vfio", Origin.VARLINK) for device in (_ID, _OTHER)))
    assert [outcome.code for outcome in told] == [Code.IN_USE, Code.BRIDGE]


def test_what_was_left_half_done_is_put_back_even_if_its_wish_cannot_be_fulfilled(tree: Tree) -> None:
    """Nothing is written here: the device has its driver, and only the record does not know it."""
    where = host(tree)
    root = tree({})
    before = everything(root / "sys")
    record(where, unfinished=True)
    steps: list[tuple[int, Step]] = []
    requests = [Request(_OTHER, "no", Origin.VARLINK), Request(_ID, "vfio", Origin.VARLINK)]
    told = answer(requests, keys_of(_ID, _OTHER), where, _RULES, lambda *step: steps.append(step))
    assert [(outcome.kind, outcome.code) for outcome in told] == [
        (Kind.REFUSED, Code.UNKNOWN_FLAVOUR),
        (Kind.UNDONE, Code.TOGETHER),
    ]
    assert told[1].driver == "e1000e"
    assert where.journal.record(_ID) is None
    assert {number for number, _ in steps} <= {1}
    assert everything(root / "sys") == before


@pytest.mark.parametrize("size", [0, 20, 200], ids=["no lock", "no record", "half a record"])
def test_what_cannot_be_written_down_is_not_begun(tree: Tree, size: int) -> None:
    where = host(tree)
    root = tree({})
    before = everything(root / "sys")
    with full_at(size):
        told = ask_all(where, *(Request(device, "vfio", Origin.VARLINK) for device in (_ID, _OTHER)))
    assert [(outcome.kind, outcome.code) for outcome in told] == [(Kind.REFUSED, Code.HOST)] * 2
    assert all("/run" in outcome.hint for outcome in told)
    assert everything(root / "sys") == before
    assert list(where.journal.records()) == []


@pytest.mark.parametrize("alone", [True, False])
def test_who_waits_for_an_earlier_worker_tells_so_for_every_device(tree: Tree, alone: bool) -> None:
    where = host(tree)
    tree({f"{path}/vfio-dev/vfio0/": "" for path in (_PATH, _OTHER_PATH)})
    steps: list[tuple[int, Step]] = []
    key = frozenset({"PF pci/0000:03:00.0"})
    with ExitStack() as earlier:
        earlier.enter_context(where.journal.locked(Keys(alone=key) if alone else Keys(shared=key)))

        def tell(number: int, step: Step) -> None:
            steps.append((number, step))
            earlier.close()

        requests = [Request(device, "vfio", Origin.VARLINK) for device in (_ID, _OTHER)]
        told = answer(requests, keys_of(_ID).union(Keys(key)), where, _RULES, tell)
    assert [outcome.kind for outcome in told] == [Kind.ALREADY, Kind.ALREADY]
    who = (
        f"worker {os.getpid()} of an earlier flavourd"
        if alone
        else "workers of an earlier flavourd, which lslocks names"
    )
    waiting = Step(What.BEGUN, f"waiting for {who}", os.getpid() if alone else 0)
    assert steps == [(0, waiting), (1, waiting)]


# --- what a rule of the policy asks


def ruled(wanted: str = "vfio", *, device: DeviceId = _ID, **fields: Any) -> Request:
    return Request(device, wanted, Origin.POLICY, rule="a.yaml:3", **fields)


def test_what_a_finding_means_for_a_rule_says_the_rule(tree: Tree) -> None:
    where = host(tree)
    tree(_WITH_VF)
    for severity in (Severity.WARNING, Severity.OFF):
        planned = explain(ruled(guards=((Guard.VFS, severity),)), where, _RULES)
        assert [found.guard for found in planned.findings] == [Guard.VFS] * (severity is Severity.WARNING)
    lax = severities(vfs=Severity.OFF)
    with pytest.raises(FlavourError) as caught:
        explain(ruled(guards=((Guard.VFS, Severity.ERROR),)), where, lax)
    assert caught.value.code is Code.IN_USE
    assert lax.severities_for(ruled(guards=((Guard.TABLE, Severity.OFF),))) == lax.severities


def test_who_shares_the_group_is_an_error_for_a_rule_that_says_so(tree: Tree) -> None:
    where = host(tree)
    tree(_IN_A_GROUP)
    with pytest.raises(FlavourError) as caught:
        explain(ruled(guards=((Guard.GROUP, Severity.ERROR),)), where, _RULES)
    assert [found.guard for found in caught.value.findings] == [Guard.GROUP]


def parked(tree: Tree, **files: str) -> Host:
    """The first device waits for its flavour."""
    root = tree({**_NATIVE, "sys/bus/pci/drivers_probe": ""})
    (root / _PATH / "driver").unlink()
    (root / _PATH / "driver_override").write_text(f"{PARKED}\n")
    tree({f"{_PATH}/{name}": text for name, text in files.items()})
    made = Host.at(root)
    made.journal.prepare()
    return made


def waits(where: Host) -> bool:
    return where.sysfs.override(_ID) == PARKED


def told_of(where: Host, *requests: Request) -> list[Outcome]:
    return answer(requests, keys_of(*(request.device for request in requests)), where, _RULES, lambda *_: None)


def test_what_was_parked_for_a_rule_that_cannot_have_it_is_left_to_the_bus(tree: Tree) -> None:
    where = parked(tree, secondary_bus_number="1\n")
    (told,) = told_of(where, ruled())
    assert (told.kind, told.code, told.parked) == (Kind.UNDONE, Code.BRIDGE, True)
    assert "is not parked for it any more" in told.headline
    assert not waits(where)
    assert (tree({}) / "sys/bus/pci/drivers_probe").read_text() == _ID.name
    assert list(where.journal.records()) == []


def test_what_was_parked_is_left_to_the_bus_if_another_of_its_transaction_is_refused(tree: Tree) -> None:
    where = parked(tree)
    told = told_of(where, ruled(), ruled("no", device=_OTHER))
    assert [(outcome.kind, outcome.code) for outcome in told] == [
        (Kind.UNDONE, Code.TOGETHER),
        (Kind.REFUSED, Code.UNKNOWN_FLAVOUR),
    ]
    assert not waits(where)


def test_of_a_driver_that_was_faster_only_the_override_is_cleared(tree: Tree) -> None:
    where = parked(tree, driver="-> ../../drivers/e1000e", secondary_bus_number="1\n")
    (told,) = told_of(where, ruled())
    assert (told.kind, told.code, told.driver, told.parked) == (Kind.UNDONE, Code.BRIDGE, "e1000e", False)
    assert not waits(where)
    assert (tree({}) / "sys/bus/pci/drivers_probe").read_text() == ""


def test_who_asks_for_himself_and_is_refused_does_not_take_it_from_the_rule(tree: Tree) -> None:
    where = parked(tree)
    (told,) = told_of(where, Request(_ID, "no", Origin.VARLINK))
    assert told.kind is Kind.REFUSED
    assert waits(where)


def test_what_is_parked_is_not_waited_for_and_what_has_just_come_is(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    where = parked(tree)
    explain(ruled(), where, _RULES)
    assert pauses == []
    (tree({}) / _PATH / "driver_override").write_text("(null)\n" + "\n" * 8)

    def settle(seconds: float) -> None:
        pauses.append(seconds)
        tree({f"{_PATH}/driver": "-> ../../drivers/e1000e"})

    monkeypatch.setattr("time.sleep", settle)
    assert explain(ruled(), where, _RULES).original == Binding("e1000e")
    assert len(pauses) == 1


# --- VFs that a rule wants


_FREE_VF = _WITH_VF | {f"{_PATH}/sriov_numvfs": "1\n", f"sys/bus/pci/devices/{_VF.name}/driver_override": "(null)\n"}
_USED_VF = _FREE_VF | {
    f"sys/bus/pci/devices/{_VF.name}/driver": "-> ../../drivers/vfio-pci",
    "sys/bus/pci/drivers/vfio-pci/module": "-> ../../../../module/vfio_pci",
    "sys/module/vfio_pci/refcnt": "1\n",
    f"sys/bus/pci/devices/{_VF.name}/vfio-dev/vfio0/": "",
    f"sys/bus/pci/devices/{_VF.name}/iommu_group": "-> ../../../../kernel/iommu_groups/9",
    "proc/9/comm": "qemu\n",
    "proc/9/cgroup": "0::/machine.slice/vm.scope\n",
    "proc/9/task/9/": "",
    "proc/9/fd/4": "-> /dev/vfio/9",
}


def test_vfs_are_not_made_anew_while_one_of_them_is_in_use_whoever_passes_over_guards(tree: Tree) -> None:
    where = host(tree)
    root = tree(_USED_VF)
    before = untouched(root)
    asked = ruled("default", vfs=4, force=frozenset(Guard), guards=tuple((guard, Severity.OFF) for guard in Guard))
    (told,) = ask_all(where, asked)
    assert (told.kind, told.code) == (Kind.REFUSED, Code.VFS_IN_USE)
    assert told.findings[0].guard is Guard.HELD
    assert told.findings[0].sentence.startswith(f"its VF {_VF}: ")
    assert untouched(root) == before
    (told,) = ask_all(where, ruled("default", vfs=1))
    assert told.kind is Kind.ALREADY, "there are as many as there shall be"


def test_of_a_pf_that_keeps_its_driver_only_the_vfs_are_looked_at(tree: Tree) -> None:
    where = host(tree)
    tree(_FREE_VF)
    planned = explain(ruled("default", vfs=4), where, _RULES)
    assert (planned.vfs, planned.findings) == (4, ())


def test_what_an_interrupted_change_of_vfs_has_made_is_not_removed_while_it_is_in_use(tree: Tree) -> None:
    where = host(tree)
    root = tree(_USED_VF)
    made = replace(record(where, unfinished=True), flavour="default", sriov=Sriov(0, total=7), override=None)
    where.journal.save(made)
    before = everything(root / "sys")
    told = ask(where, "default", Origin.PUT_BACK)
    assert (told.kind, told.code) == (Kind.REFUSED, Code.VFS_IN_USE)
    assert where.journal.record(_ID) == made
    assert everything(root / "sys") == before


def test_an_interrupted_change_of_vfs_ends_with_what_was_before(tree: Tree) -> None:
    where = host(tree)
    root = tree(_FREE_VF | {f"{_PATH}/sriov_drivers_autoprobe": "0\n"})
    made = replace(record(where, unfinished=True), flavour="default", sriov=Sriov(0, total=7), override=None)
    where.journal.save(made)
    (told,) = answer([Request(_ID, "default", Origin.PUT_BACK)], keys_of(_ID), where, _RULES, lambda *_: None)
    assert (told.kind, told.driver) == (Kind.SWITCHED, "e1000e")
    assert [(root / _PATH / f"sriov_{name}").read_text() for name in ("numvfs", "drivers_autoprobe")] == ["0\n", "1\n"]
    assert where.journal.record(_ID) is None


def test_a_wish_for_vfs_that_had_not_begun_when_the_daemon_died_is_not_overtaken(tree: Tree) -> None:
    where = host(tree)
    tree(_FREE_VF)
    (told,) = answer(
        [replace(ruled("default", vfs=3), origin=Origin.RECOVERY)], keys_of(_ID), where, _RULES, lambda *_: None
    )
    assert told.code is not Code.OVERTAKEN


# --- one job after the other


def test_a_worker_keeps_no_descriptor_of_its_jobs(tree: Tree) -> None:
    where = host(tree)
    tree({"dev/kmsg": ""})
    work = Answerer(where, _RULES)
    before = len(os.listdir("/proc/self/fd"))
    for wanted in ("vfio", DEFAULT, "vfio"):
        (outcome,) = work(Job((Request(_ID, wanted, Origin.VARLINK),), keys_of(_ID)), lambda _step: None)
        assert outcome.kind in (Kind.UNDONE, Kind.REFUSED, Kind.ALREADY)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_job_is_wanted_until_its_time_is_over() -> None:
    job = Job((Request(_ID, "vfio", Origin.VARLINK),), keys_of(_ID))
    wanted = [replace(job, until=until).wanted() for until in (None, since_boot() + 60, since_boot() - 1)]
    assert wanted == [True, True, False]
