# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ask the flavourd in the guest as a user would, and read its answer where a user finds it: in the journal."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote
from uuid import uuid4

from .machine import Machine

PCI = "/sys/bus/pci/devices"

# Anybody with CAP_SYS_ADMIN may hand the kernel a ready-made uevent, which it sends on as its own, with any keys and
# characters (lib/kobject_uevent.c:uevent_net_rcv_skb()): so a kernel module's events are tried on a stock kernel.
_INJECT = """
import os, socket, struct, sys
from urllib.parse import unquote_to_bytes
path = os.path.realpath(sys.argv[1]).removeprefix("/sys")
subsystem = os.path.basename(os.path.realpath(sys.argv[1] + "/subsystem"))
keys = [f"ACTION={sys.argv[2]}", f"DEVPATH={path}", f"SUBSYSTEM={subsystem}"]
words = [text.encode() for text in (f"{sys.argv[2]}@{path}", *keys)] + [unquote_to_bytes(word) for word in sys.argv[3:]]
message = b"\\0".join(words) + b"\\0"
header = struct.pack("=IHHII", 16 + len(message), 0x10, 1, 0, 0)  # nlmsghdr: first free type, NLM_F_REQUEST
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15).sendto(header + message, (0, 0))
"""


@dataclass(frozen=True)
class Told:
    """One outcome from the journal; fields are without their FLAVOURD_ prefix."""

    kind: str
    message: str
    code: str | None
    driver: str | None
    candidate: str | None
    refused: tuple[str, ...]
    skipped: tuple[str, ...]
    errno: int | None
    flavour: str
    origin: str
    priority: int
    guards: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, line: str) -> "Told":
        entry = json.loads(line)
        return cls(
            kind=entry["FLAVOURD_KIND"],
            message=_text(entry["MESSAGE"]),
            code=entry.get("FLAVOURD_CODE"),
            driver=entry.get("FLAVOURD_DRIVER"),
            candidate=entry.get("FLAVOURD_CANDIDATE"),
            refused=_texts(entry.get("FLAVOURD_REFUSED", [])),
            skipped=_texts(entry.get("FLAVOURD_SKIPPED", [])),
            errno=int(entry["ERRNO"]) if "ERRNO" in entry else None,
            flavour=_text(entry["FLAVOURD_FLAVOUR"]),
            origin=entry["FLAVOURD_ORIGIN"],
            priority=int(entry["PRIORITY"]),
            guards=_texts(entry.get("FLAVOURD_GUARD", [])),
        )


def ask(vm: Machine, device: str, flavour: str, timeout: float = 60) -> Told:
    """Ask by a synthetic uevent (device: PCI address or path in /sys) and wait for the outcome."""
    return answer(vm, send(vm, device, flavour), timeout)[-1]


def send(vm: Machine, device: str, flavour: str) -> str:
    """Ask and do not wait; returns the UUID by which the outcome is found."""
    uuid = str(uuid4())
    path = device if device.startswith("/") else f"{PCI}/{device}"
    vm.run(f"echo 'change {uuid} FLAVOUR={flavour}' > {path}/uevent")
    return uuid


def answer(vm: Machine, uuid: str, timeout: float = 60, count: int = 1) -> list[Told]:
    """The outcomes (at least `count`) of the request with this UUID, in their order."""
    return outcomes(vm, f"FLAVOURD_UUID={uuid}", timeout, count)


def outcomes(vm: Machine, match: str, timeout: float = 60, count: int = 1) -> list[Told]:
    """Outcomes that journalctl finds by FIELD=VALUE, waited for until there are `count`."""
    # It complains of a file that journald is just beginning.
    journal = f"journalctl -q -o json -u flavourd {match} 2>/dev/null | grep FLAVOURD_KIND"
    found = vm.wait_for(f"{journal} > /run/told; cat /run/told; [ $(wc -l < /run/told) -ge {count} ]", timeout)
    return [Told.from_json(line) for line in found.out.splitlines()]


def inject(vm: Machine, device: str, action: str = "change", **keys: str) -> None:
    """Send a uevent with these keys as if the kernel had made it."""
    path = device if device.startswith("/") else f"{PCI}/{device}"
    words = [f"{key}={quote(os.fsencode(value))}" for key, value in keys.items()]
    vm.run(["python3", "-c", _INJECT, path, action, *words])


def override(vm: Machine, address: str) -> str | None:
    text = vm.run(f"cat {PCI}/{address}/driver_override").out.strip()
    return None if text in ("", "(null)") else text


@contextmanager
def untouched(vm: Machine, *addresses: str) -> Iterator[None]:
    """Meanwhile nobody touches these devices: they keep their driver, never unbound, and their override."""
    before = [_trace(vm, address) for address in addresses]
    yield
    assert [_trace(vm, address) for address in addresses] == before


def _trace(vm: Machine, address: str) -> str:
    """The kernel makes a new link for each binding, and a new directory for each device that appears."""
    look = "cat driver_override; ls -id . driver; readlink driver; ls vfio-dev net virtfn* 2>/dev/null"
    return vm.run(f"cd {PCI}/{address}/; {look}", check=False).out


def vfio_modules(vm: Machine) -> list[str]:
    return [line.split()[0] for line in vm.run("cat /proc/modules").out.splitlines() if "vfio" in line.split()[0]]


def proof(vm: Machine, address: str) -> list[str]:
    return vm.run(f"ls {PCI}/{address}/vfio-dev", check=False).out.split()


def alive(vm: Machine) -> bool:
    return vm.run("systemctl is-active flavourd", check=False).out.strip() == "active"


def variant(vm: Machine, **parameters: int) -> None:
    """Put the test variant's module in place, to be loaded by flavourd with these parameters."""
    vm.run("/usr/lib/flavourd-test/variant on", timeout=120)
    options = " ".join(f"{name}={value}" for name, value in parameters.items())
    vm.write("/etc/modprobe.d/test.conf", f"options test_vfio_pci {options}\n")


def universal_driver_waits(vm: Machine, address: str) -> None:
    """The universal driver's module takes as long to load as the device at this address stays."""
    waiting = f"while [ -e {PCI}/{address} ]; do sleep 0.05; done; exec modprobe --ignore-install vfio_pci"
    vm.write("/etc/modprobe.d/wait.conf", f'install vfio_pci /bin/sh -c "{waiting}"\n')


def probes(vm: Machine) -> int:
    return int(vm.run("cat /sys/module/test_vfio_pci/parameters/probes").out)


def _texts(values: object) -> tuple[str, ...]:
    """A field that may stand in an entry several times."""
    return tuple(map(_text, values if isinstance(values, list) else [values]))


def _text(value: object) -> str:
    """A journal field as text; what is not printable comes as a list of bytes."""
    return bytes(value).decode(errors="replace") if isinstance(value, list) else str(value)
