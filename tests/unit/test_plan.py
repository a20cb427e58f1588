# SPDX-License-Identifier: LGPL-2.1-or-later
"""From request, snapshot and record to what would be done."""

from dataclasses import replace
from typing import Any

import pytest

from flavourd.device import PARKED, Binding, Device, DeviceId, Sriov
from flavourd.errors import Code, FlavourError
from flavourd.flavour import Flavour, FlavourOnBus, Flavours, Universal
from flavourd.module_index import Alias, ModuleIndex
from flavourd.outcome import Skip
from flavourd.plan import Plan, guarded, plan
from flavourd.record import Record
from flavourd.request import Origin, Request
from flavourd.use import SEVERITIES, Finding, Guard, Process, Severity

_ID = DeviceId("pci", "0000:01:00.0")
_ALIAS = "v00008086d000010D3sv00008086sd00000000bc02sc00i00"
_FLAVOURS = Flavours(
    {
        "vfio": Flavour("x", "vfio-dev", {"pci": FlavourOnBus(Universal("vfio_pci", "vfio-pci"), "vfio_pci", True)}),
        "twin": Flavour("x", "vfio-dev", {"pci": FlavourOnBus(Universal("twin", "twin"))}),
        "other": Flavour("x", "other-dev", {"pci": FlavourOnBus(Universal("other", "other"))}),
    }
)
_NATIVE = Binding("e1000e", "e1000e")
_HELD = Binding("vfio-pci", "vfio_pci", "vfio-pci")
_DEVICE = Device(_ID, _NATIVE, instance=5, modalias=f"pci:{_ALIAS}", iommu_group="7")
_IN_VFIO = replace(_DEVICE, binding=_HELD, proofs=(("vfio-dev", ("vfio0",)), ("other-dev", ())))
_RECORD = Record(_ID, 5, _NATIVE, "vfio", override="vfio-pci")
_BEGUN = replace(_RECORD, override=None, unfinished=True)
_INDEX = ModuleIndex()


def decide(
    wanted: str,
    device: Device = _DEVICE,
    record: Record | None = None,
    *,
    origin: Origin = Origin.UEVENT,
    index: ModuleIndex = _INDEX,
) -> Plan:
    return plan(Request(device.id, wanted, origin), device, _FLAVOURS, index, record)


def error(
    wanted: str, device: Device = _DEVICE, *, origin: Origin = Origin.UEVENT, index: ModuleIndex = _INDEX
) -> FlavourError:
    with pytest.raises(FlavourError) as caught:
        decide(wanted, device, origin=origin, index=index)
    assert caught.value.hint, "every error of a plan says what to do next"
    return caught.value


def modules(planned: Plan) -> list[str]:
    return [candidate.module for candidate in planned.candidates]


# --- what cannot be done


def test_a_request_without_a_flavour_is_told_which_there_are() -> None:
    refused = error("")
    assert refused.code is Code.EMPTY_FLAVOUR
    assert refused.hint == "known flavours: default, other, twin, vfio"


def test_a_flavour_that_nobody_knows_is_refused() -> None:
    assert error("vfoi").code is Code.UNKNOWN_FLAVOUR
    assert error("VFIO").code is Code.UNKNOWN_FLAVOUR


def test_a_modalias_with_an_unknown_prefix_is_refused() -> None:
    assert error(f"vfio_cdx:{_ALIAS}", origin=Origin.MODALIAS).code is Code.UNKNOWN_FLAVOUR
    assert error(f":{_ALIAS}", origin=Origin.MODALIAS).code is Code.UNKNOWN_FLAVOUR


@pytest.mark.parametrize("rest", ["v000015B3d0000101E", _ALIAS + "0", "*", "", _ALIAS.lower()])
def test_a_modalias_of_other_hardware_is_refused(rest: str) -> None:
    refused = error(f"vfio_pci:{rest}", origin=Origin.MODALIAS)
    assert refused.code is Code.FOREIGN_MODALIAS
    assert f"pci:{_ALIAS}" in refused.hint


def test_a_modalias_for_a_device_that_has_none_is_refused_in_words() -> None:
    refused = error(f"vfio_pci:{_ALIAS}", replace(_DEVICE, modalias=None), origin=Origin.MODALIAS)
    assert refused.code is Code.FOREIGN_MODALIAS
    assert "None" not in refused.hint


