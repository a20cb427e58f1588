# SPDX-License-Identifier: LGPL-2.1-or-later
"""The language of policy files: every word of it, from text to values, and what makes no sense."""

import grp
import pwd
from typing import Any

import pytest

from flavourd.policy.classes import CLASSES
from flavourd.policy.decode import decode
from flavourd.policy.language import (
    DeviceNode,
    Expect,
    Match,
    Mode,
    NamedCandidate,
    PlacedRule,
    Policy,
    PolicyFile,
    Rule,
    When,
)
from flavourd.policy.load import Loaded, check_texts
from flavourd.use import Guard, Severity

_EVERYTHING = """
rules:
  - name: everything at once
    match:
      bus: [pci, platform]
      address: ["65:00.*", "platform/fe200000.*"]
      vendor: "0x8086"
      device: ["10d3", "10D4"]
      subsystem-vendor: ["1"]
      subsystem-device: "0000"
      class: [ethernet, "0108", "030000/ff0000", "0x02"]
      modalias: "pci:v00008086d*"
      driver: [e1000e, "igb*"]
      pf: "0000:65:00.0"
      vf: "0-3,7,9-"
      path: ["0000:00/10.0/00.0", "*:*/1c.?"]
      slot: ["5", 5-1]
      serial: 00-80-ee-00-00-00-41-80
      property: {ID_MODEL: "X*", ID_PATH: pci-x}
      all: [{vendor: "1"}, {}]
      any: [{not: {vendor: "2"}}]
      not: {any: [{bus: usb}]}
    expect: {vendor: "1", device: "2", subsystem-vendor: "3", subsystem-device: "4", serial: 00-00-00-00-00-00-00-00}
    flavour: vfio
    candidates: ["@alias", "vfio_pci*", mlx5_vfio_pci, {module: a-b, force: true}, {module: c},
                 "@softdep", "@universal"]
    deny: ["x*"]
    guards: {session: warning, input: off}
    group: true
    present: keep
    inserted: apply
    mode: prefer
    device-node: {owner: root, group: "0", mode: "0660"}
    max-changes: 65535
  - {flavour: default, vfs: 0}
"""


def test_every_word_of_the_language_has_its_value() -> None:
    first, second = decode(_EVERYTHING, PolicyFile, "f").rules
    assert first == Rule(
        flavour="vfio",
        match=Match(
            bus=("pci", "platform"),
            address=("65:00.*", "platform/fe200000.*"),
            vendor="0x8086",
            device=("10d3", "10D4"),
            subsystem_vendor=("1",),
            subsystem_device="0000",
            class_=("ethernet", "0108", "030000/ff0000", "0x02"),
            modalias="pci:v00008086d*",
            driver=("e1000e", "igb*"),
            pf="0000:65:00.0",
            vf="0-3,7,9-",
            path=("0000:00/10.0/00.0", "*:*/1c.?"),
            slot=("5", "5-1"),
            serial="00-80-ee-00-00-00-41-80",
            property={"ID_MODEL": "X*", "ID_PATH": "pci-x"},
            all=(Match(vendor="1"), Match()),
            any=(Match(not_=Match(vendor="2")),),
            not_=Match(any=(Match(bus="usb"),)),
        ),
        name="everything at once",
        expect=Expect("1", "2", "3", "4", "00-00-00-00-00-00-00-00"),
        candidates=(
            *("@alias", "vfio_pci*", "mlx5_vfio_pci", NamedCandidate("a-b", True), NamedCandidate("c")),
            *("@softdep", "@universal"),
        ),
        deny=("x*",),
        guards={Guard.SESSION: Severity.WARNING, Guard.INPUT: Severity.OFF},
        group=True,
        present=When.KEEP,
        inserted=When.APPLY,
        mode=Mode.PREFER,
        device_node=DeviceNode("root", "0", "0660"),
        max_changes=65535,
    )
    assert second == Rule("default", vfs=0)


def test_a_rule_stands_for_its_place() -> None:
    assert str(PlacedRule(0, Rule("vfio"), "/x.yaml", 3)) == "/x.yaml:3"
    assert str(PlacedRule(0, Rule("vfio", name="mine"), "/x.yaml", 3)) == "/x.yaml:3 (mine)"


# --- sense


def judged(rules: str) -> Loaded:
    return check_texts([("f", f"rules:\n{rules}")], ["vfio"])


def complaints(keys: str, flavour: str = "vfio") -> list[str]:
    return [problem.message for problem in judged(f"  - {{flavour: {flavour}, {keys}}}").problems]


