# SPDX-License-Identifier: LGPL-2.1-or-later
"""The first switch on a host that has no module of vfio's loaded."""

import json
from typing import Any

from benchmarks import bed
from benchmarks.figures.switched import DEVICES, words
from benchmarks.values import Comparison, Figure, ratio_bars
from tests.vm.cache import Tell

NAME = "cold"
QUICK = False  # modules are unloaded and loaded again: too slow for a look
_GOAL = 1.3
_BARE = "modprobe and bare sysfs writes in C"
_ABOUT = """\
All modules of vfio's are unloaded before each switch, and no worker of flavourd's waits for a job; but it has read the
kernel's module tables before, as it does once and modprobe each time. A Varlink call puts the device into vfio; beside
it stand `modprobe` of the same driver and the bare writes to sysfs, without the start of the program that makes them.
They take turns, and each goes first in every other round."""


def measure(tell: Tell, quick: bool) -> dict[str, Any]:
    rounds = 2 if quick else 12
    with bed.machine(tell) as vm:
        tell(f"cold: {rounds} rounds")
        measured = json.loads(vm.run(bed.guest(vm, "cold", str(rounds), *words()), timeout=7200).out)
    return {what: {name: of[address] for name, (address, *_) in DEVICES.items()} for what, of in measured.items()}


def figure(raw: dict[str, Any]) -> Figure:
    comparisons = tuple(
        Comparison(f"Varlink call, {device}", _BARE, tuple(ways["varlink"]), tuple(ways["bare"]), goal=_GOAL)
        for device, ways in raw["seconds"].items()
    )
    remarks = tuple(
        f"{device}: loaded in the end were {_told(ways['varlink'])} by flavourd and {_told(ways['bare'])} by modprobe."
        for device, ways in raw["loaded"].items()
    )
    return Figure(
        NAME,
        "The first switch, with no module loaded",
        _ABOUT,
        comparisons,
        (ratio_bars("The first switch", _BARE, comparisons, _GOAL),),
        remarks,
    )


def _told(modules: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in modules)
