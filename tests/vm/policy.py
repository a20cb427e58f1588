# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write a policy in the guest as an admin does, and see what becomes of it."""

import json
from pathlib import PurePosixPath

from .asking import Told, outcomes
from .flavourctl import ctl
from .machine import Machine

FOLDER = PurePosixPath("/etc/flavourd/policy.d")
THIS_BOOT = "_BOOT_ID=$(tr -d - < /proc/sys/kernel/random/boot_id)"


def put(vm: Machine, text: str, name: str = "50-test.yaml") -> None:
    """Write a file of rules; it counts from the next reload or boot on."""
    vm.run(f"mkdir -p {FOLDER}")
    vm.write(f"{FOLDER}/{name}", f"rules:\n{text}", mode=0o644)


def enforce(vm: Machine, text: str, name: str = "50-test.yaml") -> None:
    """Write a file of rules, and have flavourd read it."""
    put(vm, text, name)
    ctl(vm, "reload")


def by_policy(vm: Machine, address: str, count: int = 1, timeout: float = 60) -> list[Told]:
    """The outcomes of what the policy asked for this device in this boot, waited for until there are so many."""
    return outcomes(vm, f"FLAVOURD_ORIGIN=policy FLAVOURD_DEVICE=pci/{address} {THIS_BOOT}", timeout, count)


def until_driver(vm: Machine, address: str, driver: str, timeout: float = 60) -> None:
    vm.wait_for(f"readlink /sys/bus/pci/devices/{address}/driver | grep -qx '.*/{driver}'", timeout)


def troubles(vm: Machine, code: str, timeout: float = 30) -> list[str]:
    """What flavourd told of this kind in this boot, waited for until there is something."""
    told = vm.wait_for(f"journalctl -q -o json -u flavourd FLAVOURD_CODE={code} {THIS_BOOT} | grep .", timeout)
    return [json.loads(line)["MESSAGE"] for line in told.out.splitlines()]


def diff(vm: Machine) -> dict[str, str]:
    """What the policy files mean now for each device for which there is a rule: by address, in a word."""
    verdicts = json.loads(ctl(vm, "--json=short", "policy", "diff", "--all").out)["verdicts"]
    return {verdict["device"].removeprefix("pci/"): verdict["means"] for verdict in verdicts}
