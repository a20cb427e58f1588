# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long the daemon takes until it is ready, beside an interpreter that imports the same libraries."""

import json
from typing import Any

from benchmarks import bed
from benchmarks.values import Comparison, Figure, ratio_bars
from tests.vm.cache import Tell

NAME = "start"
QUICK = False  # half a minute for two rounds
_GOAL = 1.3
_ABOUT = """\
From exec of `/usr/sbin/flavourd` until its READY=1 arrives, started by a small program that passes it a socket as
systemd does; no request is waiting and there is no policy. Beside it `/usr/bin/python3 -I` that imports the
{libraries} modules of the standard library and of others that the daemon has loaded when it is ready, and says
READY=1 as well. Both are mostly Python reading modules: what is left to flavourd is the number of its own modules
({own}), and a look at all devices and at what is left of an earlier run."""


def measure(tell: Tell, quick: bool) -> dict[str, Any]:
    rounds = 2 if quick else 12
    with bed.machine(tell) as vm:
        # What holds its socket, or would start it again.
        vm.run("systemctl stop flavourd.socket flavourd-attributes.service flavourd.service", timeout=120)
        vm.run("udevadm settle")
        tell(f"start: {rounds} rounds")
        measured: dict[str, Any] = json.loads(vm.run(bed.guest(vm, "start", str(rounds)), timeout=3600).out)
    return measured


def figure(raw: dict[str, Any]) -> Figure:
    seconds = {way: tuple(values) for way, values in raw["seconds"].items()}
    bare, nothing = "python3 importing its libraries", "python3 -c pass"
    comparisons = (
        Comparison("flavourd, exec to READY", bare, seconds["daemon"], seconds["libraries"], goal=_GOAL),
        Comparison("python3 importing these and flavourd's modules", bare, seconds["own"], seconds["libraries"]),
        Comparison("flavourd, exec to READY", nothing, seconds["daemon"], seconds["pass"]),
        Comparison(bare, nothing, seconds["libraries"], seconds["pass"]),
    )
    return Figure(
        NAME,
        "Start of the daemon",
        _ABOUT.format(libraries=raw["libraries"], own=raw["modules"] - raw["libraries"]),
        comparisons,
        (ratio_bars("Start of the daemon", bare, comparisons[:2], _GOAL),),
    )
