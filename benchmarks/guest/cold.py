# SPDX-License-Identifier: LGPL-2.1-or-later
"""Switch devices to vfio while no module of vfio's is loaded, by Varlink and by bare means.

usage: cold ROUNDS ADDRESS,NATIVE,FLAVOURED... Prints as JSON the seconds, and the modules that were loaded in the end.
"""

import json
import subprocess
import sys
from pathlib import Path

from .device import Device, settle
from .ways import Took, floor, timed, varlink


def main() -> None:
    rounds, devices = int(sys.argv[1]), [Device(*word.split(",")) for word in sys.argv[2:]]
    ways = {"varlink": varlink, "bare": _bare}
    seconds: dict[str, dict[str, list[float]]] = {device.address: {name: [] for name in ways} for device in devices}
    loaded: dict[str, dict[str, list[str]]] = {device.address: {} for device in devices}
    # The first is for what is read from the disk, and does not count.
    for number in range(-1, rounds):
        for device in devices:
            for name, way in list(ways.items())[:: -1 if number % 2 else 1]:
                _unload()
                _no_worker_at_hand()
                settle()
                took = way(device, True)
                device.must_have(device.flavoured, name, took.said)
                loaded[device.address][name] = sorted(_modules())
                # Back in the same way, for flavourd remembers what is its own.
                back = (varlink if name == "varlink" else floor)(device, False)
                device.must_be_clean(name, back.said)
                if number >= 0:
                    seconds[device.address][name].append(took.seconds)
    print(json.dumps({"seconds": seconds, "loaded": loaded}))


def _bare(device: Device, there: bool) -> Took:
    modprobe = timed("modprobe", device.flavoured)
    bare = floor(device, there)
    return Took(modprobe.seconds + bare.seconds, modprobe.said)


def _no_worker_at_hand() -> None:
    """Who waits for a job would spare the first switch a fork."""
    daemon = subprocess.run(["systemctl", "show", "-P", "MainPID", "flavourd"], stdout=subprocess.PIPE, check=True)
    subprocess.run(["pkill", "-P", daemon.stdout.strip()], check=False)


def _unload() -> None:
    """Those that nobody uses go first, and then those that these have used."""
    while modules := _modules():
        unused = [name for name, users in modules.items() if users == 0]
        subprocess.run(["modprobe", "-r", "-a", *unused], check=True)
        if _modules().keys() == modules.keys():
            sys.exit(f"these modules stay: {modules}")


def _modules() -> dict[str, int]:
    """Return the loaded modules of vfio's, each with the number of its users (proc_modules(5))."""
    lines = [line.split() for line in Path("/proc/modules").read_text().splitlines()]
    return {words[0]: int(words[2]) for words in lines if "vfio" in words[0]}


main()
