# SPDX-License-Identifier: LGPL-2.1-or-later
"""What udev makes of the rules that are generated from a policy: it understands them, tags whatever a rule may be for,
and parks nothing that is not to be switched.

Many policies are asked at once: each is a file of its own, in which what would be done leaves a property instead.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import pytest

from flavourd.device import PARKED, DeviceId
from flavourd.flavour import Flavour, FlavourOnBus, Flavours, Universal
from flavourd.policy.early import early_rules, surely
from flavourd.policy.language import Expect, Match, Mode, PlacedRule, Policy, Rule, When
from flavourd.policy.match import Matcher
from flavourd.traits import Traits

from ..unit import dice
from .devices import E1000E, ROOT_PORT
from .machine import Machine

pytestmark = pytest.mark.vm


def flavour(*buses: str) -> Flavour:
    return Flavour("", "vfio-dev", {bus: FlavourOnBus(Universal("x", "x")) for bus in buses})


_FLAVOURS = Flavours({"vfio": flavour("pci"), "other": flavour("pci", "cdx")})
_KEEP = When.KEEP
_FOLDER = "/run/udev/rules.d"


def policy(*rules: Rule) -> Policy:
    return Policy(tuple(PlacedRule(number, rule, "/a.yaml", number + 2) for number, rule in enumerate(rules)))


def text(rules: Policy) -> str:
    return early_rules(rules, _FLAVOURS).text


# --- one file


def test_udev_understands_the_rules(vm: Machine) -> None:
    long = tuple(f"{number:0430x}" for number in range(100))
    policies = [dice.policy(Random(seed), 30) for seed in range(20)]
    policies.append(policy(Rule("vfio", Match(modalias=long)), Rule("vfio", Match(any=(Match(address=long),) * 50))))
    policies.append(policy(Rule("vfio", Match(device=tuple(f"{number:04x}" for number in range(5000))))))
    vm.run("mkdir /run/made")
    for number, rules in enumerate(policies):
        vm.write(f"/run/made/{number}.rules", text(rules))
    vm.run("udevadm verify --no-style --resolve-names=never /run/made/*.rules", timeout=120)


# --- many at once


@dataclass(frozen=True)
class Asked:
    """new: devices have just come, which they have not; else they are replayed, as at boot."""

    rules: Policy
    new: bool = False


@dataclass(frozen=True)
class Answer:
    tagged: bool = False
    parked: bool = False


def marked(asked: Asked, number: int) -> str:
    """Rules that tell by properties what they would do, to all devices as if they had no driver."""
    made = text(asked.rules)
    for words, instead in (
        (f'ATTR{{driver_override}}=="(null)|", ATTR{{driver_override}}="{PARKED}"', f'ENV{{PARKED_{number}}}="1"'),
        ('TEST!="driver", ', ""),
    ):
        assert made.count(words) == 1
        made = made.replace(words, instead)
    made = re.sub(r"(?m)^.*IMPORT\{program\}.*\n", "", made)  # slow, and for each file anew
    made = made.replace('TAG+="flavourd"', f'ENV{{TAGGED_{number}}}="1"')
    made = made.replace(".FLAVOURD_UNSURE", f".UNSURE_{number}")  # it would be seen by the next file
    return made.replace("ENV{SYNTH_UUID}", "ENV{.NEVER}") if asked.new else made


def ask(vm: Machine, asked: Sequence[Asked]) -> dict[str, list[Answer]]:
    """By the device's name, what udev answers to each."""
    vm.run(f"mkdir -p {_FOLDER}")
    for number, each in enumerate(asked):
        vm.write(f"{_FOLDER}/85-{number:03}.rules", marked(each, number))
    replay(vm)
    said = vm.run("cd /run/udev/data && grep -E '^E:(TAGGED|PARKED)_[0-9]+=1$' +pci:*", check=False).out.splitlines()
    found: dict[str, set[str]] = {name: set() for name in vm.run("ls /sys/bus/pci/devices").out.split()}
    for line in said:
        name, _, answer = line.removeprefix("+pci:").partition(":E:")
        found[name].add(answer.removesuffix("=1"))
    return {
        name: [Answer(f"TAGGED_{number}" in told, f"PARKED_{number}" in told) for number in range(len(asked))]
        for name, told in found.items()
    }


def replay(vm: Machine) -> None:
    vm.run("udevadm control --reload && udevadm trigger --settle --action=add --subsystem-match=pci", timeout=180)


