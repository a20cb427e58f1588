# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which rule holds for a device, and why."""

from random import Random
from typing import Any

import pytest

from flavourd.device import DeviceId
from flavourd.policy.language import Expect, Match, PlacedRule, Policy, Rule
from flavourd.policy.match import Matcher
from flavourd.traits import Trait, Traits

from . import dice

_GPU = Traits(
    id=DeviceId("pci", "0000:65:00.0"),
    vendor="10de",
    device="2342",
    subsystem_vendor="10de",
    subsystem_device="00f1",
    class_code="030200",
    modalias="pci:v000010DEd00002342sv000010DEsd000000F1bc03sc02i00",
    driver="nvidia-drm",
    path="0000:64/00.0/01.0/00.0",
    slot="7-2",
    serial="00-80-ee-00-00-00-41-80",
    properties={"ID_X": "some thing"},
)
_VF = Traits(DeviceId("pci", "0000:65:00.4"), pf=_GPU.id, vf=3)
_OTHER = Traits(DeviceId("platform", "Dma@0-1"), modalias="of:NdmaT(null)Carm,pl330")


def matcher(*matches: Match, expect: Expect | None = None) -> Matcher:
    rules = (Rule("vfio", match, expect=expect, name=f"n{number}") for number, match in enumerate(matches))
    return Matcher(Policy(tuple(PlacedRule(n, rule, "x.yaml", n + 1) for n, rule in enumerate(rules))))


def matches(match: Match, traits: Traits) -> bool:
    """As the matcher and the explanation both say."""
    asked = matcher(match)
    found = asked.rule(traits)
    (why,) = asked.explain(traits)
    assert why.matches == (found is not None)
    assert (why.reason == "every selector holds") == why.matches
    return why.matches


@pytest.mark.parametrize(
    ("selector", "yes", "no"),
    [
        ("bus", ["pci", "p*", ("cdx", "pci")], ["cdx", "PCI", "p"]),
        ("address", ["65:00.0", "0000:65:00.0", "pci/0000:65:00.0", "pci/65:00.0"], ["65:00.1", "1:65:00.0", "65"]),
        ("address", ["65:00.*", "65:*", "6?:00.0", "[56]5:00.0", "pci/*", "*", "0000:65:*", "*/*", "*:00.0"], ["64:*"]),
        ("vendor", ["10de", "10DE", "0x10De", ("8086", "10de")], ["8086", ("8086", "1")]),
        ("device", ["2342"], ["234", "12342"[:4]]),
        ("subsystem_vendor", ["10de"], ["0"]),
        ("subsystem_device", ["f1", "0x00F1", "00f1"], ["f"]),
        ("class_", ["03", "0302", "030200", "3d", "display", "030000/ff0000", "03/ff"], ["0300", "vga", "nvme"]),
        ("modalias", ["pci:v000010DEd*", "*bc03*"], ["pci:v000010ded*", "pci:v000010DE"]),
        ("driver", ["nvidia-drm", "nvidia*"], ["nvidia_drm", "NVIDIA*"]),
        ("pf", [], ["*", "65:00.0"]),
        ("vf", [], ["*", "0-"]),
        ("path", ["0000:64/00.0/01.0/00.0", "0:64/0.0/1.0/0.0", "*:*/*.*/*.*/*.*"], ["0000:64/00.0", "*:*/*.*", "*:*"]),
        ("slot", ["7-2", "7*"], ["7", "2"]),
        ("serial", ["00-80-EE-00-00-00-41-80"], ["00-80-ee-00-00-00-41-81"]),
        ("property", [{"ID_X": "some*"}, {"ID_X": "*"}, {}], [{"ID_X": "some"}, {"ID_X": "*", "ID_Y": "*"}]),
        ("any", [(Match(vendor="1"), Match(vendor="10de"))], [(Match(vendor="1"), Match(slot="1")), ()]),
        ("all", [(Match(vendor="10de"), Match(slot="7-2")), ()], [(Match(vendor="10de"), Match(slot="1"))]),
        ("not_", [Match(vendor="1"), Match(vf="*")], [Match(), Match(vendor="10de"), Match(not_=Match(vendor="1"))]),
    ],
)
def test_a_selector_takes_and_leaves(selector: str, yes: list[Any], no: list[Any]) -> None:
    for value in yes:
        assert matches(Match(**{selector: value}), _GPU), value
    for value in no:
        assert not matches(Match(**{selector: value}), _GPU), value


def test_vfs_are_known_by_their_pf_and_index() -> None:
    for wanted in ("*", "3", "0-3", "1,3", "2-", "7,3-4"):
        assert matches(Match(vf=wanted, pf="65:00.0"), _VF), wanted
    for wanted in ("0-2", "4-", "0,4"):
        assert not matches(Match(vf=wanted), _VF), wanted
    assert not matches(Match(pf="66:00.0"), _VF)


def test_names_on_other_buses_are_taken_as_they_are() -> None:
    for address in ("platform/Dma@0-1", "platform/Dma*", "plat*/*"):
        assert matches(Match(address=address), _OTHER), address
    for address in ("platform/dma@0-1", "Dma@0-1", "*"):
        assert not matches(Match(address=address), _OTHER), address