@pytest.mark.parametrize(
    ("flavour", "keys"),
    [
        *(("vfio", f"match: {{class: {name!r}}}") for name in CLASSES),
        (
            "vfio",
            'match: {class: ["02", "0x0200", "020000", "02/ff", "020000/ff0000", "0200/ff00", "ab", "abcd", "AB/ff"]}',
        ),
        ("vfio", 'match: {vf: "3-3"}'),
        ("vfio", 'match: {vf: "*"}'),
        ("vfio", 'match: {vf: "3-,1"}'),
        # Names of udev's properties are no selectors.
        ("vfio", 'match: {property: {class: x, vf: "7-3", not: y}}'),
        ("vfio", "match: {}"),
        ("vfio", "match: {all: [{}]}"),
        ("vfio", "candidates: [{module: a, force: true}, {module: 'b*', force: false}]"),
        ("vfio", "candidates: []"),
        ("vfio", "guards: {table: error}"),
        ("vfio", f"device-node: {{owner: {pwd.getpwuid(0).pw_name}, group: {grp.getgrgid(0).gr_name}}}"),
        ("vfio", 'device-node: {owner: "4242424", group: "0"}'),
        ("default", "guards: {session: warning}"),
        ("default", "vfs: 8, match: {vendor: '1'}"),
        ("default", "vfs: 8, match: {not: {vf: '*'}}"),
        ("default", "group: true"),
    ],
)
def test_what_makes_sense_is_not_complained_of(flavour: str, keys: str) -> None:
    assert complaints(keys, flavour) == []


@pytest.mark.parametrize(
    ("flavour", "keys", "told"),
    [
        ("vfoi", "vfs: 1", ["there is no flavour 'vfoi'", "a PF that is in flavour vfoi has no VFs"]),
        (
            "default",
            "candidates: ['@alias']",
            ["flavour default is the native drivers: there are no candidates to try"],
        ),
        ("default", "deny: [x]", ["flavour default is the native drivers: there are no candidates to deny"]),
        ("default", "device-node: {mode: '0600'}", ["flavour default has no device node"]),
        ("default", "vfs: 1, match: {vf: '1'}", ["a VF has no VFs, and the rule is for VFs only (vf, pf)"]),
        ("default", "vfs: 1, match: {all: [{pf: x}]}", ["a VF has no VFs, and the rule is for VFs only (vf, pf)"]),
        ("vfio", "vfs: 0", ["a PF that is in flavour vfio has no VFs"]),
        ("vfio", "match: {class: 'aa/0'}", ["this mask covers nothing"]),
        ("vfio", "match: {any: [{not: {class: ethernett}}]}", ["there is no class 'ethernett'"]),
        ("vfio", "match: {class: abc}", ["there is no class 'abc'"]),
        ("vfio", "match: {class: deadbeef}", ["there is no class 'deadbeef'"]),
        ("vfio", "match: {class: feedfacecafe}", ["there is no class 'feedfacecafe'"]),
        (
            "vfio",
            "match: {property: {ID_NET_NAME_ONBOARD: 'eno*'}}",
            ["udev gives ID_NET_NAME_ONBOARD to interfaces and disks, never to the device that they are on"],
        ),
        ("vfio", "match: {not: {vf: '2-1'}}", ["2-1 goes the wrong way"]),
        ("vfio", "match: {not: {}}", ["it matches no device: everything is excluded"]),
        ("vfio", "match: {all: []}", ["it is empty: what shall it match?"]),
        ("vfio", "match: {any: [{property: {}}]}", ["it is empty: what shall it match?"]),
        # What is wrong in one place does not keep the others from being looked at.
        (
            "vfio",
            "match: {vendor: x, class: [y, nvmee]}, mode: 1, expect: {}",
            ["there is no class 'nvmee'", "it says nothing"],
        ),
    ],
)
def test_what_makes_no_sense_is_told(flavour: str, keys: str, told: list[str]) -> None:
    assert set(told) <= set(complaints(keys, flavour))


def test_only_the_first_rule_that_is_never_reached_is_told() -> None:
    rules = "".join(f"  - {{flavour: vfio, {keys}}}\n" for keys in ("match: {bus: '*'}", "name: a", "name: b"))
    (problem,) = judged(rules).problems
    assert (problem.line, problem.message) == (3, "this is never reached: the rule in f:2 matches every device")


@pytest.mark.parametrize(
    "match", ["{address: '*'}", "{bus: pci}", "{bus: '*', vendor: '1'}", "{bus: ['*']}", "{not: {vf: '*'}}"]
)
def test_a_rule_that_asks_for_something_leaves_devices_to_others(match: str) -> None:
    assert judged(f"  - {{flavour: vfio, match: {match}}}\n  - {{flavour: vfio}}\n").problems == ()


def test_a_broken_rule_does_not_hide_those_behind_it() -> None:
    """What it would have matched nobody knows."""
    found = judged("  - {flavour: vfio, match: {vendr: x}}\n  - {flavour: vfio}\n")
    assert [problem.message for problem in found.problems] == ["'vendr' is not known here"]


def test_a_file_of_mistakes_ends_somewhere() -> None:
    many = judged("".join("  - {flavour: nothing}\n" for _ in range(2000)))
    assert 50 <= len(many.problems) < 60
    assert many.policy is None


def test_an_empty_policy_has_no_rules() -> None:
    nothing: Any = check_texts([], [])
    assert nothing == Loaded(Policy())
