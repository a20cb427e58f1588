# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the policy means for a device as it is."""

from dataclasses import replace
from typing import Any

import pytest

from flavourd.device import PARKED, DeviceId, Sriov
from flavourd.flavour import Flavour, FlavourOnBus, Flavours, Universal
from flavourd.policy.language import Expect, Mode, NamedCandidate, PlacedRule, Rule, When
from flavourd.request import Origin
from flavourd.traits import Seen, Traits
from flavourd.use import Guard, Severity
from flavourd.verdict import Means, Memory, Verdict, judge, keeps, request_of

_ID = DeviceId("pci", "0000:65:00.0")
_VFIO = Flavour("", "vfio-dev", {"pci": FlavourOnBus(Universal("vfio_pci", "vfio-pci"))})
_OTHER = Flavour("", "other-dev", {"pci": FlavourOnBus(Universal("other_pci", "other-pci"))})
_FLAVOURS = Flavours({"vfio": _VFIO, "other": _OTHER})
_NATIVE = Seen(Traits(_ID), 7, "e1000e")
_HELD = Seen(Traits(_ID), 7, "vfio-pci", "vfio-pci", (("vfio-dev", ("vfio0",)), ("other-dev", ())))
_PARKED = Seen(Traits(_ID), 7, None, PARKED)


def placed(flavour: str = "vfio", **fields: Any) -> PlacedRule:
    return PlacedRule(3, Rule(flavour, **fields), "/etc/flavourd/policy.d/a.yaml", 2)


def verdict(seen: Seen, rule: PlacedRule | None = None, unexpected: str | None = None, **memory: Any) -> Verdict:
    return judge(seen, rule or placed(), Memory(**memory), _FLAVOURS, unexpected)


def means(seen: Seen, rule: PlacedRule | None = None, **memory: Any) -> Means:
    return verdict(seen, rule, **memory).means


# --- whether it is as it shall be


def test_a_device_without_a_rule_is_nobodys() -> None:
    found = judge(_NATIVE, None, Memory(), _FLAVOURS)
    assert (found.means, found.request) == (Means.NONE, None)


@pytest.mark.parametrize(
    ("seen", "flavour", "expected"),
    [
        (_NATIVE, "vfio", Means.CHANGE),
        (_PARKED, "vfio", Means.CHANGE),
        (replace(_NATIVE, driver=None), "vfio", Means.CHANGE),
        (_HELD, "vfio", Means.SATISFIED),
        (replace(_HELD, driver="mlx5_vfio_pci", override="mlx5_vfio_pci"), "vfio", Means.SATISFIED),
        (replace(_HELD, override=None), "vfio", Means.CHANGE),
        (replace(_HELD, override="e1000e"), "vfio", Means.CHANGE),
        (replace(_HELD, proofs=(("other-dev", ("other0",)),)), "vfio", Means.CHANGE),
        (replace(_HELD, proofs=()), "vfio", Means.CHANGE),
        (_NATIVE, "default", Means.SATISFIED),
        (replace(_NATIVE, driver=None), "default", Means.SATISFIED),
        (replace(_NATIVE, driver="pci-stub", override="pci-stub"), "default", Means.SATISFIED),
        (_HELD, "default", Means.CHANGE),
        (_PARKED, "default", Means.CHANGE),
    ],
)
def test_a_device_is_to_be_changed_if_it_is_not_in_its_flavour_or_would_not_stay_there(
    seen: Seen, flavour: str, expected: Means
) -> None:
    found = verdict(seen, placed(flavour))
    assert found.means is expected
    assert (found.request is not None) == (expected is Means.CHANGE)
    assert not found.request or found.request.instance == seen.instance, "it is for what was looked at"


def test_the_sentence_says_what_is_wrong() -> None:
    assert verdict(_NATIVE).sentence == "it has driver e1000e, not flavour vfio"
    assert "parked" in verdict(_PARKED).sentence
    assert "driver_override says e1000e" in verdict(replace(_HELD, override="e1000e")).sentence
    assert "driver_override is not set" in verdict(replace(_HELD, override=None)).sentence
    assert "in flavour vfio with driver vfio-pci" in verdict(_HELD, placed("default")).sentence


def test_in_default_it_is_said_what_has_no_native_driver() -> None:
    default = placed("default")
    assert verdict(_NATIVE, default).sentence == "it is in flavour default as the rule says"
    assert verdict(replace(_NATIVE, driver=None), default).sentence.endswith("; it has no driver")
    stub = verdict(replace(_NATIVE, driver="pci-stub", override="pci-stub"), default)
    assert stub.sentence.endswith("; its driver_override says pci-stub")
    assert verdict(_HELD).sentence == "it is in flavour vfio as the rule says"


@pytest.mark.parametrize(
    ("seen", "rule"),
    [
        (replace(_NATIVE, bridge=True), placed()),
        (replace(_NATIVE, overridable=False), placed()),
        (replace(_NATIVE, traits=Traits(DeviceId("platform", "x"))), placed()),
        (_NATIVE, placed("gone")),
        (_NATIVE, placed("default", vfs=4)),
    ],
)
def test_a_rule_that_can_do_nothing_with_a_device_says_why_and_asks_for_nothing(seen: Seen, rule: PlacedRule) -> None:
    found = verdict(seen, rule)
    assert (found.means, found.placed, found.request) == (Means.NONE, rule, None)
    assert found.sentence