def test_a_device_without_an_override_is_refused_and_the_one_below_it_named() -> None:
    interface = Device(DeviceId("net", "eth0"), Binding(), overridable=False, parent=_ID)
    refused = error("vfio", interface)
    assert refused.code is Code.NO_OVERRIDE
    assert str(_ID) in refused.hint
    assert error("default", interface).code is Code.NO_OVERRIDE
    assert error("vfio", replace(interface, parent=None)).code is Code.NO_OVERRIDE


@pytest.mark.parametrize("wanted", ["vfio", "default"])
def test_a_device_that_a_driver_is_still_letting_go_is_refused(wanted: str) -> None:
    assert error(wanted, replace(_DEVICE, binding=Binding(), releasing=True)).code is Code.RELEASING


def test_a_flavour_that_does_not_know_the_bus_is_refused() -> None:
    refused = error("vfio", replace(_DEVICE, id=DeviceId("platform", "x")))
    assert refused.code is Code.FLAVOUR_NOT_ON_BUS
    assert "pci" in refused.hint


def test_a_bridge_is_refused() -> None:
    assert error("vfio", replace(_DEVICE, bridge=True)).code is Code.BRIDGE


def test_a_device_without_an_iommu_group_is_refused_where_the_flavour_needs_one() -> None:
    ungrouped = replace(_DEVICE, iommu_group=None)
    assert error("vfio", ungrouped).code is Code.NO_IOMMU_GROUP
    assert modules(decide("other", ungrouped)) == ["other"]


def test_without_an_iommu_group_the_unsafe_mode_of_vfio_is_enough() -> None:
    ungrouped = replace(_DEVICE, iommu_group=None)
    assert modules(decide("vfio", replace(ungrouped, noiommu=True))) == ["vfio_pci"]
    assert modules(decide("vfio", ungrouped, index=ModuleIndex(noiommu=True))) == ["vfio_pci"]


def test_without_a_single_candidate_every_reason_is_told() -> None:
    aliases = (Alias("vfio_pci:v00008086d*", "variant"), Alias("vfio_pci:v000015B3d*", "stranger"))
    index = ModuleIndex(aliases, blacklisted=frozenset({"vfio_pci", "variant"}))
    refused = error("vfio", index=index)
    assert refused.code is Code.NO_CANDIDATE
    for reason in ("variant is blacklisted", "vfio_pci is blacklisted", "stranger has a table"):
        assert reason in refused.sentence


# --- into a flavour


def test_a_plan_has_candidates_skips_and_the_way_back() -> None:
    aliases = (Alias("vfio_pci:v00008086d*", "variant"), Alias("vfio_pci:v000015B3d*", "stranger"))
    planned = decide("vfio", index=ModuleIndex(aliases))
    assert modules(planned) == ["variant", "vfio_pci"]
    assert planned.skips == (Skip("stranger", "has a table that does not list this device"),)
    assert (planned.flavour, planned.proof, planned.already) == ("vfio", "vfio-dev", False)
    assert planned.original == planned.undo == _NATIVE
    assert planned.notes == ()


def test_a_modalias_names_the_flavour_by_its_prefix() -> None:
    planned = decide(f"vfio_pci:{_ALIAS}", origin=Origin.MODALIAS)
    assert planned.flavour == "vfio"
    assert modules(planned) == ["vfio_pci"]


@pytest.mark.parametrize("origin", Origin)
def test_a_modalias_is_known_by_its_colon_whoever_asks(origin: Origin) -> None:
    assert decide(f"vfio_pci:{_ALIAS}", origin=origin).flavour == "vfio"


def test_what_the_module_tables_could_not_tell_is_noted() -> None:
    assert decide("vfio", index=ModuleIndex(warnings=("a", "b"))).notes == (
        "a: variants may be missed",
        "b: variants may be missed",
    )


@pytest.mark.parametrize("record", [None, _RECORD, replace(_RECORD, override="gone"), _BEGUN])
def test_a_device_that_is_in_the_flavour_is_left_alone(record: Record | None) -> None:
    planned = decide("vfio", _IN_VFIO, record)
    assert planned.already
    assert planned.candidates == ()


def test_being_in_the_flavour_is_no_matter_of_blacklists_or_groups() -> None:
    index = ModuleIndex(blacklisted=frozenset({"vfio_pci"}))
    assert decide("vfio", replace(_IN_VFIO, iommu_group=None), index=index).already


def test_a_driver_without_the_proof_is_not_in_the_flavour() -> None:
    assert not decide("vfio", replace(_IN_VFIO, proofs=(("vfio-dev", ()),))).already


def test_a_device_of_another_flavour_is_not_in_this_one() -> None:
    planned = decide("other", _IN_VFIO, _RECORD)
    assert not planned.already
    assert modules(planned) == ["other"]