# --- what chance brings

_SOME = """
SUBSYSTEM=="pci", KERNEL=="*:0[124]:*", ENV{ID_X}="ab", ENV{ID_Y}="b"
SUBSYSTEM=="pci", KERNEL=="*:0[235]:*", ENV{FLAVOUR_SERIAL}="00-80-ee-00-00-00-41-80"
"""

_LOOK = """
import json, sys
from dataclasses import asdict
sys.path.insert(0, "/usr/lib/flavourd/python")
from flavourd.identity import Identities
from flavourd.traits import Trait
print(json.dumps([asdict(seen) for seen in Identities().all(["pci"], frozenset(Trait))]))
"""


def look(vm: Machine) -> list[tuple[Traits, bool]]:
    """All of the machine's devices, as flavourd sees them, and whether each is a bridge."""
    found = []
    for seen in json.loads(vm.run(["python3", "-c", _LOOK]).out):
        traits = seen["traits"]
        traits |= {"id": DeviceId(**traits["id"]), "pf": DeviceId(**traits["pf"]) if traits["pf"] else None}
        found.append((Traits(**traits), seen["bridge"]))
    return found


def switches(asked: Asked, matcher: Matcher, placed: PlacedRule, traits: Traits, bridge: bool) -> bool:
    """Whether the rule has the device switched when it is there, or comes, by itself."""
    rule = placed.rule
    buses = _FLAVOURS.flavours[rule.flavour].buses if rule.flavour in _FLAVOURS.flavours else ()
    when = rule.inserted if asked.new else rule.present
    if bridge or traits.id.bus not in buses or rule.mode is Mode.OBSERVE or when is _KEEP:
        return False
    return matcher.expected(placed, traits) is None


def test_what_udev_does_is_what_the_policy_says(vm: Machine) -> None:
    """Whatever matches is tagged, and what is parked is to be switched; the same the other way round where udev can
    tell all.
    """
    vf = vm.plug_nvme()
    vm.run(f"cd /sys/bus/pci/devices/{vf} && echo 0 > sriov_drivers_autoprobe && echo 4 > sriov_numvfs")
    vm.run(f"mkdir -p {_FOLDER}")
    vm.write(f"{_FOLDER}/10-some.rules", _SOME)
    replay(vm)
    devices = look(vm)
    assert any(traits.vf == 3 for traits, _ in devices)
    assert any(traits.properties.get("ID_X") == "ab" for traits, _ in devices)
    assert any(traits.serial for traits, _ in devices)

    chances = [Random(seed) for seed in range(100)]
    asked = [Asked(dice.policy(chance, chance.choice((1, 2, 5, 12))), chance.random() < 0.5) for chance in chances]
    answers = ask(vm, asked)
    seen = {Answer(tagged, parked): 0 for tagged in (False, True) for parked in (False, True)}
    for traits, bridge in devices:
        for seed, each in enumerate(asked):
            answer = answers[traits.id.name][seed]
            seen[answer] += 1
            matcher = Matcher(each.rules)
            placed = matcher.rule(traits)
            switched = placed is not None and switches(each, matcher, placed, traits, bridge)
            counts = placed is not None and placed.rule.max_changes is not None
            before = each.rules.rules[: placed.number + 1] if placed else each.rules.rules
            where = f"seed {seed}, {placed}, {traits}"
            if all(surely(one.rule) for one in before):
                assert answer == Answer(placed is not None, switched and not counts), where
            else:
                assert answer.tagged or placed is None, where
                assert switched or not answer.parked, where
    assert seen.pop(Answer(tagged=False, parked=True)) == 0
    assert min(seen.values()) > 50, "chance has brought too little of something"


# --- what is worth saying one by one

_SLOT = Match(slot="99")  # udev cannot tell
_INTEL = Match(vendor="8086")
_LATER = Rule("vfio", _INTEL)
_IDS = tuple(f"{number:04x}" for number in range(0x10D4))
_OTHERS = tuple(f"{number:0430x}" for number in range(50))

