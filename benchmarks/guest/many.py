# SPDX-License-Identifier: LGPL-2.1-or-later
"""Switch many VFs at once, in all ways, and print as JSON how many seconds each direction took, round by round.

usage: many ROUNDS PF MOST COUNT...

Of driverctl, which takes one device after the other, so many at MOST.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from .asking import ask
from .device import Device, settle
from .vfs import SYSFS, make

_LOOP = "/opt/loop"
_WORKERS = (1, 2, 4, 8, 16)
# Longer than flavourd's worker and flavourd-processes wait for the next request.
_REST_SECONDS = 35

# Switch devices there or back, and return the seconds.
Way = Callable[[Sequence[Device], bool], float]


def _flavourd(devices: Sequence[Device], there: bool) -> float:
    began = time.monotonic()
    ask("Set", devices=[device.address for device in devices], flavour="vfio" if there else "default")
    return time.monotonic() - began


def _rested(devices: Sequence[Device], there: bool) -> float:
    if there:
        time.sleep(_REST_SECONDS)
    return _flavourd(devices, there)


def _loop(workers: int) -> Way:
    def switch(devices: Sequence[Device], there: bool) -> float:
        driver = devices[0].flavoured if there else devices[0].native
        words = (str(workers), "there" if there else "back", driver, *(device.address for device in devices))
        return float(subprocess.run([_LOOP, *words], check=True, stdout=subprocess.PIPE, text=True).stdout)

    return switch


def _forget_id(device: Device) -> None:
    """driverctl has told vfio-pci that the ids of these devices are its own, and leaves it at that: as it is, no VF
    would go to nvme any more that is not bound to it by name.
    """
    vendor, model = ((device.sysfs / name).read_text().strip() for name in ("vendor", "device"))
    (SYSFS / "drivers/vfio-pci/remove_id").write_text(f"{vendor} {model}")


def _driverctl(devices: Sequence[Device], there: bool) -> float:
    began = time.monotonic()
    for device in devices:
        words = ("set-override", device.address, device.flavoured) if there else ("unset-override", device.address)
        subprocess.run(["driverctl", "--nosave", *words], check=True)
    return time.monotonic() - began


def main() -> None:
    rounds, pf, most = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    counts = [int(word) for word in sys.argv[4:]]
    loops: dict[str, Way] = {f"loop {workers}": _loop(workers) for workers in _WORKERS}
    devices = make(pf, max(counts))
    seconds: dict[int, dict[str, dict[str, list[float]]]] = {}
    # The first is for what is read from the disk, and does not count.
    for number in range(-1, rounds):
        for count in counts if number >= 0 else [1]:
            ways = {"flavourd": _flavourd, **loops}
            if count == 1:
                ways["rested"] = _rested
            if count <= most:
                ways["driverctl"] = _driverctl
            for name in _shuffled(list(ways), number):
                took = _round_trip(name, ways[name], devices[:count])
                times = seconds.setdefault(count, {}).setdefault(name, {"there": [], "back": []})
                for direction, lasted in took.items() if number >= 0 else ():
                    times[direction].append(lasted)
    print(json.dumps(seconds))


def _round_trip(name: str, way: Way, devices: Sequence[Device]) -> dict[str, float]:
    times = {}
    if name == "flavourd":  # how it does after a rest is a way of its own
        for there in (True, False):
            _flavourd(devices[:1], there)
    for direction, there in (("there", True), ("back", False)):
        settle()
        ask("Status")  # answered when flavourd has heard what the others have done to its devices
        times[direction] = way(devices, there)
        for device in devices:
            wanted = device.flavoured if there else device.native
            device.must_have(wanted, f"{name} ({direction})", "no error")
    if name == "driverctl":
        _forget_id(devices[0])
    for device in devices:
        device.must_be_clean(name, "no error")
    return times


def _shuffled(names: list[str], number: int) -> list[str]:
    """What one way leaves for later (a journal to be written) must not meet the same neighbour in each round."""
    return random.Random(number).sample(names, len(names))


main()
