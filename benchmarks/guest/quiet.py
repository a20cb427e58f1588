# SPDX-License-Identifier: LGPL-2.1-or-later
"""Count how often services are woken while unrelated uevents happen, and in the same time without any.

usage: quiet ROUNDS EVENTS PERIOD UNIT...

Prints as JSON, round by round, the seconds of a window, and for each unit what it did `with` and `without` the events.
PERIOD: seconds after which each unit tells systemd that it is alive, or a multiple of that; the unit that does so most
seldom is named first. A window is a multiple of it and begins well apart from such a time of any unit, so that there
are as many of them in each.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

# A device of no bus, which nobody has a rule for but the one for its node.
_UNRELATED = "/sys/devices/virtual/mem/null/uevent"
_APART = 4.0


class Unit:
    def __init__(self, name: str) -> None:
        shown = subprocess.run(["systemctl", "show", "-P", "MainPID", name], check=True, stdout=subprocess.PIPE)
        self._place = Path("/proc") / shown.stdout.decode().strip()

    def count(self) -> dict[str, float]:
        """Since its start: wake-ups, how often it was interrupted, ticks of the clock, and seconds."""
        status = dict(line.split(":", 1) for line in (self._place / "status").read_text().splitlines())
        # utime and stime are the 14th and 15th; the second is a name that may hold anything.
        stat = (self._place / "stat").read_text().rpartition(")")[2].split()
        return {
            "wake-ups": int(status["voluntary_ctxt_switches"]),
            "interrupted": int(status["nonvoluntary_ctxt_switches"]),
            "ticks": int(stat[11]) + int(stat[12]),
            "seconds": int((self._place / "schedstat").read_text().split()[0]) / 1e9,
        }

    def wait_for_wake_up(self, seconds: float) -> None:
        began, before = time.monotonic(), self.count()["wake-ups"]
        while self.count()["wake-ups"] == before:
            if time.monotonic() - began > seconds:
                sys.exit(f"{self._place} was not woken within {seconds} s")
            time.sleep(0.1)


def main() -> None:
    rounds, events, period = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    units = {name: Unit(name) for name in sys.argv[4:]}
    found = []
    for _ in range(rounds):
        each: dict[str, dict[str, dict[str, float]]] = {name: {} for name in units}
        length = 0.0
        for what in ("with", "without"):
            for unit in units.values():
                unit.wait_for_wake_up(2 * period)
            time.sleep(_APART)
            began, before = time.monotonic(), {name: unit.count() for name, unit in units.items()}
            if what == "with":
                _make(events)
                took = time.monotonic() - began
                length = period * (took // period + 1)
            time.sleep(began + length - time.monotonic())
            for name, unit in units.items():
                after = unit.count()
                each[name][what] = {key: after[key] - before[name][key] for key in after}
        found.append({"length": length, "took": took, "units": each})
    print(json.dumps(found))


def _make(events: int) -> None:
    """So many uevents, until udev is done with all of them."""
    before = _sent()
    file = os.open(_UNRELATED, os.O_WRONLY)
    for _ in range(events):
        os.pwrite(file, b"change", 0)
    os.close(file)
    subprocess.run(["udevadm", "settle", "--timeout=600"], check=True)
    if (sent := _sent() - before) < events:
        sys.exit(f"the kernel has sent {sent} events and not {events}")


def _sent() -> int:
    return int(Path("/sys/kernel/uevent_seqnum").read_text())


main()
