# SPDX-License-Identifier: LGPL-2.1-or-later
"""What flavourd adds to the boot, up to multi-user.target."""

from typing import Any

from benchmarks import bed
from benchmarks.values import Comparison, Figure, Plot, ratio_bars
from tests.vm.cache import Tell
from tests.vm.machine import Machine

NAME = "boot"
QUICK = False
_GOAL = 1.05
_RULES = 100
_POLICY = "/etc/flavourd/policy.d/50-bench.yaml"
_UDEV = "/usr/lib/udev/rules.d/90-flavourd.rules"
# Microseconds of the monotonic clock. Until user space begins, nothing of flavourd is there.
_BEGAN = "systemctl show -P UserspaceTimestampMonotonic"
_REACHED = "systemctl show -P ActiveEnterTimestampMonotonic multi-user.target"
_SERVICE = "systemctl show -P {} flavourd.service"
_ABOUT = """\
The guest is rebooted in turn without flavourd (units disabled, udev rules taken away), with it and no policy, and
with a policy of {rules} rules, of which each has to be looked at for every device and none fits: what a rule that
fits would add is the switch itself. What is measured is systemd's own time from the beginning of user space until
multi-user.target is reached, which waits for flavourd to be ready; flavourd-attributes starts beside it and is not
waited for. One boot before the first round is not counted.
Under emulation everything that runs takes its share of two slow processors, so also what runs beside the boot
lengthens it."""


def measure(tell: Tell, quick: bool) -> dict[str, Any]:
    rounds = 1 if quick else 4
    told: dict[str, list[dict[str, float]]] = {"without": [], "empty": [], "rules": []}
    with bed.machine(tell) as vm:
        vm.reboot()
        for number in range(rounds):
            tell(f"boot: round {number + 1} of {rounds}")
            # Now from the one end, now from the other: a boot also has to do with what the one before has left.
            for way in sorted(told, reverse=bool(number % 2)):
                _prepare(vm, way)
                vm.reboot()
                told[way].append(_seen(vm, way))
    return {"boots": told, "rules": _RULES}


def _prepare(vm: Machine, way: str) -> None:
    vm.run(f"rm -f {_POLICY}")
    if way == "without":
        vm.run(f"systemctl disable flavourd && if [ -e {_UDEV} ]; then mv {_UDEV} {_UDEV}.away; fi", timeout=120)
    else:
        vm.run(f"if [ -e {_UDEV}.away ]; then mv {_UDEV}.away {_UDEV}; fi && systemctl enable flavourd", timeout=120)
    if way == "rules":
        vm.run("mkdir -p /etc/flavourd/policy.d")
        vm.write(_POLICY, _policy(), mode=0o644)
    vm.run("sync")


def _policy() -> str:
    """Rules as people write them, for devices that are not here."""
    kinds = (
        '{{vendor: "10de", device: "{0:04x}"}}',
        '{{address: "00{0:02x}:65:00.0"}}',
        '{{class: nvme, serial: "00-80-ee-00-00-{0:02x}-41-80"}}',
        '{{class: ethernet, vendor: "15b3", vf: "{0}-"}}',
        '{{modalias: "pci:v0000144Dd0000{0:04X}*"}}',
    )
    rules = (f"  - flavour: vfio\n    match: {kinds[n % len(kinds)].format(n + 1)}\n" for n in range(_RULES))
    return "rules:\n" + "".join(rules)


def _seen(vm: Machine, way: str) -> dict[str, float]:
    """In seconds: the boot, and of it the unit with what it waits for, and the daemon until it is ready."""
    vm.wait_for(f'[ "$({_REACHED})" -gt 0 ]', 300)
    active = vm.run("systemctl is-active flavourd", check=False).out.strip()
    assert active == ("inactive" if way == "without" else "active"), f"{way}: flavourd is {active}"
    seen = {"boot": _number(vm, _REACHED) - _number(vm, _BEGAN)}
    if way != "without":
        told = vm.run("flavourctl --json=short status").out
        assert (f'"rules":{_RULES}' in told.replace(" ", "")) == (way == "rules"), f"{way}: {told}"
        begin, start, ready = (
            _number(vm, _SERVICE.format(f"{name}TimestampMonotonic"))
            for name in ("InactiveExit", "ExecMainStart", "ActiveEnter")
        )
        seen |= {"unit": ready - begin, "daemon": ready - start}
    return seen


def _number(vm: Machine, command: str) -> float:
    """Of microseconds the seconds."""
    return int(vm.run(command).out) / 1e6


def figure(raw: dict[str, Any]) -> Figure:
    boots: dict[str, list[dict[str, float]]] = raw["boots"]
    names = {"empty": "boot with flavourd, no policy", "rules": f"boot with flavourd, {raw['rules']} rules"}
    without = tuple(each["boot"] for each in boots["without"])
    comparisons = [
        Comparison(
            name,
            "boot without it",
            tuple(each["boot"] for each in boots[way]),
            without,
            goal=_GOAL if way == "empty" else None,
        )
        for way, name in names.items()
    ]
    comparisons += [
        Comparison(f"of it {label}, {words}", "", tuple(each[part] for each in boots[way]))
        for way, words in {"empty": "no policy", "rules": f"{raw['rules']} rules"}.items()
        for part, label in {"unit": "the unit, with what it waits for", "daemon": "the daemon until READY"}.items()
    ]
    seconds = {"boot without flavourd": without} | {each.what: each.values for each in comparisons[:2]}
    return Figure(
        NAME,
        "Boot to multi-user.target",
        _ABOUT.format(rules=raw["rules"]),
        tuple(comparisons),
        (
            ratio_bars("Boot to multi-user.target", "boot without flavourd", comparisons[:2], _GOAL),
            Plot("bars", "Boot to multi-user.target, in seconds", "seconds of user space", "", seconds),
        ),
    )
