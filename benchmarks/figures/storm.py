# SPDX-License-Identifier: LGPL-2.1-or-later
"""A storm of requests, of which flavourd cannot carry out all: whether each has an answer, and what it costs."""

import json
from typing import Any

from benchmarks import bed
from benchmarks.values import Comparison, Figure, Plot
from tests.vm.cache import Tell
from tests.vm.devices import FREE_PORTS

NAME = "storm"
QUICK = False
_REQUESTS, _CALLERS = 10_000, 300
_QUICK_REQUESTS, _QUICK_CALLERS = 200, 20
_DEVICES = len(FREE_PORTS)
# No answer at all. Whatever else was said is one, be it a refusal.
_UNANSWERED = ("no outcome", "no answer", "hung up")
_LIMIT = 2.0
_ABOUT = """\
Half of the requests are synthetic uevents, written as fast as the kernel takes them; meanwhile the other half are
Varlink calls of {callers} callers at once, each of whom asks again as soon as he is answered. They are for {devices}
devices without a native driver, now to vfio, now back. No more than 256 requests wait for a device, and no more than
256 connections of a user; what is too many is refused at once. A call has its reply; of a uevent the outcome is looked
up in the journal by its UUID. In the end each device must be in the flavour of the last request that was carried
out. The memory is beside the daemon's own peak before the storm."""


def measure(tell: Tell, quick: bool) -> dict[str, Any]:
    requests, callers = (_QUICK_REQUESTS, _QUICK_CALLERS) if quick else (_REQUESTS, _CALLERS)
    with bed.machine(tell) as vm:
        vm.run("modprobe vfio-pci")
        addresses = [vm.plug("pci-testdev") for _ in range(_DEVICES)]
        tell(f"storm: {requests} requests")
        words = bed.guest(vm, "storm", str(requests), str(callers), *addresses)
        done = vm.run(words, timeout=2 * 3600)
        alive = vm.run("systemctl is-active flavourd", check=False).out.strip()
    counts = {"requests": requests, "callers": callers, "devices": len(addresses)}
    return {**counts, "alive": alive, **json.loads(done.out)}


def figure(raw: dict[str, Any]) -> Figure:
    unanswered = sum(raw[road].get(what, 0) for road in ("uevents", "calls") for what in _UNANSWERED)
    ended = len(raw["wrong"]) + (raw["alive"] != "active") + (not raw["same daemon"])
    remarks = [
        f"{told}: {', '.join(f'{count} {what}' for what, count in sorted(raw[road].items()))}."
        for told, road in (("Uevents", "uevents"), ("Calls", "calls"))
    ]
    if times := raw["told lost"]:
        remarks.append(
            f"{times} times uevents came faster than flavourd could read them, and the kernel dropped some: it has "
            "told so (uevents-lost). Of those that a later one for the same device has overtaken then nothing is told."
        )
    remarks.append(f"All was over after {raw['seconds']:.0f} s.")
    remarks += raw["wrong"]
    resident = [(seconds, rss / 1e6) for seconds, rss, _ in raw["samples"]]
    proportional = [(seconds, pss / 1e6) for seconds, _, pss in raw["samples"]]
    return Figure(
        NAME,
        f"A storm of {raw['requests']:,} requests",
        _ABOUT.format(**raw),
        (
            Comparison("requests without an answer", "", (unanswered,), unit="requests", limit=0),
            Comparison(
                "peak of resident memory",
                "the peak before",
                (raw["peak"] / 1e6,),
                (raw["at rest"] / 1e6,),
                unit="MB",
                goal=_LIMIT,
            ),
            Comparison("daemons that died, devices elsewhere than told", "", (ended,), unit="cases", limit=0),
        ),
        (
            Plot(
                "lines",
                "Memory of the daemon in the storm",
                "seconds",
                "MB",
                {"resident": resident, "proportional (workers share it)": proportional},
            ),
        ),
        tuple(remarks),
    )