def test_where_two_flavours_have_the_same_proof_the_record_tells_them_apart() -> None:
    assert modules(decide("twin", _IN_VFIO, _RECORD)) == ["twin"]
    assert decide("vfio", _IN_VFIO, _RECORD).already
    assert decide("twin", _IN_VFIO).already  # without a record nobody knows


# --- roots: what `default` returns to (original) and where a failure goes back to (undo)


@pytest.mark.parametrize(
    ("device", "record", "original", "undo"),
    [
        pytest.param(_DEVICE, None, _NATIVE, _NATIVE, id="never touched"),
        pytest.param(
            replace(_DEVICE, binding=Binding("e1000e", None, "mine")),
            None,
            Binding("e1000e", None, "mine"),
            Binding("e1000e", None, "mine"),
            id="a foreign override is part of the original",
        ),
        pytest.param(
            replace(_DEVICE, binding=Binding(None, None, "vfio-pci")),
            _RECORD,
            _NATIVE,
            Binding(None, None, "vfio-pci"),
            id="ours still, though the driver let go",
        ),
        pytest.param(_DEVICE, _RECORD, _NATIVE, _NATIVE, id="stale: our override is gone"),
        pytest.param(
            replace(_DEVICE, binding=Binding("pci-stub", None, "pci-stub")),
            _RECORD,
            Binding("pci-stub", None, "pci-stub"),
            Binding("pci-stub", None, "pci-stub"),
            id="stale: somebody else has taken it",
        ),
        pytest.param(
            replace(_DEVICE, binding=Binding(None, None, "variant")),
            _BEGUN,
            _NATIVE,
            _NATIVE,
            id="interrupted half-way",
        ),
        pytest.param(
            _DEVICE, replace(_BEGUN, original=Binding("x", "x")), Binding("x", "x"), Binding("x", "x"), id="begun"
        ),
    ],
)
def test_the_roots_of_a_switch_into_a_flavour(
    device: Device, record: Record | None, original: Binding, undo: Binding
) -> None:
    planned = decide("vfio", device, record)
    assert (planned.original, planned.undo) == (original, undo)
    assert not planned.already


def test_from_one_flavour_into_another_the_first_original_is_kept_and_a_failure_goes_back_to_the_first_flavour() -> (
    None
):
    planned = decide("other", _IN_VFIO, _RECORD)
    assert (planned.original, planned.undo) == (_NATIVE, _HELD)


# --- back to default


def test_default_with_a_record_goes_back_to_the_original_and_a_failure_into_the_flavour() -> None:
    planned = decide("default", _IN_VFIO, _RECORD)
    assert not planned.already
    assert planned.candidates == ()
    assert planned.target == planned.original == _NATIVE
    assert planned.undo == _HELD
    assert (planned.flavour, planned.proof) == ("default", "vfio-dev")


def test_default_without_a_record_lets_the_bus_choose() -> None:
    planned = decide("default", _IN_VFIO)
    assert not planned.already
    assert planned.target is None
    assert planned.undo == _HELD


def test_default_gives_a_foreign_override_back_as_it_was() -> None:
    original = Binding("e1000e", "e1000e", "mine")
    assert decide("default", _IN_VFIO, replace(_RECORD, original=original)).target == original


def test_default_of_a_device_that_is_held_counts_even_if_somebody_changed_the_override() -> None:
    device = replace(_IN_VFIO, binding=replace(_HELD, override=None))
    assert decide("default", device, _RECORD).target == _NATIVE


def test_default_of_a_device_that_our_driver_has_lost_goes_back_while_our_override_stands() -> None:
    planned = decide("default", replace(_DEVICE, binding=Binding(None, None, "vfio-pci")), _RECORD)
    assert not planned.already
    assert planned.target == _NATIVE


def test_default_after_an_interrupted_switch_goes_back_whatever_stands_there() -> None:
    for binding in (Binding(), Binding(None, None, "variant"), _NATIVE):
        planned = decide("default", replace(_DEVICE, binding=binding), _BEGUN)
        assert not planned.already
        assert planned.target == planned.undo == _NATIVE


@pytest.mark.parametrize("record", [None, _RECORD])
@pytest.mark.parametrize(
    "binding", [_NATIVE, Binding("e1000e", "e1000e", "mine"), Binding("pci-stub", None, "pci-stub")]
)
def test_default_of_what_is_not_ours_touches_nothing(binding: Binding, record: Record | None) -> None:
    planned = decide("default", replace(_DEVICE, binding=binding), record)
    assert planned.already
    assert planned.target is None
    assert planned.notes == ()


