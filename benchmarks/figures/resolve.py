# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long it takes to find the candidates of 10,000 devices, beside libvirt's way of looking for a variant."""

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import bed
from benchmarks.values import Comparison, Figure, Plot
from tests.vm.cache import Tell
from tests.vm.layers import REPOSITORY
from tests.vm.machine import Machine

NAME = "resolve"
QUICK = False
_LIMIT = 1.0
_INSTALLED = "/usr/lib/flavourd/python"
_TABLES = ("modules.alias", "modules.builtin", "modules.builtin.modinfo", "modules.dep", "modules.softdep")
_ABOUT = """\
flavourd reads the kernel's module tables once, and finds the candidates of {devices:,} devices in them: half of these
stand in some table of the kernel's, the others are PCI devices of well-known vendors. The tables are those of the
guest's kernel ({lines:,} lines of modules.alias, {real} of them of VFIO drivers), and {many_lines:,} lines made of
them, by repeating all of them with other ids ({many} of VFIO drivers). Beside it libvirt's rule, written in Python in
the plainest way, which reads modules.alias anew for each device; it was run for {rivals} devices in each round and
scaled to all, and found the same drivers."""


def measure(tell: Tell, quick: bool) -> dict[str, Any]:
    rounds, devices, rivals = (1, 1000, 5) if quick else (5, 10_000, 20)
    with bed.machine(tell) as vm, tempfile.TemporaryDirectory() as folder:
        release = vm.run("uname -r").out.strip()
        counts = [release, str(devices), str(rounds), str(rivals)]
        tell(f"resolve: {rounds} rounds in the guest")
        words = ["env", f"PYTHONPATH={_INSTALLED}", *bed.guest(vm, "resolve", "/", *counts)]
        guest = json.loads(vm.run(words, timeout=3600).out)
        _take_tables(vm, Path(folder) / "lib/modules" / release)
        tell(f"resolve: {rounds} rounds here, without emulation")
        # Meanwhile the guest has nothing to do.
        vm.qmp("stop")
        words = [sys.executable, "-m", "benchmarks.guest.resolve", folder, *counts]
        done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return {"guest": guest, "host": json.loads(done.stdout), "python": platform.python_version()}


def _take_tables(vm: Machine, place: Path) -> None:
    place.mkdir(parents=True)
    for name in _TABLES:
        (place / name).write_bytes(vm.read(f"/lib/modules/{place.name}/{name}"))


def figure(raw: dict[str, Any]) -> Figure:
    host, guest = raw["host"], raw["guest"]
    devices = host["devices"]
    names = {"real": "the guest kernel's tables", "many": f"{host['many_lines']:,} lines"}
    comparisons = [
        _whole(host, key, f"{devices:,} devices without emulation, {name}", _LIMIT) for key, name in names.items()
    ]
    comparisons += [_whole(guest, key, f"the same under emulation, {name}", None) for key, name in names.items()]
    comparisons += [
        Comparison(
            f"the index asked for again, {name}",
            "read for the first time",
            tuple(one["again"] for one in host[key]),
            tuple(one["read"] for one in host[key]),
        )
        for key, name in names.items()
    ]
    bars = {
        f"{label}, {name}": tuple(one[part] for one in host[key])
        for key, name in names.items()
        for part, label in (("read", "read the index"), ("resolve", f"{devices:,} devices"))
    }
    about = _ABOUT.format(
        **host | {key: round(host[key][0]["variants"]) for key in names},
    )
    return Figure(
        NAME,
        "Finding candidates",
        about,
        tuple(comparisons),
        (Plot("bars", "Finding candidates, without emulation", "seconds", "", bars),),
        (
            f"What has a goal ran on the host's own processor (Python {raw['python']}), with the guest's tables; "
            "under emulation, where it is told as well, a second is no measure.",
        ),
    )


def _whole(told: dict[str, Any], key: str, what: str, limit: float | None) -> Comparison:
    """All devices, with the reading of the index."""
    ours = tuple(one["read"] + one["resolve"] for one in told[key])
    others = tuple(one["rival"] * told["devices"] for one in told[key])
    return Comparison(what, "libvirt's rule for each of them", ours, others, limit=limit)
