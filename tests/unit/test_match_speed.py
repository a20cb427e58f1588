# SPDX-License-Identifier: LGPL-2.1-or-later
"""A thousand rules for ten thousand devices cost little, and what they cost grows no faster than they do.

Times are compared with what plain Python needs on the same machine at the same time, for no two machines are alike.
Figures: `pytest -s tests/unit/test_match_speed.py`.
"""

import random
import time
from collections.abc import Callable, Sequence

import pytest

from flavourd.device import DeviceId
from flavourd.policy.language import Match, PlacedRule, Policy, Rule
from flavourd.policy.match import Matcher
from flavourd.traits import Traits

_RULES, _DEVICES = 1000, 10_000


def devices(count: int) -> list[Traits]:
    """A house full of hardware: few models, and each device at an address of its own."""
    dice = random.Random(5)
    models = [
        (f"{dice.choice((0x8086, 0x10DE, 0x15B3, 0x144D)):04x}", f"{dice.randrange(65536):04x}", code)
        for code in ("020000", "010802", "030200", "0c0330", "120000")
        for _ in range(60)
    ]
    found = []
    for number in range(count):
        vendor, device, code = dice.choice(models)
        name = f"{number >> 16:04x}:{number >> 8 & 255:02x}:{number >> 3 & 31:02x}.{number & 7}"
        is_vf = number % 4 == 0
        found.append(
            Traits(
                id=DeviceId("pci", name),
                vendor=vendor,
                device=device,
                subsystem_vendor=vendor,
                subsystem_device=f"{number % 7:04x}",
                class_code=code,
                modalias=f"pci:v0000{vendor.upper()}d0000{device.upper()}sv*sd*bc{code[:2]}sc{code[2:4]}i{code[4:]}",
                driver=dice.choice(("nvme", "mlx5_core", "nvidia", "ice")),
                pf=DeviceId("pci", f"{name[:-1]}0") if is_vf else None,
                vf=number % 64 if is_vf else None,
                path=f"0000:{number >> 8 & 255:02x}/{number >> 3 & 31:02x}.{number & 7}",
            )
        )
    return found


def mixed(count: int) -> list[Match]:
    """As people write them: most by address or ids, some by class, some with patterns or branches."""
    dice, known = random.Random(6), devices(_DEVICES)
    found = []
    for number in range(count):
        one = dice.choice(known)
        found.append(
            (
                Match(address=one.id.name),
                Match(vendor=one.vendor, device=one.device, subsystem_device=f"{number:04x}"),
                Match(vendor=one.vendor, class_="nvme", vf="60-"),
                Match(address=f"{one.id.name[:8]}1f.*"),
                Match(any=(Match(address=one.id.name), Match(device=f"{number:04x}"))),
                Match(driver="mlx5*", device=(f"{number:04x}", f"{number + 1:04x}")),
                Match(vendor=one.vendor, driver="nvme", not_=Match(class_="storage")),
                Match(pf=one.id.name, vf="0-7"),
            )[number % 8]
        )
    return found


def patterns(count: int) -> list[Match]:
    """The worst: no two alike, each begins with a star, and few match."""
    return [Match(address=f"*:*{number >> 5:02x}:{number & 31:02x}.[89]") for number in range(count)]


def nested(count: int) -> list[Match]:
    return [
        Match(
            all=(
                Match(
                    any=(Match(device=f"{number:04x}"), Match(all=(Match(vf=f"{number % 64}"), Match(driver="nv*"))))
                ),
                Match(not_=Match(any=(Match(vendor="144d"), Match(class_=("storage", "3d"))))),
            ),
            any=(Match(subsystem_device=f"{number % 5 + 100:04x}"), Match(not_=Match(bus="pci"))),
        )
        for number in range(count)
    ]


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def cost(matches: Sequence[Match], known: Sequence[Traits]) -> float:
    policy = Policy(tuple(PlacedRule(n, Rule("vfio", match), "x.yaml", n) for n, match in enumerate(matches)))

    def work() -> None:
        matcher = Matcher(policy)
        for traits in known:
            matcher.rule(traits)

    return seconds(work)


def comparisons(times: int) -> float:
    """What it costs to compare two texts so often: the least that a loop over all rules and devices would take."""
    texts = [f"0000:{number:02x}:00.0" for number in range(1000)]

    def work() -> None:
        for _ in range(times // len(texts)):
            for text in texts:
                if text == "0000:65:00.0.":
                    raise AssertionError

    return seconds(work)


@pytest.mark.parametrize(("policy", "bound"), [(mixed, 3), (patterns, 30), (nested, 3)])
def test_what_it_costs_and_how_that_grows(policy: Callable[[int], list[Match]], bound: float) -> None:
    known, matches = devices(_DEVICES), policy(_RULES)
    figures = {
        (rules, count): cost(matches[:rules], known[:count])
        for rules, count in ((250, _DEVICES), (500, _DEVICES), (_RULES, 2500), (_RULES, 5000), (_RULES, _DEVICES))
    }
    yardstick = comparisons(_RULES * _DEVICES)
    print(f"\n{policy.__name__} (10 million comparisons of texts: {yardstick:.2f} s)")
    for (rules, count), took in figures.items():
        print(f"{rules:6} rules x {count:6} devices: {took:6.2f} s")
    whole = figures[_RULES, _DEVICES]
    assert whole < bound * yardstick
    assert whole < 8 * figures[250, _DEVICES] + yardstick / 4
    assert whole < 8 * figures[_RULES, 2500] + yardstick / 4
