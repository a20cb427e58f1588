# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine for measuring: the test bed's, with the rivals on its disk and our own programs in /opt."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.vm import layers
from tests.vm.cache import Tell
from tests.vm.image import More, compiled
from tests.vm.machine import Machine
from tests.vm.qemu import Qemu

_PROGRAMS = Path(__file__).parent / "guest"
FLOOR = "/opt/floor"
"""In the guest: what floor.c is there (/run, where one would put it, is noexec)."""

# None of them may run while something else is measured: who wants libvirt starts it.
_NOTHING_STARTS = "rm " + " ".join(
    f'"$1"/etc/systemd/system/*.wants/{names}' for names in ("libvirt*", "virtlog*", "dpdk*")
)
RIVALS = More(
    ("dpdk", "libvirt-clients", "libvirt-daemon", "libvirt-daemon-driver-nodedev", "libvirt-daemon-driver-qemu"),
    _NOTHING_STARTS,
)


@contextmanager
def machine(tell: Tell, *, installed: bool = True) -> Iterator[Machine]:
    """A fresh machine, restored with flavourd installed and active, or without it."""
    state = layers.installed(tell, RIVALS) if installed else layers.booted(tell, RIVALS)
    floor = _floor(tell)
    with Qemu(state.image, state.disk, state) as qemu:
        vm = Machine(qemu)
        vm.write(FLOOR, floor, 0o755)
        vm.run("mkdir -p /opt/guest")
        for file in _PROGRAMS.glob("*.py"):
            vm.write(f"/opt/guest/{file.name}", file.read_bytes())
        yield vm


def guest(vm: Machine, program: str, *arguments: str) -> list[str]:
    """Return the words that run benchmarks/guest/PROGRAM.py in the guest."""
    return ["env", "-C", "/opt", "python3", "-m", f"guest.{program}", *arguments]


def _floor(tell: Tell) -> bytes:
    built = compiled(_PROGRAMS / "floor.sh", [_PROGRAMS / "floor.c", _PROGRAMS / "bare.h"], tell)
    with tarfile.open(built.folder / "files.tar") as files:
        member = files.extractfile("./floor")
        assert member
        return member.read()
