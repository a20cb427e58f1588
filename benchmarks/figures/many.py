# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many VFs to vfio and back by one request, beside the best loop of bare writes and beside driverctl."""

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import bed
from benchmarks.values import Comparison, Figure, Plot
from tests.vm import devices
from tests.vm.cache import Tell
from tests.vm.image import compiled
from tests.vm.machine import Machine

NAME = "many"
QUICK = False
MOST = 127
"""VFs that QEMU's controller can have."""

_LOOP = "/opt/loop"
_LOOPS = ("loop 1", "loop 2", "loop 4", "loop 8", "loop 16")
_WAYS = ("flavourd", "rested", *_LOOPS, "driverctl")
_GOAL = 1.1
_COUNTS, _ROUNDS = (1, 4, 16, 48, MOST), 3
_QUICK_COUNTS, _QUICK_ROUNDS = (1, 4, 8), 1
# One after the other, and each takes a second: more would take hours.
_DRIVERCTL = 8
_NAMES = {
    "rested": "flavourd after a rest",
    "loop 1": "bare writes, one after the other",
    "driverctl": "driverctl --nosave, one after the other",
}
_ABOUT = """\
An NVMe controller of QEMU's has up to {most} VFs, each put online with a queue of its own and bound to nvme. The first
1, 4, 16 ... of them go to vfio and back: by one Varlink call that names them all, by a loop of bare sysfs writes in C
(one after the other, and by 2, 4, 8 and 16 processes that stand ready before the clock starts), and up to {driverctl}
of them by a loop of driverctl. All ways follow one another in each round, and udev and flavourd have settled before
each. The controllers have no disks, so a guard has little to look at; two emulated processors set the limit of what
many workers can gain. Who asks after more than half a minute in which nobody did waits for a new worker and for
flavourd-processes, which sees who holds a controller open: that is measured for one VF, and else one VF has been there
and back before."""


def measure(tell: Tell, quick: bool) -> dict[str, Any]:
    rounds, counts = (_QUICK_ROUNDS, _QUICK_COUNTS) if quick else (_ROUNDS, _COUNTS)
    with bed.machine(tell) as vm:
        vm.write(_LOOP, _loop(tell), 0o755)
        pf = plug_controller(vm)
        # After nvme: driverctl lets the bus choose, which asks the drivers in the order in which they came.
        vm.run("modprobe vfio-pci")
        tell(f"many: {rounds} rounds of {', '.join(map(str, counts))} VFs")
        words = (str(rounds), pf, str(_DRIVERCTL), *map(str, counts))
        done = vm.run(bed.guest(vm, "many", *words), timeout=4 * 3600)
    return {"seconds": json.loads(done.out)}


def figure(raw: dict[str, Any]) -> Figure:
    by_count = {int(count): {way: _round_trips(times) for way, times in ways.items()} for count, ways in _each(raw)}
    comparisons = []
    for count, ways in by_count.items():
        best = _best(count, ways)
        ours = f"{count} VF{'s' if count > 1 else ''}, one Varlink call"
        comparisons.append(Comparison(ours, _name(best), ways["flavourd"], ways[best], goal=_GOAL))
        if "rested" in ways:
            comparisons.append(Comparison(f"{ours}, after a rest", _name(best), ways["rested"], ways[best]))
        if "driverctl" in ways:
            comparisons.append(Comparison(ours, _name("driverctl"), ways["flavourd"], ways["driverctl"]))
    # From where on a call's own cost does not count any more.
    few, most = min(max(by_count), 16) if max(by_count) > 16 else min(by_count), max(by_count)
    each = {count: tuple(time / count for time in by_count[count]["flavourd"]) for count in (few, most)}
    comparisons.append(
        Comparison(f"one of {most} VFs, one Varlink call", f"one of {few} VFs", each[most], each[few], goal=_GOAL)
    )
    best_line = [(float(count), median(ways[_best(count, ways)])) for count, ways in by_count.items()]
    lines = {
        "flavourd, one Varlink call": _line(by_count, "flavourd"),
        _name("loop 1"): _line(by_count, "loop 1"),
        "the best loop of bare writes": best_line,
        _name("driverctl"): _line(by_count, "driverctl"),
    }
    seconds = "; ".join(
        f"{count}: {', '.join(f'{_name(way)} {median(ways[way]):.2f}' for way in _WAYS if way in ways)}"
        for count, ways in by_count.items()
    )
    return Figure(
        NAME,
        f"Many devices: up to {max(by_count)} NVMe VFs",
        _ABOUT.format(most=most, driverctl=max(count for count, ways in by_count.items() if "driverctl" in ways)),
        tuple(comparisons),
        (Plot("lines", "To vfio and back", "VFs", "seconds", lines, log=True),),
        (
            f"Seconds there and back, medians, of so many VFs: {seconds}.",
            "driverctl gives the ids of the device to vfio-pci for good (new_id); they are taken away again after it, "
            "or the next VF that the bus chooses a driver for might go there.",
        ),
    )


def plug_controller(vm: Machine) -> str:
    """Plug an NVMe controller that has room for all its VFs, and return its address when its driver has it.

    Each VF needs two queues (one is for administration) and one interrupt, which are taken from the PF's own; that
    keeps two and one. 127 VFs and the PF, with 16 KiB of registers each, fill the 2 MiB behind a port exactly.
    """
    address = vm.plug(
        "nvme",
        serial="many",
        subsys=devices.NVME_SUBSYSTEM,
        sriov_max_vfs=MOST,
        sriov_vq_flexible=2 * MOST,
        sriov_vi_flexible=MOST,
        max_ioqpairs=2 * MOST + 2,
        msix_qsize=MOST + 1,
    )
    vm.wait_for(f"readlink /sys/bus/pci/devices/{address}/driver | grep -qx '.*/nvme'")
    vm.wait_for(f"grep -qx live /sys/bus/pci/devices/{address}/nvme/nvme*/state")
    return address


def _loop(tell: Tell) -> bytes:
    programs = Path(bed.__file__).parent / "guest"
    built = compiled(programs / "loop.sh", [programs / "loop.c", programs / "bare.h"], tell)
    with tarfile.open(built.folder / "files.tar") as files:
        member = files.extractfile("./loop")
        assert member
        return member.read()


def _each(raw: dict[str, Any]) -> list[tuple[str, dict[str, dict[str, list[float]]]]]:
    return sorted(raw["seconds"].items(), key=lambda item: int(item[0]))


def _round_trips(directions: Mapping[str, list[float]]) -> tuple[float, ...]:
    return tuple(there + back for there, back in zip(directions["there"], directions["back"], strict=True))


def _best(count: int, ways: Mapping[str, tuple[float, ...]]) -> str:
    """The loop that took least, of those in which every worker has something to do."""
    loops = [way for way in _LOOPS if way in ways and int(way.removeprefix("loop ")) <= count]
    return min(loops, key=lambda way: median(ways[way]))


def _name(way: str) -> str:
    return _NAMES.get(way) or (f"bare writes by {way.removeprefix('loop ')} at once" if way.startswith("loop") else way)


def _line(by_count: Mapping[int, Mapping[str, tuple[float, ...]]], way: str) -> list[tuple[float, float]]:
    return [(float(count), median(ways[way])) for count, ways in by_count.items() if way in ways]
