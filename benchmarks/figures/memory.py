# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon's memory: at rest, after thousands of switches, and with many VFs in vfio."""

import re
from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks import bed
from benchmarks.figures.many import MOST, plug_controller
from benchmarks.values import Comparison, Figure, Plot
from tests.vm.cache import Tell
from tests.vm.machine import Machine

NAME = "memory"
QUICK = False
# A sample after so many; and so many until the daemon has all the outcomes that it keeps, in memory and in its file.
_SWITCHES, _EVERY, _WARM = 10_000, 1000, 1000
_QUICK_SWITCHES, _QUICK_EVERY, _QUICK_WARM = 100, 10, 20
_QUICK_VFS = 8
_LIMIT = 25.0
_GROWTH = 1.02
_DEVICES = 2
_ABOUT = """\
The proportional set size of flavourd's process as the kernel tells it (smaps_rollup), in millions of bytes, read by cat
while no worker is forked, whose sharing would halve it; flavourd-attributes runs too and shares the interpreter's
files. At rest: just installed and started. Then {devices} devices without a native driver go to vfio and back, both by
one Varlink call, {switches:,} switches in all. On a fresh machine {vfs} VFs of an NVMe controller are made and
listed, and all of them switched by one call."""


def measure(tell: Tell, quick: bool) -> dict[str, Any]:
    switches, every, warm, vfs = (
        (_QUICK_SWITCHES, _QUICK_EVERY, _QUICK_WARM, _QUICK_VFS) if quick else (_SWITCHES, _EVERY, _WARM, MOST)
    )
    with bed.machine(tell) as vm:
        vm.run("modprobe vfio-pci")
        rest = _memory(vm)
        addresses = [vm.plug("pci-testdev") for _ in range(_DEVICES)]
        samples = []
        for number in range(every, switches + 1, every):
            # Each call is a switch of every device.
            vm.run(bed.guest(vm, "switching", str(every // _DEVICES), *addresses), timeout=3600)
            samples.append([number, _memory(vm)])
            tell(f"memory: {number} switches, {samples[-1][1]}")
    with bed.machine(tell) as vm:
        vm.run("modprobe vfio-pci")
        rests = [rest, _memory(vm)]
        made = vm.run(bed.guest(vm, "known", plug_controller(vm), str(vfs)), timeout=600).out.split()
        known = _memory(vm)
        tell(f"memory: switching {vfs} VFs")
        vm.run(bed.guest(vm, "switching", "1", *made), timeout=600)
        switched = _memory(vm)
        vm.run(bed.guest(vm, "switching", "1", *made), timeout=600)
        back = _memory(vm)
    return {
        "rest": rests,
        "devices": _DEVICES,
        "switches": samples,
        "warm": warm,
        "vfs": {"count": vfs, "known": known, "switched": switched, "back": back},
    }


def figure(raw: dict[str, Any]) -> Figure:
    samples = [(number, memory["Pss"]) for number, memory in raw["switches"]]
    warm = [memory for number, memory in samples if number > raw["warm"]]
    quarter = max(1, len(warm) // 4)
    first, last, switches = warm[:quarter], warm[-quarter:], samples[-1][0]
    vfs = raw["vfs"]
    rest = [memory["Pss"] for memory in raw["rest"]]
    return Figure(
        NAME,
        "Memory of the daemon",
        _ABOUT.format(devices=raw["devices"], switches=switches, vfs=vfs["count"]),
        (
            _absolute("at rest", rest),
            _absolute(f"after {switches:,} switches", last),
            Comparison(
                f"in the last quarter of {switches:,} switches",
                f"the first quarter after {raw['warm']:,}",
                (median(last),),
                (median(first),),
                unit="MB",
                goal=_GROWTH,
            ),
            _absolute(f"{vfs['count']} VFs known", [vfs["known"]["Pss"]]),
            _absolute(f"{vfs['count']} VFs in vfio", [vfs["switched"]["Pss"]]),
            _absolute(f"{vfs['count']} VFs back again", [vfs["back"]["Pss"]]),
        ),
        (
            Plot(
                "lines",
                "Memory of the daemon over switches",
                "switches",
                "PSS, MB",
                {"PSS": [(0, rest[0]), *samples]},
                goal=_LIMIT,
            ),
        ),
        (
            f"Of the {rest[0]:.1f} MB at rest {raw['rest'][0]['Pss_Anon']:.1f} are its own (anonymous); the rest is "
            f"its part of files that others have mapped, too. Resident in all: {raw['rest'][0]['Rss']:.1f} MB.",
        ),
    )


def _absolute(what: str, values: Sequence[float]) -> Comparison:
    return Comparison(what, "", tuple(values), unit="MB", limit=_LIMIT)


def _memory(vm: Machine) -> dict[str, float]:
    """Of the daemon, when none of its workers is left: in millions of bytes."""
    service = "/sys/fs/cgroup/system.slice/flavourd.service/cgroup.procs"
    vm.wait_for(f"[ $(wc -l < {service}) = 1 ]", timeout=120)  # workers wait half a minute for another job
    text = vm.run("cat /proc/$(systemctl show -P MainPID flavourd)/smaps_rollup").out
    found = re.findall(r"(?m)^(Rss|Pss|Pss_Anon|Pss_File): +(\d+) kB$", text)
    return {name: int(kibibytes) * 1024 / 1e6 for name, kibibytes in found}