def test_in_a_modalias_dash_and_underscore_are_the_same() -> None:
    assert matches(Match(modalias="of:N*Ca_m-x"), Traits(_OTHER.id, modalias="of:NdmaT(null)Ca-m_x"))
    assert matches(Match(modalias="x[0-9]y"), Traits(_OTHER.id, modalias="x5y"))


def test_who_knows_nothing_matches_only_what_asks_for_nothing() -> None:
    nobody = Traits(DeviceId("pci", "0000:00:00.0"))
    assert matches(Match(), nobody)
    for asked in (
        *(
            Match(vendor="0000"),
            Match(class_="00"),
            Match(modalias="*"),
            Match(driver="*"),
            Match(pf="*"),
            Match(vf="*"),
        ),
        *(Match(path="*:*"), Match(slot="*"), Match(serial="00" + 7 * "-00"), Match(property={"ID_X": "*"})),
    ):
        assert not matches(asked, nobody), asked


def test_the_first_rule_that_matches_holds() -> None:
    asked = matcher(Match(vendor="8086"), Match(slot="7*"), Match(vendor="10de"), Match(class_="nvme"))
    found = asked.rule(_GPU)
    assert found
    assert str(found) == "x.yaml:2 (n1)"
    assert [(why.matches, why.reason) for why in asked.explain(_GPU)] == [
        (False, "vendor is 10de, not 8086"),
        (True, "every selector holds"),
        (False, "comes later: the first match wins; it would match, too"),
        (False, "comes later: the first match wins; class is 030200, not nvme"),
    ]


def test_without_rules_nothing_holds() -> None:
    assert matcher().rule(_GPU) is None
    assert matcher().explain(_GPU) == ()


@pytest.mark.parametrize(
    ("match", "reason"),
    [
        (Match(vendor=("0x8086", "1AF4")), "vendor is 10de, not one of 8086, 1af4"),
        (Match(vf="0-3"), "it is no VF"),
        (Match(pf="*"), "it has no pf, and pci/* is asked for"),
        (Match(subsystem_vendor="1"), "subsystem-vendor is 10de, not 0001"),
        (Match(class_=("0300", "nvme")), "class is 030200, not one of 0300, nvme"),
        (Match(property={"ID_Y": "a*"}), "it has no property ID_Y, and a* is asked for"),
        (Match(address="65:00.1"), "address is pci/0000:65:00.0, not pci/0000:65:00.1"),
        (Match(all=(Match(), Match(slot="3"))), "entry 2 of all: slot is 7-2, not 3"),
        (Match(any=(Match(slot="3"), Match(bus="cdx"))), "none of any holds: slot is 7-2, not 3; bus is pci, not cdx"),
        (Match(not_=Match(bus="pci")), "what stands below `not` holds"),
    ],
)
def test_the_explanation_names_the_selector_and_what_the_device_has(match: Match, reason: str) -> None:
    (why,) = matcher(match).explain(_GPU)
    assert (why.matches, why.reason) == (False, reason)


# --- expect


@pytest.mark.parametrize(
    ("expect", "sentence"),
    [
        (None, None),
        (Expect(), None),
        (Expect(vendor="0x10DE", device="2342", serial="00-80-EE-00-00-00-41-80"), None),
        (Expect(vendor="8086"), "vendor is 10de, the rule expects 8086"),
        (
            Expect(vendor="10de", device="1", subsystem_device="f2"),
            "device is 2342, the rule expects 0001; subsystem-device is 00f1, the rule expects 00f2",
        ),
    ],
)
def test_what_a_rule_expects_is_compared_with_what_is_there(expect: Expect | None, sentence: str | None) -> None:
    asked = matcher(Match(), expect=expect)
    placed = asked.rule(_GPU)
    assert placed
    assert asked.expected(placed, _GPU) == sentence


def test_an_id_that_is_not_known_is_not_what_was_expected() -> None:
    asked = matcher(Match(), expect=Expect(serial="00-80-ee-00-00-00-41-80"))
    placed = asked.rule(_VF)
    assert placed
    assert asked.expected(placed, _VF) == "serial is not known, the rule expects 00-80-ee-00-00-00-41-80"


# --- what has to be read


def test_what_costs_something_is_needed_only_if_a_rule_asks_for_it() -> None:
    assert matcher(Match(vendor="8086", pf="*", vf="*", path="*:*")).needs == frozenset()
    nested = Match(any=(Match(all=(Match(not_=Match(slot="1")),)), Match(property={"ID_X": "*"})))
    assert matcher(Match(), nested).needs == {Trait.SLOT, Trait.PROPERTY}
    assert matcher(Match(serial=_GPU.serial)).needs == {Trait.SERIAL}
    assert matcher(Match(), expect=Expect(serial=_GPU.serial)).needs == {Trait.SERIAL}


# --- all rules at once and one by one


@pytest.mark.parametrize("seed", range(30))
def test_all_rules_at_once_say_what_each_alone_says(seed: int) -> None:
    chance = Random(seed)
    policy = dice.policy(chance, 60)
    asked = Matcher(policy)
    alone = [Matcher(Policy((placed,))) for placed in policy.rules]
    for _ in range(40):
        traits = dice.device(chance)
        naive = next((why.rule for why in asked.explain(traits) if why.matches), None)
        assert asked.rule(traits) == naive
        for placed, one in zip(policy.rules, alone, strict=True):
            (why,) = one.explain(traits)
            assert (one.rule(traits) == placed) == why.matches, (placed, traits)