def test_default_of_a_driverless_device_tells_how_to_get_a_driver() -> None:
    planned = decide("default", replace(_DEVICE, binding=Binding()))
    assert planned.already
    assert planned.notes == (
        "it has no driver; echo 0000:01:00.0 > /sys/bus/pci/drivers_probe lets the kernel choose one",
    )


def test_default_needs_neither_group_nor_candidates() -> None:
    device = replace(_IN_VFIO, iommu_group=None, bridge=True, modalias=None)
    index = ModuleIndex(blacklisted=frozenset({"vfio_pci"}), warnings=("x",))
    assert decide("default", device, _RECORD, index=index).target == _NATIVE


def test_an_absent_override_is_no_sign_that_a_driver_bound_by_hand_is_ours() -> None:
    broken = replace(_RECORD, original=Binding("nvidia", "nvidia"), override=None)
    by_hand = replace(_DEVICE, binding=Binding("nouveau", "nouveau"))
    assert decide("default", by_hand, broken).already
    assert decide("vfio", by_hand, broken).original == by_hand.binding
    driverless = replace(_DEVICE, binding=Binding())
    assert decide("default", driverless, broken).target == Binding("nvidia", "nvidia")


def test_a_device_whose_way_back_was_begun_and_not_gone_is_in_its_flavour_still() -> None:
    assert decide("vfio", _IN_VFIO, replace(_RECORD, flavour="default", unfinished=True)).already


# --- candidates and guards that who asks has named


def ask_for(*names: str, force: tuple[str, ...] = (), wanted: str = "vfio", device: Device = _DEVICE) -> Plan:
    aliases = (Alias("vfio_pci:v00008086d*", "variant"), Alias("vfio_pci:v000015B3d*", "stranger"))
    index = ModuleIndex(aliases, blacklisted=frozenset({"banned"}))
    asked = Request(device.id, wanted, Origin.VARLINK, candidates=names, force=frozenset(force))
    return plan(asked, device, _FLAVOURS, index, None)


def refusal(*names: str, force: tuple[str, ...] = (), wanted: str = "vfio", device: Device = _DEVICE) -> FlavourError:
    with pytest.raises(FlavourError) as caught:
        ask_for(*names, force=force, wanted=wanted, device=device)
    assert caught.value.hint
    return caught.value


def test_a_plan_has_the_candidates_that_were_named_in_their_order() -> None:
    planned = ask_for("vfio_pci", "variant")
    assert modules(planned) == ["vfio_pci", "variant"]
    assert modules(ask_for("variant")) == ["variant"]
    assert ask_for("variant").skips == (Skip("vfio_pci", "was not named"),)


@pytest.mark.parametrize("name", ["stranger", "no_such_module"])
def test_a_name_that_is_no_candidate_is_refused_and_those_that_are_are_told(name: str) -> None:
    refused = refusal("variant", name)
    assert refused.code is Code.NOT_A_CANDIDATE
    assert str(_ID) in refused.sentence
    assert name in refused.sentence
    assert "variant, vfio_pci" in refused.hint
    assert modules(ask_for("variant", name, force=("table",))) == ["variant", name]


@pytest.mark.parametrize(
    "name", ["/dev/shm/x.ko", "./x", "../x", "a/b", "-r", "", "a b", "a\nb", "\ud800", "x" * 10_000]
)
def test_what_is_no_name_of_a_module_is_refused_whoever_names_it(name: str) -> None:
    """modprobe would load a path, and paths in sysfs are made of it."""
    refused = refusal("variant", name, force=("table",))
    assert refused.code is Code.NOT_A_CANDIDATE
    assert len(refused.sentence) < 300
    refused.sentence.encode()


@pytest.mark.parametrize("name", ["banned", "variant", "stranger", "vfio_pci"])
def test_a_blacklist_holds_for_every_module_however_it_is_named(name: str) -> None:
    aliases = (Alias("vfio_pci:v00008086d*", "variant"), Alias("vfio_pci:v000015B3d*", "stranger"))
    index = ModuleIndex(aliases, blacklisted=frozenset({name}))
    for force in ((), ("table",)):
        asked = Request(_ID, "vfio", Origin.VARLINK, candidates=(name,), force=frozenset(force))
        with pytest.raises(FlavourError) as caught:
            plan(asked, _DEVICE, _FLAVOURS, index, None)
        assert caught.value.code is Code.NOT_A_CANDIDATE
        if force:
            assert "blacklisted" in caught.value.sentence