# Rules, and whether E1000E (8086:10d3, a network card) is parked by them; it is always tagged.
_CASES: list[tuple[bool, Asked]] = [
    (True, Asked(policy(_LATER))),
    (True, Asked(policy(_LATER), new=True)),
    (True, Asked(policy(Rule("vfio", Match(address="01:00.*", class_="ethernet", path="0:0/1?.0/0.0"))))),
    (True, Asked(policy(Rule("other")))),
    (True, Asked(policy(Rule("vfio", mode=Mode.PREFER)))),
    # What the rule would not switch.
    (False, Asked(policy(Rule("default"), _LATER))),
    (False, Asked(policy(Rule("nosuch"), _LATER))),
    (False, Asked(policy(Rule("vfio", mode=Mode.OBSERVE), _LATER))),
    (False, Asked(policy(Rule("vfio", present=_KEEP, inserted=_KEEP), _LATER))),
    (True, Asked(policy(Rule("vfio", inserted=_KEEP), _LATER))),
    (False, Asked(policy(Rule("vfio", inserted=_KEEP), _LATER), new=True)),
    (False, Asked(policy(Rule("vfio", present=_KEEP), _LATER))),
    (True, Asked(policy(Rule("vfio", present=_KEEP), _LATER), new=True)),
    (True, Asked(policy(Rule("vfio", expect=Expect(vendor="8086", device="10d3"))))),
    (False, Asked(policy(Rule("vfio", expect=Expect(vendor="8086", device="10d4")), _LATER))),
    # udev sees one device at a time.
    (False, Asked(policy(Rule("vfio", max_changes=9), _LATER))),
    (False, Asked(policy(Rule("vfio", _SLOT, max_changes=9), _LATER))),
    # What udev cannot tell.
    *(
        (False, Asked(policy(Rule("vfio", match))))
        for match in (Match(driver="e1000e"), _SLOT, Match(bus="pci", slot="99"), Match(not_=Match(driver="igb")))
    ),
    (False, Asked(policy(Rule("vfio", Match(path="*:00/*.*/0.0"))))),
    # After a rule that only may match, what that one would have parked, too.
    (False, Asked(policy(Rule("default", _SLOT), _LATER))),
    (True, Asked(policy(Rule("vfio", _SLOT), _LATER))),
    (False, Asked(policy(Rule("vfio", _SLOT, expect=Expect(device="1")), _LATER))),
    (True, Asked(policy(Rule("vfio", _SLOT, expect=Expect(device="10d3")), _LATER))),
    (True, Asked(policy(Rule("default", Match(slot="99", vendor="10de")), _LATER))),
    (False, Asked(policy(Rule("default", Match(any=(_SLOT, _INTEL))), _LATER))),
    # More than a line of udev's rules can hold.
    (True, Asked(policy(Rule("vfio", Match(device=_IDS, vendor=(*_IDS, "8086")))))),
    (False, Asked(policy(Rule("default", Match(modalias=(*_OTHERS, "pci:v00008086d*"))), _LATER))),
]


def test_what_is_parked_and_what_is_only_tagged(vm: Machine) -> None:
    asked = [case for _, case in _CASES]
    answers = ask(vm, asked)
    expected = [Answer(tagged=True, parked=parked) for parked, _ in _CASES]
    assert dict(enumerate(answers[E1000E])) == dict(enumerate(expected))

    # Never a bridge, nor what somebody has asked for.
    assert answers[ROOT_PORT][4] == Answer(tagged=True)
    vm.run(f"mkdir -p /run/flavourd/wishes && touch /run/flavourd/wishes/pci:{E1000E}.json")
    assert set(ask(vm, asked)[E1000E]) == {Answer(tagged=True)}


def test_only_a_driverless_device_without_an_override_is_parked(vm: Machine) -> None:
    """By the rules as they are."""
    place = f"/sys/bus/pci/devices/{E1000E}"
    vm.run(f"mkdir -p {_FOLDER}")
    vm.write(f"{_FOLDER}/85-it.rules", text(policy(Rule("vfio", Match(address=E1000E)))))

    def overridden(action: str = "add") -> str:
        vm.run(f"udevadm control --reload && udevadm trigger --settle --action={action} {place}")
        return vm.run(f"cat {place}/driver_override").out.strip()

    vm.run("systemctl stop flavourd")
    assert overridden() == "(null)", "it has a driver"
    vm.run(f"echo {E1000E} > {place}/driver/unbind")
    assert overridden("change") == "(null)"
    vm.run(f"echo x > {place}/driver_override")
    assert overridden() == "x"
    vm.run(f"echo > {place}/driver_override")
    assert overridden() == PARKED
