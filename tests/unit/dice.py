# SPDX-License-Identifier: LGPL-2.1-or-later
"""Devices and rules by chance, of so few different values that they often meet."""

from dataclasses import replace
from random import Random
from typing import Any

from flavourd.device import DeviceId
from flavourd.policy.language import Expect, Match, Mode, PlacedRule, Policy, Rule, When
from flavourd.traits import Traits

_IDS = ("8086", "10de", "1af4")
_CLASSES = ("010802", "020000", "030200", "060400")
_DRIVERS = ("nvme", "e1000e", "virtio-pci")
_SERIAL = "00-80-ee-00-00-00-41-8{}"
_PF = DeviceId("pci", "0000:01:00.0")


def device(dice: Random) -> Traits:
    def some(*values: Any) -> Any:
        return dice.choice((*values, None))

    bus, slot, function = dice.randrange(3), dice.randrange(20), dice.randrange(3)
    is_vf = dice.random() < 0.3
    vendor, driver = some(*_IDS), some(*_DRIVERS)
    traits = Traits(
        id=DeviceId("pci", f"0000:{bus:02x}:{slot:02x}.{function}"),
        vendor=vendor,
        device=some(*_IDS),
        subsystem_vendor=some(*_IDS),
        subsystem_device=some(*_IDS),
        class_code=some(*_CLASSES),
        modalias=f"pci:v0000{(vendor or '').upper()}d*" if vendor else some("a-b", "a_b"),
        driver=driver,
        pf=_PF if is_vf else None,
        vf=dice.randrange(5) if is_vf else None,
        path=f"0000:00/{bus:02x}.{function}/{slot:02x}.{function}",
        slot=some("1", "2-1"),
        serial=some(*map(_SERIAL.format, range(3))),
        properties={name: value for name in ("ID_X", "ID_Y") if (value := some("a", "ab", "b"))},
    )
    if dice.random() < 0.2:
        return replace(traits, id=DeviceId("cdx", f"cdx-{slot}"), path=None)
    return traits


def match(dice: Random, depth: int = 2) -> Match:
    """Of no selector, one, or some; of single values, lists and patterns."""
    asked: dict[str, Any] = {}
    for _ in range(dice.choice((0, 1, 1, 1, 2, 3))):
        key = dice.choice(tuple(_ASKED))
        values = tuple(dice.choice(_ASKED[key]) for _ in range(dice.choice((1, 1, 2, 3))))
        asked[key] = values if len(values) > 1 and key not in ("vf", "property") else values[0]
    if depth and dice.random() < 0.4:
        key = dice.choice(("all", "any", "not_"))
        some = tuple(match(dice, depth - 1) for _ in range(dice.randrange(1, 4)))
        asked[key] = some[0] if key == "not_" else some
    return Match(**asked)


_ASKED: dict[str, tuple[Any, ...]] = {
    "bus": ("pci", "cdx", "c*"),
    "address": ("00:03.0", "01:0*", "0000:0?:1[0-3].*", "pci/0000:02:*", "cdx/cdx-1*", "*", "*/*.0", "cdx/cdx-3"),
    "vendor": ("0x8086", "10DE", "1af4"),
    "device": ("8086", "10de", "0x1AF4"),
    "subsystem_vendor": _IDS,
    "subsystem_device": _IDS,
    "class_": ("nvme", "01", "0200", "0x030200", "030200/ff0f00", "020000/f00000", "060000/0c0000", "bridge"),
    "modalias": ("pci:v00008086*", "pci:v*", "a-b", "a_*", "*"),
    "driver": (*_DRIVERS, "*e*", "v?rtio-*"),
    "pf": ("01:00.0", "0000:01:*", "02:00.0"),
    "vf": ("*", "0-2", "1,3", "2-"),
    "path": (
        "0000:00/01.0/0*.*",
        "0:0/1.0/3.0",
        "0000:*/0?.1/1*.1",
        "*:00/*.*/*5.*",
        "0000:00/01.0",
        "0000:00/*.2/*.2",
    ),
    "slot": ("1", "2*"),
    "serial": (_SERIAL.format(0), _SERIAL.format(1).upper()),
    "property": ({"ID_X": "a"}, {"ID_X": "*"}, {"ID_X": "*b", "ID_Y": "?"}, {"ID_Y": "[!b]*"}, {"ID_Z": "*"}),
}


def rule(dice: Random) -> Rule:
    expect = Expect(vendor=dice.choice(_IDS), serial=dice.choice((None, _SERIAL.format(0))))
    return Rule(
        flavour=dice.choice(("vfio", "vfio", "vfio", "other", "default", "nosuch")),
        match=match(dice),
        expect=expect if dice.random() < 0.2 else None,
        present=dice.choice((When.APPLY, When.APPLY, When.KEEP)),
        inserted=dice.choice((When.APPLY, When.APPLY, When.KEEP)),
        mode=dice.choice((Mode.ENFORCE, Mode.PREFER, Mode.OBSERVE)),
        max_changes=dice.choice((None, None, None, 4)),
    )


def policy(dice: Random, rules: int) -> Policy:
    return Policy(tuple(PlacedRule(n, rule(dice), "/etc/flavourd/policy.d/a.yaml", n + 2) for n in range(rules)))
