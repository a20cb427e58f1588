# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ask flavourd for more than can be done: half of the requests by synthetic uevents, half by Varlink calls of many
who call at once, for each device now one flavour, now the other.

usage: storm REQUESTS CALLERS ADDRESS...

Prints as JSON what became of them, and the daemon's memory meanwhile.
"""

import json
import os
import re
import selectors
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .asking import ask
from .device import Device, settle

_SOCKET = "/run/flavourd/io.flavourd"
_SILENCE = 300
_SAMPLE = 1.0
# The number of the request, in a UUID that the kernel takes.
_UUID = "{:08x}-0000-4000-8000-000000000000"


@dataclass
class Caller:
    """Who asks again as soon as he is answered, each time on a new connection: who is one too many is told so and hung
    up on.
    """

    calls: deque[bytes]
    connection: socket.socket = field(init=False)
    heard: bytearray = field(init=False)

    def ask(self) -> None:
        self.connection, self.heard = socket.socket(socket.AF_UNIX), bytearray()
        self.connection.connect(_SOCKET)
        with suppress(BrokenPipeError, ConnectionResetError):  # he has the answer already
            self.connection.sendall(self.calls.popleft())

    def read(self) -> str | None:
        """The answer, when all of it has come."""
        part = b""
        with suppress(ConnectionResetError):
            part = self.connection.recv(1 << 16)
        self.heard += part
        if part and not self.heard.endswith(b"\0"):
            return None
        return _answer(json.loads(self.heard[:-1])) if part else "hung up"


class Memory:
    """Of a process: samples of [seconds, resident, proportional] in bytes."""

    def __init__(self, pid: int) -> None:
        self._place = Path("/proc") / str(pid)
        self._began = self._next = time.monotonic()
        self.samples: list[tuple[float, int, int]] = []

    def look(self) -> None:
        if (now := time.monotonic()) >= self._next:
            text = (self._place / "smaps_rollup").read_text()
            rss, pss = (_kibibytes(name, text) for name in ("Rss", "Pss"))
            self.samples.append((round(now - self._began, 1), rss, pss))
            self._next = now + _SAMPLE

    @property
    def peak(self) -> int:
        return _kibibytes("VmHWM", (self._place / "status").read_text())


def _kibibytes(name: str, text: str) -> int:
    found = re.search(rf"(?m)^{name}:\s+(\d+) kB$", text)
    if not found:
        raise ValueError(f"no {name} in {text}")
    return int(found[1]) * 1024


def main() -> None:
    half, count = int(sys.argv[1]) // 2, int(sys.argv[2])
    devices = [Device(address, "", "vfio-pci") for address in sys.argv[3:]]
    daemon = _daemon()
    memory = Memory(daemon)
    memory.look()
    at_rest = memory.peak
    callers = _callers(half, count, devices)
    writer = os.fork()
    if not writer:
        _write(half, devices)
        os._exit(0)
    answers = _call(callers, memory)
    while (ended := os.waitpid(writer, os.WNOHANG)) == (0, 0):
        memory.look()
        time.sleep(0.1)
    if ended[1]:
        sys.exit("not all uevents could be written")
    settle()
    called = time.monotonic()
    while (status := ask("Status"))["open"]:
        memory.look()
        if time.monotonic() - called > _SILENCE:
            sys.exit(f"still open: {status}")
        time.sleep(0.2)
    memory.look()
    entries = _journal()
    # Of a request the last one counts.
    told = {entry["FLAVOURD_UUID"]: entry for entry in entries if "FLAVOURD_UUID" in entry}
    wanted = [_UUID.format(number) for number in range(half)]
    outcomes = Counter(_outcome(told[uuid]) if uuid in told else "no outcome" for uuid in wanted)
    print(
        json.dumps(
            {
                "uevents": outcomes,
                "calls": answers,
                "seconds": memory.samples[-1][0],
                "at rest": at_rest,
                "peak": memory.peak,
                "samples": memory.samples,
                "same daemon": _daemon() == daemon,
                "status": {key: status[key] for key in ("counts", "stuck", "clients", "warnings")},
                "wrong": _wrong(devices, entries),
                "told lost": sum(entry.get("FLAVOURD_CODE") == "uevents-lost" for entry in entries),
            }
        )
    )


def _callers(calls: int, count: int, devices: list[Device]) -> list[Caller]:
    callers = [Caller(deque()) for _ in range(count)]
    for number in range(calls):
        parameters = {"devices": [_device(number, devices).address], "flavour": _flavour(number, devices)}
        words = {"method": "io.flavourd.Manager.Set", "parameters": parameters}
        callers[number % count].calls.append(json.dumps(words).encode() + b"\0")
    return callers


def _device(number: int, devices: list[Device]) -> Device:
    return devices[number % len(devices)]


def _flavour(number: int, devices: list[Device]) -> str:
    return "default" if number // len(devices) % 2 else "vfio"


def _write(requests: int, devices: list[Device]) -> None:
    """As fast as the kernel takes them."""
    files = [os.open(device.sysfs / "uevent", os.O_WRONLY) for device in devices]
    for number in range(requests):
        text = f"change {_UUID.format(number)} FLAVOUR={_flavour(number, devices)}"
        os.pwrite(files[number % len(devices)], text.encode(), 0)


def _call(callers: list[Caller], memory: Memory) -> Counter[str]:
    """Until every call has an answer."""
    answers: Counter[str] = Counter()
    last = time.monotonic()
    with selectors.DefaultSelector() as ready:

        def ask(caller: Caller) -> None:
            caller.ask()
            ready.register(caller.connection, selectors.EVENT_READ, caller)

        for caller in callers:
            ask(caller)
        while ready.get_map():
            memory.look()
            for key, _ in ready.select(_SAMPLE):
                last = time.monotonic()
                if answer := key.data.read():
                    answers[answer] += 1
                    ready.unregister(key.fd)
                    key.data.connection.close()
                    if key.data.calls:
                        ask(key.data)
            if time.monotonic() - last > _SILENCE:
                answers["no answer"] += sum(1 + len(key.data.calls) for key in ready.get_map().values())
                break
    return answers


def _answer(reply: dict[str, Any]) -> str:
    if "error" in reply:
        return f"{reply['error'].rpartition('.')[2]} {reply['parameters'].get('code')}"
    return str(reply["parameters"]["outcomes"][0]["kind"])


def _outcome(entry: dict[str, Any]) -> str:
    return " ".join(filter(None, (entry["FLAVOURD_KIND"], entry.get("FLAVOURD_CODE"))))


def _journal() -> list[dict[str, Any]]:
    """What flavourd has told, in its order."""
    subprocess.run(["journalctl", "--sync"], check=True)
    fields = ",".join(f"FLAVOURD_{name}" for name in ("UUID", "KIND", "CODE", "DEVICE", "FLAVOUR"))
    words = ("journalctl", "-q", "-b", "-u", "flavourd", "-o", "json", f"--output-fields={fields}")
    lines = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return list(map(json.loads, lines))


def _wrong(devices: list[Device], entries: list[dict[str, Any]]) -> list[str]:
    """Devices that are not in the flavour of the last request for them that was carried out."""
    last = {
        entry["FLAVOURD_DEVICE"]: entry["FLAVOURD_FLAVOUR"]
        for entry in entries
        if entry.get("FLAVOURD_KIND") in ("switched", "already")
    }
    return [
        f"{device.address} has the driver {device.driver} and was switched to {last.get(f'pci/{device.address}')} last"
        for device in devices
        if (device.driver == device.flavoured) != (last.get(f"pci/{device.address}") == "vfio")
    ]


def _daemon() -> int:
    words = ("systemctl", "show", "-P", "MainPID", "flavourd")
    return int(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)


main()