@pytest.mark.parametrize("wanted", ["vfio", "default"])
def test_a_guard_that_nobody_knows_is_refused_whatever_is_asked(wanted: str) -> None:
    for device in (_DEVICE, _IN_VFIO):
        refused = refusal(force=("tables",), wanted=wanted, device=device)
        assert refused.code is Code.UNKNOWN_GUARD
        assert "table" in refused.hint


def test_the_way_to_default_has_no_candidates_to_be_named() -> None:
    assert refusal("e1000e", wanted="default").code is Code.NOT_A_CANDIDATE
    assert ask_for(wanted="default", force=("table",)).already


def test_a_device_that_another_driver_of_the_flavour_holds_is_left_alone_and_that_is_told() -> None:
    refused = refusal("variant", device=_IN_VFIO)
    assert refused.code is Code.OTHER_DRIVER
    assert "vfio-pci" in refused.sentence
    assert "default" in refused.hint


@pytest.mark.parametrize("names", [(), ("vfio_pci",), ("vfio-pci",), ("variant", "vfio-pci")])
def test_a_device_that_one_of_the_named_drivers_holds_is_in_the_flavour(names: tuple[str, ...]) -> None:
    assert ask_for(*names, device=_IN_VFIO).already
    built_in = replace(_IN_VFIO, binding=replace(_HELD, module=None))
    assert ask_for(*names, device=built_in).already


@pytest.mark.parametrize(
    ("device", "code"),
    [(replace(_DEVICE, bridge=True), Code.BRIDGE), (replace(_DEVICE, iommu_group=None), Code.NO_IOMMU_GROUP)],
)
def test_being_named_passes_over_no_other_guard(device: Device, code: Code) -> None:
    assert refusal("variant", force=("table",), device=device).code is code


# --- what the host uses the device for


_MOUNTED = Finding(Guard.MOUNTED, "nvme0n1p1 is mounted at /srv", "umount /srv")
_MOUNTED_TOO = Finding(Guard.MOUNTED, "nvme0n1p2 is mounted at /var", "umount /var")
_SWAP = Finding(Guard.SWAP, "nvme0n1p3 is swap", "swapoff /dev/nvme0n1p3")
_HELD_BY = Finding(Guard.HELD, "it is held through VFIO", "", (Process(42, "qemu", "vm1.scope"),))
_GROUP = Finding(Guard.GROUP, "IOMMU group 7 could not be opened", "switch the whole group")
_ALL = (_MOUNTED, _SWAP, _MOUNTED_TOO, _HELD_BY, _GROUP)


def guard(*found: Finding, force: tuple[str, ...] = (), **severities: Severity) -> Plan:
    asked = Request(_ID, "vfio", Origin.VARLINK, force=frozenset(force))
    planned = plan(asked, _DEVICE, _FLAVOURS, _INDEX, None)
    return guarded(planned, found, SEVERITIES | {Guard(name): severity for name, severity in severities.items()})


def in_use(*found: Finding, force: tuple[str, ...] = (), **severities: Severity) -> FlavourError:
    with pytest.raises(FlavourError) as caught:
        guard(*found, force=force, **severities)
    assert caught.value.code is Code.IN_USE
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(("guard", "told"), [(Guard.MOUNTED, True), (Guard.HELD, True), (Guard.GROUP, False)])
def test_a_rule_that_is_refused_now_is_said_to_have_the_device_at_the_next_boot(guard: Guard, told: bool) -> None:
    """Parked devices are used by nobody yet, so no guard finds anything then; but what a group is like it stays."""
    asked = Request(_ID, "vfio", Origin.POLICY, rule="a.yaml:3")
    planned = plan(asked, _DEVICE, _FLAVOURS, _INDEX, None)
    found = Finding(guard, "it has found something", "free it")
    with pytest.raises(FlavourError) as caught:
        guarded(planned, [found], SEVERITIES | {guard: Severity.ERROR})
    assert "change the rule (a.yaml:3)" in caught.value.hint
    assert "--force" not in caught.value.hint, "a rule has no such option"
    assert ("at the next boot" in caught.value.hint) == told


def test_without_findings_a_plan_is_as_it_was() -> None:
    assert guard() == ask_for_nothing_else()


def ask_for_nothing_else() -> Plan:
    return plan(Request(_ID, "vfio", Origin.VARLINK), _DEVICE, _FLAVOURS, _INDEX, None)


def test_every_guard_but_the_group_refuses_as_long_as_nobody_has_said_otherwise() -> None:
    for name in Guard:
        found = Finding(name, f"{name} has found something", "free it")
        if name is Guard.GROUP:
            assert guard(found).findings == (found,)
        else:
            assert in_use(found).findings == (found,)


