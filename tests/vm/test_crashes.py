# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whatever is killed at whatever instant: each device is wholly as it was or wholly switched, and `default` still knows
the original.

FLAVOURD_ROUNDS says how many rounds (200 take a quarter of an hour), FLAVOURD_SEED which; the seed is printed.
"""

import json
import os
import statistics
import time

import pytest

from .asking import PCI, ask, override, variant
from .devices import E1000, E1000_TWIN, E1000E, E1000E_TWIN, VIRTIO_NET
from .machine import Machine
from .test_daemon import drop_in
from .userspace import program

pytestmark = pytest.mark.vm

ROUNDS = 15  # a daemon takes three seconds to start under emulation

UNITS = [[E1000E], [E1000E_TWIN], [VIRTIO_NET], [E1000, E1000_TWIN]]
ORIGINALS = {E1000E: "e1000e", E1000E_TWIN: "e1000e", VIRTIO_NET: "virtio-pci", E1000: "e1000", E1000_TWIN: "e1000"}
FOREIGN = {E1000E_TWIN: "foreign", E1000: "other"}
TAKERS = {
    E1000E: ["test_vfio_pci", "vfio-pci"],
    E1000E_TWIN: ["test_vfio_pci", "vfio-pci"],
    VIRTIO_NET: ["virtio_vfio_pci", "vfio-pci"],
    E1000: ["vfio-pci"],
    E1000_TWIN: ["vfio-pci"],
}


def test_kills_at_random_instants_leave_every_device_wholly_old_or_wholly_new(vm: Machine) -> None:
    rounds = int(os.environ.get("FLAVOURD_ROUNDS", ROUNDS))
    seed = int(os.environ.get("FLAVOURD_SEED", time.time()))
    print(f"{rounds} rounds of seed {seed}")
    drop_in(vm, "RestartSec=0\n[Unit]\nStartLimitIntervalSec=0\n")
    variant(vm, delay_ms=200, remove_delay_ms=100)
    for address, text in FOREIGN.items():
        vm.run(f"echo {text} > {PCI}/{address}/driver_override")
    devices = {
        address: {"driver": driver, "override": FOREIGN.get(address), "flavour": TAKERS[address]}
        for address, driver in ORIGINALS.items()
    }
    given = {"seed": seed, "rounds": rounds, "devices": devices, "units": UNITS}
    done = vm.run(program(vm, "crashes", json.dumps(given)), timeout=60 + 30 * rounds)
    told = json.loads(done.out)
    print(picture(told["table"]))
    seconds = told["seconds"]
    if seconds:
        print(f"{len(seconds)} rounds, median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s")
    assert not told["wrong"], told["wrong"]
    unforeseen = vm.run("journalctl -q -u flavourd -o cat | grep -F 'it starts anew'", check=False).out
    assert unforeseen == "", "no crash of its own"
    for address, driver in ORIGINALS.items():
        assert (vm.driver(address), override(vm, address)) == (driver, FOREIGN.get(address))
    # What the last round made the variant answer may not have been asked for.
    vm.run("cd /sys/module/test_vfio_pci/parameters && echo 0 > answer", check=False)
    assert ask(vm, E1000E, "vfio").kind == "switched"


def picture(table: list[tuple[str, str, str, int]]) -> str:
    """The instants of the kills (the last step that was told) and what became of the devices, as text."""
    columns = [
        (victim, became)
        for victim in ("worker", "daemon", "both")
        for became in ("as before", "as asked", "left alone")
    ]
    counts = {(step, victim, became): count for step, victim, became, count in table}
    order = ["not begun", "waiting", "begun", "loading", "unbinding", "binding", "refused", "restoring", "answered"]
    order += sorted({step for step, *_ in table} - set(order))
    lines = ["killed: " + " " * 8 + "".join(f"{victim:>36}" for victim in ("worker", "daemon", "both"))]
    lines.append("at step" + " " * 9 + "".join(f"{became:>12}" for _, became in columns))
    lines += [
        f"{step:16}" + "".join(f"{counts.get((step, *column), 0):12}" for column in columns)
        for step in order
        if any(step == row[0] for row in table)
    ]
    return "\n".join(lines)
