# SPDX-License-Identifier: LGPL-2.1-or-later
"""What thousands of uevents that are none of flavourd's business cost it."""

import json
from statistics import median
from typing import Any

from benchmarks import bed
from benchmarks.values import Comparison, Figure
from tests.vm.cache import Tell

NAME = "quiet"
QUICK = False
_EVENTS, _ROUNDS = 10_000, 2
_QUICK_EVENTS, _QUICK_ROUNDS = 500, 1
_UNITS = ("flavourd", "flavourd-attributes")
# Half of WatchdogSec= of the one, and twice that of the other.
_PERIOD = 30
# The same wake-ups may meet a tick of the clock, or not.
_TICKS = 1
_ABOUT = """\
One process writes `change` again and again to the uevent file of the device mem/null, which makes as many uevents, and
waits until udev is done with them. Meanwhile the kernel counts how often flavourd and flavourd-attributes have been
woken (voluntary context switches) and how long they ran; the same is counted over a time of the same length without
events. Both are the same multiple of the half minute in which they tell systemd's watchdog that they live, so these
wake-ups are in both, and what is told here is what was more. The processor's time is counted by the kernel's clock
tick of 10 ms, as ps shows it, which leaves one tick open, and beside
that to the nanosecond (schedstat)."""


def measure(tell: Tell, quick: bool) -> dict[str, Any]:
    events, rounds = (_QUICK_EVENTS, _QUICK_ROUNDS) if quick else (_EVENTS, _ROUNDS)
    with bed.machine(tell) as vm:
        tell(f"quiet: {rounds} rounds of {events} events")
        done = vm.run(bed.guest(vm, "quiet", str(rounds), str(events), str(_PERIOD), *_UNITS), timeout=2 * 3600)
    return {"events": events, "rounds": json.loads(done.out)}


def figure(raw: dict[str, Any]) -> Figure:
    comparisons, remarks = [], []
    for unit in _UNITS:
        counts = [each["units"][unit] for each in raw["rounds"]]

        def more(key: str, counts: list[dict[str, dict[str, float]]] = counts) -> tuple[float, ...]:
            return tuple(each["with"][key] - each["without"][key] for each in counts)

        events = f"more during {raw['events']:,} events"
        comparisons += [
            Comparison(f"{unit}: {events}", "the same time without", more("wake-ups"), unit="wake-ups", limit=0),
            Comparison(f"{unit}: {events}", "the same time without", more("ticks"), unit="ticks", limit=_TICKS),
        ]
        woken, ran, interrupted = (
            [median(each[what][key] for each in counts) for what in ("with", "without")]
            for key in ("wake-ups", "seconds", "interrupted")
        )
        remarks.append(
            f"{unit}, with and without events: {woken[0]:g} and {woken[1]:g} wake-ups in all, "
            f"{1000 * ran[0]:.1f} and {1000 * ran[1]:.1f} ms on a processor, "
            f"{interrupted[0]:g} and {interrupted[1]:g} times interrupted by others."
        )
    took, length = (median(each[key] for each in raw["rounds"]) for key in ("took", "length"))
    remarks.append(f"Kernel and udev were busy with the events for {took:.0f} s of {length:.0f}.")
    return Figure(NAME, f"{raw['events']:,} unrelated uevents", _ABOUT, tuple(comparisons), remarks=tuple(remarks))
