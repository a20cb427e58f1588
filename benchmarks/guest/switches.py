# SPDX-License-Identifier: LGPL-2.1-or-later
"""Switch devices in several ways, and print as JSON how many seconds each direction took, round by round.

usage: switches ROUNDS WAY,... ADDRESS,NATIVE,FLAVOURED...
"""

import json
import random
import sys

from .device import Device, settle
from .ways import WAYS, Way


def main() -> None:
    rounds, ways = int(sys.argv[1]), sys.argv[2].split(",")
    devices = [Device(*word.split(",")) for word in sys.argv[3:]]
    seconds: dict[str, dict[str, dict[str, list[float]]]] = {
        device.address: {name: {"there": [], "back": []} for name in ways} for device in devices
    }
    # The first is for what is read from the disk and compiled, and does not count.
    for number in range(-1, rounds):
        for device in devices:
            for name in _shuffled(ways, number):
                times = _round_trip(device, name, WAYS[name])
                if number >= 0:
                    for direction, time in times.items():
                        seconds[device.address][name][direction].append(time)
    print(json.dumps(seconds))


def _shuffled(names: list[str], number: int) -> list[str]:
    """What one way leaves for later (a journal to be written) must not meet the same neighbour in each round."""
    return random.Random(number).sample(names, len(names))


def _round_trip(device: Device, name: str, way: Way) -> dict[str, float]:
    times = {}
    for direction, there in (("there", True), ("back", False)):
        way.ready(device)
        settle()
        took = way.switch(device, there)
        device.must_have(way.goal(device) if there else device.native, f"{name} ({direction})", took.said)
        way.done(device)
        times[direction] = took.seconds
    device.must_be_clean(name, took.said)
    return times


main()
