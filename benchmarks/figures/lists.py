# SPDX-License-Identifier: LGPL-2.1-or-later
"""What it costs to look: `flavourctl list`."""

import json
from typing import Any

from benchmarks import bed
from benchmarks.figures.many import MOST, plug_controller
from benchmarks.values import Comparison, Figure, ratio_bars
from tests.vm.cache import Tell

NAME = "lists"
QUICK = True
_GOAL = 1.3
_OURS, _DRIVERCTL = "flavourctl list", "driverctl list-devices"
_IMPORTS, _ONLY, _PASS = "python3 -I, same imports", "python3 -IS, same imports", "python3 -c pass"
_ABOUT = """\
`flavourctl list` tells {lines} lines of devices, `driverctl list-devices` {others}. Beside them interpreters are
started that import the {modules} modules of the standard library that `flavourctl list` imports, and one that imports
nothing; `-IS` are the flags of flavourctl's own, which leave out the look for what else is installed. Each writes to a
pipe; they take turns, in the other order in every other round. What is left to flavourctl is reading its own modules,
the call, and the daemon's look at all devices."""
_MORE = """\
Then the two list {most} VFs too: {lines} lines and {others}."""


def measure(tell: Tell, quick: bool) -> dict[str, Any]:
    rounds = 3 if quick else 12
    with bed.machine(tell) as vm:
        tell(f"lists: {rounds} rounds")
        measured: dict[str, Any] = json.loads(vm.run(bed.guest(vm, "lists", str(rounds)), timeout=3600).out)
        if not quick:
            tell(f"lists: {rounds} rounds with {MOST} VFs")
            words = (str(rounds), plug_controller(vm), str(MOST))
            measured["more"] = json.loads(vm.run(bed.guest(vm, "lists", *words), timeout=3600).out)
    return measured


def figure(raw: dict[str, Any]) -> Figure:
    seconds = {name: tuple(values) for name, values in raw["seconds"].items()}
    comparisons = [
        Comparison(_OURS, _DRIVERCTL, seconds["flavourctl"], seconds["driverctl"], goal=0.3),
        Comparison(_OURS, _IMPORTS, seconds["flavourctl"], seconds["imports"], goal=_GOAL),
        Comparison(_OURS, _ONLY, seconds["flavourctl"], seconds["imports-only"], goal=_GOAL),
    ]
    names = {"flavourctl": _OURS, "driverctl": _DRIVERCTL, "imports": _IMPORTS, "imports-only": _ONLY}
    beside = tuple(Comparison(told, _PASS, seconds[name], seconds["pass"]) for name, told in names.items())
    lines = raw["lines"]
    about = _ABOUT.format(lines=lines["flavourctl"], others=lines["driverctl"], modules=len(raw["modules"]))
    if more := raw.get("more"):
        lines, theirs, ours = more["lines"], more["seconds"]["driverctl"], more["seconds"]["flavourctl"]
        comparisons.append(Comparison(f"{_OURS}, with {MOST} VFs", f"{_DRIVERCTL}, the same", ours, theirs, goal=0.3))
        about += "\n" + _MORE.format(most=MOST, lines=lines["flavourctl"], others=lines["driverctl"])
    return Figure(
        NAME, "List of devices", about, (*comparisons, *beside), (ratio_bars("List of devices", _PASS, beside),)
    )
