# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kill flavourd, its workers, or both at random instants of random switches, round after round, and look each time at
what has become of the devices when the next daemon is done.

The one argument is JSON: seed; rounds; devices: by PCI address {driver, override: the original ones, flavour: drivers
that may have it in vfio}; units: lists of devices that are switched as one. Prints JSON: table: rows of
[step, victim, what became of it, count]; wrong: what may never be, empty if all is well; seconds of each round.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .call import Call, ask, listen
from .states import State, Wrong, flavour

CGROUP = Path("/sys/fs/cgroup/system.slice/flavourd.service/cgroup.procs")
PARAMETERS = Path("/sys/module/test_vfio_pci/parameters")
STEPS = ("waiting", "begun", "loading", "unbinding", "binding", "refused", "restoring")
SETTLED_SECONDS = 60
LAST_WORDS_SECONDS = 10


def processes() -> dict[int, tuple[int, str]]:
    """Of the service: pid, parent and name."""
    found = {}
    there = ""
    with suppress(OSError):  # it goes when the service ends
        there = CGROUP.read_text()
    for pid in map(int, there.split()):
        with suppress(OSError):
            name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition(" (")[2].rpartition(") ")
            state, parent = rest.split()[:2]
            if state != "Z":
                found[pid] = int(parent), name
    return found


def alone() -> bool:
    """Whether a daemon is the only one of the service, but for its own workers: they may wait for another job."""
    there = processes()
    daemons = [pid for pid, (parent, _) in there.items() if parent == 1]
    return len(daemons) == 1 and all(parent in (1, *daemons) for parent, _ in there.values())


def kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@dataclass
class Round:
    chance: random.Random
    devices: dict[str, dict[str, Any]]
    units: list[list[str]]
    table: Counter[tuple[str, str, str]]
    story: list[str] = field(default_factory=list)

    def run(self) -> None:
        self.vary()
        before = {address: flavour(address, device) for address, device in self.devices.items()}
        wishes, calls = self.begin(before)
        victim = self.chance.choice(("daemon", "worker", "both"))
        self.wait_for_the_instant(calls)
        steps = dict.fromkeys(wishes, "not begun")
        for call in calls:
            steps |= call.steps if call.open else {**call.steps, **dict.fromkeys(call.steps, "answered")}
        self.story.append(f"kill {victim} at {steps}")
        self.strike(victim)
        self.settle(calls)
        after = {address: flavour(address, device) for address, device in self.devices.items()}
        self.story.append(f"then {after}")
        for address, now in after.items():
            if address not in wishes and now != before[address]:
                raise Wrong(f"{address} was not asked for and went from {before[address]} to {now}")
        for unit in self.units:
            if len({after[address] for address in unit}) > 1:
                raise Wrong(f"of {unit} only a part was switched")
        for address, wish in wishes.items():
            same = wish == before[address]
            became = "left alone" if same else "as asked" if after[address] == wish else "as before"
            self.table[steps[address], victim, became] += 1

    def vary(self) -> None:
        """Other delays, answers and loaded modules than the round before."""
        chance = self.chance
        if chance.random() < 0.15:
            for module in ("test_vfio_pci", "virtio_vfio_pci", "vfio_pci"):
                drivers = Path(f"/sys/module/{module}/drivers")
                if drivers.is_dir() and not any(
                    (drivers / name).resolve().glob("0000:*") for name in os.listdir(drivers)
                ):
                    subprocess.run(["modprobe", "-r", module], check=False, capture_output=True)
        if PARAMETERS.is_dir():
            answer = chance.choices((0, -5, -16), (6, 2, 2))[0]
            for name, value in {
                "delay_ms": chance.randint(50, 300),
                "remove_delay_ms": chance.randint(50, 300),
                "answer": answer,
                "times": 1,
            }.items():
                (PARAMETERS / name).write_text(f"{value}\n")

    def begin(self, before: dict[str, str]) -> tuple[dict[str, str], list[Call]]:
        wishes: dict[str, str] = {}
        calls = []
        for unit in self.chance.sample(self.units, self.chance.randint(1, len(self.units))):
            other = "vfio" if before[unit[0]] == "default" else "default"
            wish = other if self.chance.random() < 0.9 else before[unit[0]]
            wishes |= dict.fromkeys(unit, wish)
            asked = self.chance.choice(unit)
            calls.append(Call("Set", more=True, devices=[asked], flavour=wish, group=len(unit) > 1))
        self.story.append(f"wishes {wishes}")
        return wishes, calls

    def wait_for_the_instant(self, calls: list[Call]) -> None:
        """Either some time after the requests, or a little after a step of one of them."""
        began = time.monotonic()
        if self.chance.random() < 0.4:
            instant = began + self.chance.uniform(0, 1.2)
        else:
            step, instant = self.chance.choice(STEPS), began + 3
            while not any(step in call.steps.values() for call in calls) and any(call.open for call in calls):
                listen(calls, instant - time.monotonic())
                if time.monotonic() > instant:
                    break
            instant = min(instant, time.monotonic() + self.chance.uniform(0, 0.25))
        while (left := instant - time.monotonic()) > 0:
            listen(calls, left)
            if not any(call.open for call in calls):
                break

    def strike(self, victim: str) -> None:
        there = processes()
        daemons = [pid for pid, (parent, name) in there.items() if parent == 1 and name == "flavourd"]
        workers = [pid for pid, (parent, _) in there.items() if parent in daemons]
        if victim == "worker":
            kill(workers)
            return
        kill(daemons if victim == "daemon" else list(there))
        if self.chance.random() < 0.25:  # the next one too, somewhere in its start
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                new = [pid for pid, (p, n) in processes().items() if p == 1 and n == "flavourd" and pid not in there]
                if new:
                    time.sleep(self.chance.uniform(0, 3))
                    self.story.append("and the next daemon")
                    kill(new)
                    return
                time.sleep(0.02)

    def settle(self, calls: list[Call]) -> None:
        """Until a daemon is up that has nothing left to do, and nobody of an earlier one is there."""
        deadline = time.monotonic() + SETTLED_SECONDS
        status: dict[str, Any] | None = None
        while time.monotonic() < deadline:
            listen(calls, 0)
            with suppress(OSError):
                status = ask("Status", deadline - time.monotonic())
            if status and status.get("ready") and not status["open"] and not status["stuck"] and alone():
                for call in calls:
                    last = time.monotonic() + LAST_WORDS_SECONDS
                    while call.open and time.monotonic() < last:  # the end of a stream may come in pieces
                        listen([call], last - time.monotonic())
                    if call.open:
                        raise Wrong("a caller has neither an answer nor a closed connection")
                return
            time.sleep(0.05)
        raise Wrong(f"not settled within {SETTLED_SECONDS} s: {status}; processes {processes()}")


def main() -> None:
    given = json.loads(sys.argv[1])
    chance = random.Random(given["seed"])
    table: Counter[tuple[str, str, str]] = Counter()
    seconds: list[float] = []
    wrong = ""
    for number in range(given["rounds"]):
        began = time.monotonic()
        one = Round(chance, given["devices"], given["units"], table)
        try:
            one.run()
        except (Wrong, OSError, ValueError, KeyError) as error:
            wrong = f"round {number} of seed {given['seed']}: {error!r}; " + "; ".join(one.story)
            break
        seconds.append(round(time.monotonic() - began, 2))
    if not wrong:
        for unit in given["units"]:
            ask("Set", 60, devices=[unit[0]], flavour="default", group=len(unit) > 1)
        states = {address: State.of(address) for address in given["devices"]}
        for address, device in given["devices"].items():
            if states[address] != State(device["driver"], device["override"], (), None):
                wrong += f"after `default`: {address} is not as it was: {states[address]}. "
    print(json.dumps({"table": [[*key, count] for key, count in table.items()], "wrong": wrong, "seconds": seconds}))


if __name__ == "__main__":
    main()