def test_a_device_in_use_is_refused_with_every_guard_and_the_words_that_pass_over_them() -> None:
    refused = in_use(*_ALL)
    assert refused.sentence == "pci/0000:01:00.0 is in use (mounted, swap, held)"
    assert refused.hint == ("free it, or pass over it if you know better: --force=mounted --force=swap --force=held")
    assert refused.findings == (_MOUNTED, _SWAP, _MOUNTED_TOO, _HELD_BY), "without the one that is only a warning"


def test_who_passes_over_some_is_refused_for_the_others_alone() -> None:
    refused = in_use(*_ALL, force=("mounted", "held"))
    assert refused.findings == (_SWAP,)
    assert refused.sentence == "pci/0000:01:00.0 is in use (swap)"
    assert refused.hint.endswith(": --force=swap")


def test_who_passes_over_all_has_a_plan_that_tells_them_all_in_their_order() -> None:
    assert guard(*_ALL, force=("mounted", "held", "swap")).findings == _ALL
    assert guard(*_ALL, force=tuple(Guard)).findings == _ALL


def test_what_is_a_warning_is_told_and_what_is_off_is_not() -> None:
    planned = guard(_MOUNTED, _SWAP, _GROUP, mounted=Severity.WARNING, swap=Severity.OFF, group=Severity.OFF)
    assert planned.findings == (_MOUNTED,)
    assert replace(planned, findings=()) == ask_for_nothing_else()
    refused = in_use(_MOUNTED, _SWAP, mounted=Severity.OFF)
    assert refused.findings == (_SWAP,)
    assert in_use(_GROUP, group=Severity.ERROR).findings == (_GROUP,)
    assert guard(_GROUP, group=Severity.ERROR, force=("group",)).findings == (_GROUP,)


def test_passing_over_what_has_found_nothing_is_no_error() -> None:
    assert guard(_GROUP, force=("mounted", "table")).findings == (_GROUP,)


# --- what is written down before anything is touched


def test_the_intent_is_what_would_be_tried_in_its_order() -> None:
    assert ask_for("variant", "vfio_pci").intent == ("variant", "vfio_pci")
    assert ask_for("vfio_pci", "variant").intent == ("vfio_pci", "variant")


def test_the_intent_of_the_way_back_is_the_driver_or_what_the_bus_chooses() -> None:
    assert decide("default", _IN_VFIO, _RECORD).intent == ("e1000e",)
    assert decide("default", _IN_VFIO).intent == ("what the bus chooses",)
    assert decide("default", _IN_VFIO, replace(_RECORD, original=Binding())).intent == ("what the bus chooses",)


# --- PFs


_PF = replace(_DEVICE, sriov=Sriov(4, autoprobe=False))


def test_of_a_pf_that_was_never_touched_its_vfs_are_remembered() -> None:
    assert decide("vfio", _PF).sriov == Sriov(4, autoprobe=False)
    assert decide("vfio").sriov is None
    assert decide("vfio", replace(_DEVICE, sriov=Sriov())).sriov == Sriov()


def test_of_a_pf_that_is_ours_the_vfs_that_it_had_before_are_remembered() -> None:
    mine = replace(_RECORD, sriov=Sriov(4, autoprobe=False))
    now = replace(_IN_VFIO, sriov=Sriov(0))
    assert decide("other", now, mine).sriov == Sriov(4, autoprobe=False)
    assert decide("default", now, mine).sriov == Sriov(4, autoprobe=False)
    assert decide("default", replace(_PF, binding=Binding()), replace(_BEGUN, sriov=Sriov(2))).sriov == Sriov(2)


def test_of_a_pf_that_is_in_the_flavour_already_they_are_remembered_too_for_it_may_be_taken_back() -> None:
    had = Sriov(4, autoprobe=False)
    now = replace(_IN_VFIO, sriov=Sriov(0))
    for record in (replace(_RECORD, sriov=had), replace(_BEGUN, sriov=had)):
        planned = decide("vfio", now, record)
        assert planned.already
        assert planned.sriov == had


def test_of_a_pf_that_somebody_else_has_brought_there_the_vfs_that_it_has_are_remembered() -> None:
    assert decide("default", replace(_IN_VFIO, sriov=Sriov(3))).sriov == Sriov(3)


def test_vfs_that_were_made_after_somebody_took_the_pf_back_are_his() -> None:
    """The record is stale, as it is for the roots of a switch."""
    stale = replace(_RECORD, sriov=Sriov(4))
    planned = decide("vfio", replace(_DEVICE, sriov=Sriov(7)), stale)
    assert planned.original == _NATIVE
    assert planned.sriov == Sriov(7)


