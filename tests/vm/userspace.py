# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs that run in the guest's user space: those of programs/, one of which has a device through VFIO."""

import shlex
from pathlib import Path

from .machine import Machine

_PROGRAMS = Path(__file__).parent / "programs"


def program(vm: Machine, name: str, *arguments: str) -> list[str]:
    """The words that run this program of programs/ in the guest."""
    vm.run("mkdir -p /run/programs")
    for file in _PROGRAMS.glob("*.py"):
        vm.write(f"/run/programs/{file.name}", file.read_bytes())
    return ["env", "-C", "/run", "python3", "-m", f"programs.{name}", *arguments]


def use(vm: Machine, address: str) -> str:
    """Open the device and return its vendor id as read through the VFIO region; CommandError if it cannot be opened."""
    return vm.run(program(vm, "vfio", address)).out.strip()


def hold(vm: Machine, address: str, unit: str = "holder") -> int:
    """Keep the device open, in a unit of this name, until `let_go`; return the pid."""
    words = shlex.join(program(vm, "vfio", address, "hold"))
    vm.run(f"systemd-run -q --unit={unit} -p StandardOutput=file:/run/{unit} {words}")
    vm.wait_for(f"grep -q . /run/{unit}")
    return int(vm.run(f"systemctl show -P MainPID {unit}").out)


def let_go(vm: Machine, unit: str = "holder") -> None:
    vm.run(f"systemctl stop {unit}")