@pytest.mark.parametrize(
    ("now", "wanted", "expected"),
    [
        (0, 4, Means.CHANGE),
        (4, 4, Means.SATISFIED),
        (4, 0, Means.CHANGE),
        (2, 8, Means.CHANGE),
        (2, None, Means.SATISFIED),
    ],
)
def test_a_pf_is_to_have_as_many_vfs_as_the_rule_says(now: int, wanted: int | None, expected: Means) -> None:
    found = verdict(replace(_NATIVE, sriov=Sriov(now)), placed("default", vfs=wanted))
    assert found.means is expected
    if found.request:
        assert found.request.vfs == wanted


# --- whether it is to be changed


def test_other_hardware_than_is_expected_stops_the_rule() -> None:
    found = verdict(_NATIVE, placed(expect=Expect("10de")), unexpected="vendor is 8086, the rule expects 10de")
    assert (found.means, found.request) == (Means.STOPPED, None)
    assert "10de" in found.sentence
    assert verdict(_HELD, placed(), unexpected="x").means is Means.STOPPED


@pytest.mark.parametrize("word", ["default", "other"])
def test_an_explicit_request_wins(word: str) -> None:
    assert means(_NATIVE, wish=word) is Means.LEFT
    assert word in verdict(_NATIVE, wish=word).sentence


def test_one_for_the_same_flavour_and_the_policy_agree() -> None:
    assert means(_NATIVE, wish="vfio") is Means.CHANGE
    assert means(_HELD, wish="vfio") is Means.SATISFIED
    assert means(_HELD, placed("default"), wish="vfio") is Means.LEFT


@pytest.mark.parametrize(("present", "inserted"), [(True, False), (False, True)])
def test_what_was_there_and_what_comes_later_have_words_of_their_own(present: bool, inserted: bool) -> None:
    rule = placed(present=When.APPLY if present else When.KEEP, inserted=When.APPLY if inserted else When.KEEP)
    assert means(_NATIVE, rule, present=True) is (Means.CHANGE if present else Means.KEPT)
    assert means(_NATIVE, rule, present=False) is (Means.CHANGE if inserted else Means.KEPT)
    assert means(_HELD, rule, present=True) is Means.SATISFIED


def test_who_only_observes_asks_for_nothing() -> None:
    found = verdict(_NATIVE, placed(mode=Mode.OBSERVE))
    assert (found.means, found.request) == (Means.OBSERVED, None)
    assert means(_HELD, placed(mode=Mode.OBSERVE)) is Means.SATISFIED


def test_what_is_preferred_is_done_once_and_what_is_enforced_again() -> None:
    assert means(_NATIVE, placed(mode=Mode.PREFER)) is Means.CHANGE
    assert means(_NATIVE, placed(mode=Mode.PREFER), applied=True) is Means.LEFT
    assert means(_NATIVE, placed(mode=Mode.ENFORCE), applied=True) is Means.CHANGE


def test_what_is_contested_is_left_until_it_is_as_it_shall_be() -> None:
    assert means(_NATIVE, contested=True) is Means.CONTESTED
    assert means(_HELD, contested=True) is Means.SATISFIED


# --- what is asked for


def test_the_request_has_all_that_the_rule_says() -> None:
    rule = placed(
        name="x",
        candidates=("vfio_pci*", NamedCandidate("mlx5_vfio_pci", force=True), "@universal"),
        deny=("bad",),
        guards={Guard.SESSION: Severity.WARNING, Guard.ROUTE: Severity.OFF},
    )
    request = request_of(rule, _ID)
    assert (request.device, request.wanted, request.origin) == (_ID, "vfio", Origin.POLICY)
    assert request.candidates == ("vfio_pci*", "mlx5_vfio_pci", "@universal")
    assert request.forced == {"mlx5_vfio_pci"}
    assert request.deny == ("bad",)
    assert request.guards == ((Guard.ROUTE, Severity.OFF), (Guard.SESSION, Severity.WARNING))
    assert request.rule == "/etc/flavourd/policy.d/a.yaml:2 (x)"
    assert (request.seqnum, request.uuid, request.force) == (0, None, frozenset())


# --- what has just been made


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        (placed(), True),
        (placed(inserted=When.KEEP), False),
        (placed(present=When.KEEP), True),
        (placed(mode=Mode.OBSERVE), False),
        (placed(mode=Mode.PREFER), True),
        (placed("default"), False),
        (None, False),
    ],
)
def test_a_new_vf_is_kept_from_its_native_driver_if_a_rule_will_have_it(rule: PlacedRule | None, kept: bool) -> None:
    new = replace(_NATIVE, driver=None)
    assert keeps(new, rule, _FLAVOURS) is kept
    assert keeps(new, rule, _FLAVOURS, "other hardware") is False
    assert keeps(replace(new, bridge=True), rule, _FLAVOURS) is False