def test_a_plan_knows_whether_the_device_is_left_half_done() -> None:
    for device, record in ((_DEVICE, None), (_DEVICE, _RECORD), (_IN_VFIO, _RECORD), (_DEVICE, _BEGUN)):
        assert not decide("vfio", device, record).half_done
    assert decide("vfio", _IN_VFIO, _BEGUN).half_done
    half_way = replace(_DEVICE, binding=Binding(None, None, "variant"))
    assert decide("vfio", half_way, _BEGUN).half_done
    assert decide("default", half_way, _BEGUN).half_done


# --- what the policy asks for


_PARKED = Binding(None, None, PARKED)
_WAITS = replace(_DEVICE, binding=_PARKED)


def ruled(wanted: str, device: Device = _DEVICE, record: Record | None = None, **fields: Any) -> Plan:
    request = Request(device.id, wanted, Origin.POLICY, rule="/etc/flavourd/policy.d/a.yaml:3", **fields)
    return plan(request, device, _FLAVOURS, _VARIANTS, record)


_VARIANTS = ModuleIndex((Alias("vfio_pci:v00008086d*", "variant"), Alias("vfio_pci:v000015B3d*", "stranger")))


def no_rule(wanted: str, device: Device = _DEVICE, **fields: Any) -> FlavourError:
    with pytest.raises(FlavourError) as caught:
        ruled(wanted, device, **fields)
    assert caught.value.hint
    assert str(_ID) in caught.value.sentence
    return caught.value


def test_a_rule_may_name_what_is_no_candidate_for_this_device_as_long_as_something_is_left() -> None:
    planned = ruled("vfio", candidates=("stranger", "no_such_module", "vfio_pci"))
    assert modules(planned) == ["vfio_pci"]
    assert [skip.module for skip in planned.skips] == ["stranger", "no_such_module", "variant"]
    refused = no_rule("vfio", candidates=("stranger", "no_such*"))
    assert refused.code is Code.NO_CANDIDATE
    assert "stranger has a table that does not list this device" in refused.sentence
    assert "no_such* fits no module" in refused.sentence
    assert "a.yaml:3" in refused.hint


def test_what_an_earlier_daemon_had_begun_for_a_rule_is_still_for_a_rule() -> None:
    asked = Request(_ID, "vfio", Origin.RECOVERY, candidates=("stranger", "vfio_pci"), rule="a.yaml:3")
    assert modules(plan(asked, _DEVICE, _FLAVOURS, _VARIANTS, None)) == ["vfio_pci"]


def test_patterns_words_force_and_denial_come_into_the_plan_whoever_asks() -> None:
    assert modules(ruled("vfio", candidates=("@universal", "vari*"))) == ["vfio_pci", "variant"]
    assert modules(ask_for("@universal", "vari*")) == ["vfio_pci", "variant"]
    assert modules(ruled("vfio", candidates=("stranger",), forced=frozenset({"stranger"}))) == ["stranger"]
    assert modules(ruled("vfio", deny=("vari*",))) == ["vfio_pci"]
    assert no_rule("vfio", deny=("*",)).code is Code.NO_CANDIDATE
    for item in ("@native", "no*"):
        assert refusal(item).code is Code.NOT_A_CANDIDATE


@pytest.mark.parametrize("item", ["variant", "@alias", "var*"])
def test_a_device_with_a_driver_that_the_rule_does_not_name_stays_and_that_is_told(item: str) -> None:
    planned = ruled("vfio", _IN_VFIO, candidates=(item,))
    assert planned.already
    (note,) = planned.notes
    assert "driver vfio-pci, which the rule does not name" in note
    for known in ("vfio-pci", "@universal", "vfio*"):
        assert ruled("vfio", _IN_VFIO, candidates=(known,)).notes == ()
        assert ask_for(known, device=_IN_VFIO).already
    assert refusal(item, device=_IN_VFIO).code is Code.OTHER_DRIVER


def test_for_a_rule_an_override_that_names_another_driver_is_mended() -> None:
    for override in (None, "pci-stub", PARKED):
        device = replace(_IN_VFIO, binding=replace(_HELD, override=override))
        for record in (None, _RECORD):
            assert (ruled("vfio", device, record).already, ruled("vfio", device, record).mend) == (True, "vfio-pci")
        assert decide("vfio", device, _RECORD).mend is None
    assert ruled("vfio", _IN_VFIO).mend is None


