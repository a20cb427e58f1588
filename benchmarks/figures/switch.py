# SPDX-License-Identifier: LGPL-2.1-or-later
"""One switch to vfio and back, in every way there is, beside the bare writes that the kernel wants."""

import json
from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks import bed
from benchmarks.figures.switched import DEVICES, words
from benchmarks.values import Comparison, Figure, Plot, ratio_bars
from tests.vm.cache import Tell
from tests.vm.machine import Machine

NAME = "switch"
QUICK = True
_FLOOR = "bare sysfs writes in C"
_GOAL = 1.5
_WAYS: Mapping[str, tuple[str, float | None]] = {
    "fuse": ("FUSE attribute", _GOAL),
    "kernel": ("kernel attribute", _GOAL),
    "varlink": ("Varlink call", _GOAL),
    "uevent": ("synthetic uevent", None),
    "flavourctl": ("flavourctl", None),
    "driverctl": ("driverctl", None),
    "driverctl-nosave": ("driverctl --nosave", None),
    "virsh": ("virsh", None),
    "dpdk-devbind": ("dpdk-devbind.py", None),
}
_REMARKS = {
    "virsh": "libvirt chooses the variant for the virtio-net by itself. Its daemon runs, and is stopped by a signal "
    "while others are measured: it hears each change of a driver.",
    "dpdk-devbind": "dpdk-devbind.py knows of no variants and was given vfio-pci for the virtio-net, too.",
    "driverctl": "For vfio-pci driverctl writes the driver's new_id as well; that is taken back after each round trip, "
    "untimed, so that it is new each time.",
}
# Those for which nothing has to be started.
_QUICK = ("floor", "fuse", "kernel", "varlink", "uevent", "flavourctl", "driverctl")
_ABOUT = """\
Each way takes the device from its native driver to vfio and back, with all modules loaded, timed inside the guest from
the first write, call or exec until it returns (the synthetic uevent: until the kernel tells that the driver is bound).
All ways follow one another in each round, in another order each time, and udev has settled before each. flavourd's
workers stay for half a minute, so one of them may be at hand. Of the bare writes (driver_override, unbind,
bind) the start of the program is not counted. The guest's two processors are emulated, which makes interpreters dearer
beside the kernel than they are on hardware."""


def measure(tell: Tell, quick: bool) -> dict[str, Any]:
    rounds = 2 if quick else 12
    ways = _QUICK if quick else ("floor", *_WAYS)
    devices = ("e1000e",) if quick else tuple(DEVICES)
    with bed.machine(tell) as vm:
        _load(vm)
        tell(f"switch: {rounds} rounds")
        done = vm.run(bed.guest(vm, "switches", str(rounds), ",".join(ways), *words(devices)), timeout=7200)
    seconds = json.loads(done.out)
    return {"seconds": {name: seconds[DEVICES[name][0]] for name in devices}}


def figure(raw: dict[str, Any]) -> Figure:
    comparisons: list[Comparison] = []
    plots: list[Plot] = []
    remarks = [told for way, told in _REMARKS.items() if all(way in ways for ways in raw["seconds"].values())]
    for device, ways in raw["seconds"].items():
        trips = {way: _round_trips(directions) for way, directions in ways.items()}
        beside = [
            Comparison(f"{told}, {device}", _FLOOR, trips[way], trips["floor"], goal=goal)
            for way, (told, goal) in _WAYS.items()
            if way in ways
        ]
        comparisons += [
            *beside,
            Comparison(
                f"flavourctl set, {device}",
                "driverctl set-override",
                tuple(ways["flavourctl"]["there"]),
                tuple(ways["driverctl"]["there"]),
                goal=1.0,
            ),
            Comparison(
                f"flavourctl reset, {device}",
                "driverctl unset-override",
                tuple(ways["flavourctl"]["back"]),
                tuple(ways["driverctl"]["back"]),
            ),
        ]
        if unsaved := ways.get("driverctl-nosave"):
            beside_unsaved = "driverctl --nosave set-override"
            there = tuple(ways["flavourctl"]["there"]), tuple(unsaved["there"])
            comparisons.append(Comparison(f"flavourctl set, nothing saved, {device}", beside_unsaved, *there))
        plots.append(ratio_bars(f"To vfio and back: {device}", _FLOOR, beside, _GOAL))
        remarks.append(f"{device}, seconds there and back: {_directions(ways)}.")
    return Figure(NAME, "One switch", _ABOUT, tuple(comparisons), tuple(plots), tuple(remarks))


def _load(vm: Machine) -> None:
    """All modules, so that none is loaded while it counts; flavourd listens to its own when it has the node open."""
    vm.run(["modprobe", "-a", "driver_flavour", *(flavoured for _, _, flavoured in DEVICES.values())])
    listens = "ls -l /proc/$(systemctl show -P MainPID flavourd)/fd | grep -q ' /dev/driver_flavour$'"
    vm.wait_for(listens, timeout=60)
    # By itself it ends when nobody has asked it for two minutes.
    vm.write("/etc/default/libvirtd", "LIBVIRTD_ARGS=\n")


def _round_trips(directions: Mapping[str, list[float]]) -> tuple[float, ...]:
    return tuple(there + back for there, back in zip(directions["there"], directions["back"], strict=True))


def _directions(ways: Mapping[str, Mapping[str, list[float]]]) -> str:
    names = {"floor": _FLOOR, **{way: told for way, (told, _) in _WAYS.items()}}
    return "; ".join(
        f"{told} {median(ways[way]['there']):.3f} and {median(ways[way]['back']):.3f}"
        for way, told in names.items()
        if way in ways
    )