# --- devices that were parked


def test_a_parked_device_goes_into_its_flavour_and_what_it_had_is_what_the_bus_chooses() -> None:
    planned = ruled("vfio", _WAITS)
    assert planned.original == planned.undo == _PARKED
    assert not planned.already
    assert not planned.half_done
    switched = replace(_RECORD, original=_PARKED)
    assert ruled("default", _IN_VFIO, switched).target == _PARKED
    assert ruled("default", _IN_VFIO, switched).intent == ("what the bus chooses",)


def test_a_driver_that_was_faster_than_the_one_it_was_parked_for_is_its_own() -> None:
    planned = ruled("vfio", replace(_DEVICE, binding=replace(_NATIVE, override=PARKED)))
    assert planned.original == planned.undo == _NATIVE
    assert not planned.half_done


def test_default_of_a_parked_device_lets_the_bus_choose() -> None:
    for record in (None, replace(_RECORD, override="vfio-pci")):
        planned = decide("default", _WAITS, record)
        assert (planned.already, planned.target, planned.undo) == (False, None, _PARKED)


def test_default_of_a_parked_device_that_has_a_driver_only_clears_the_override() -> None:
    planned = decide("default", replace(_DEVICE, binding=replace(_NATIVE, override=PARKED)))
    assert (planned.already, planned.target) == (False, _NATIVE)


@pytest.mark.parametrize("binding", [_PARKED, Binding(), Binding(None, None, "variant")])
def test_what_was_parked_and_is_half_switched_goes_back_to_what_the_bus_chooses(binding: Binding) -> None:
    planned = decide("default", replace(_DEVICE, binding=binding), replace(_BEGUN, original=_PARKED))
    assert not planned.already
    assert planned.target == planned.undo == _PARKED


# --- VFs that a rule wants


_CAN = replace(_DEVICE, sriov=Sriov(0, total=7))


def test_vfs_are_made_of_a_pf_that_keeps_its_driver() -> None:
    planned = ruled("default", _CAN, vfs=7)
    assert (planned.already, planned.vfs, planned.flavour) == (False, 7, "default")
    assert planned.sriov == Sriov(0, total=7)
    assert planned.original == planned.undo == _NATIVE
    assert planned.intent == ("7 VFs",)
    assert (planned.candidates, planned.target, planned.drops_vfs) == ((), None, False)


@pytest.mark.parametrize("vfs", [0, 4])
def test_a_pf_with_as_many_vfs_as_it_shall_have_is_left_alone(vfs: int) -> None:
    planned = ruled("default", replace(_DEVICE, sriov=Sriov(vfs, total=7)), vfs=vfs)
    assert (planned.already, planned.vfs) == (True, None)


def test_another_number_of_vfs_means_to_drop_those_that_there_are() -> None:
    has = replace(_DEVICE, sriov=Sriov(4, total=7))
    assert ruled("default", has, vfs=5).drops_vfs
    assert ruled("default", has, vfs=0).drops_vfs
    assert not decide("vfio", has).drops_vfs
    begun = replace(_BEGUN, flavour="default", sriov=Sriov(2, total=7))
    assert decide("default", has, begun).drops_vfs
    assert not decide("default", _CAN, begun).drops_vfs
    # On the way back from a flavour it is the guards that look at them.
    assert not decide("default", replace(_IN_VFIO, sriov=Sriov(4)), replace(_RECORD, sriov=Sriov(2))).drops_vfs


def test_what_is_no_pf_or_cannot_have_so_many_or_has_no_driver_is_refused() -> None:
    assert no_rule("default", vfs=1).code is Code.NO_SRIOV
    refused = no_rule("default", _CAN, vfs=8)
    assert (refused.code, refused.sentence) == (Code.NO_SRIOV, "pci/0000:01:00.0 can have 7 VFs at most, not 8")
    assert no_rule("default", replace(_CAN, binding=Binding()), vfs=1).code is Code.NO_SRIOV
    assert no_rule("vfio", _CAN, vfs=1).code is Code.NO_SRIOV


def test_a_pf_that_is_not_with_its_own_driver_goes_back_there_first() -> None:
    for device, record in (
        (replace(_IN_VFIO, sriov=Sriov(0, total=7)), _RECORD),
        (_CAN, replace(_BEGUN, flavour="default", sriov=Sriov(0, total=7))),
        (replace(_WAITS, sriov=Sriov(0, total=7)), None),
    ):
        planned = ruled("default", device, record, vfs=4)
        assert (planned.already, planned.vfs) == (False, None)
