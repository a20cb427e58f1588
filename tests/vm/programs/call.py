# SPDX-License-Identifier: LGPL-2.1-or-later
"""Call flavourd without libraries: io.flavourd.Manager over its socket."""

import json
import select
import socket
import time
from contextlib import suppress
from typing import Any

SOCKET = "/run/flavourd/io.flavourd"


class Call:
    """A call on its way. steps: the last that was told of each device."""

    def __init__(self, method: str, more: bool = False, **parameters: Any) -> None:
        self.steps: dict[str, str] = {}
        self.reply: dict[str, Any] | None = None
        self._buffer = b""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(SOCKET)
        words = {"method": f"io.flavourd.Manager.{method}", "parameters": parameters, "more": more}
        self.socket.sendall(json.dumps(words).encode() + b"\0")
        self.open = True

    def read(self) -> None:
        part = b""
        with suppress(ConnectionResetError):
            part = self.socket.recv(1 << 16)
        if not part:
            self.close()
            return
        *messages, self._buffer = (self._buffer + part).split(b"\0")
        for message in map(json.loads, messages):
            if step := message.get("parameters", {}).get("step"):
                self.steps[step["device"].removeprefix("pci/")] = step["what"]
            if not message.get("continues"):
                self.reply = message
                self.close()

    def close(self) -> None:
        self.socket.close()
        self.open = False


def listen(calls: list[Call], seconds: float) -> None:
    """Read what comes, for as long, but no longer than something may come."""
    if waiting := {call.socket: call for call in calls if call.open}:
        for readable in select.select(list(waiting), [], [], max(0, seconds))[0]:
            waiting[readable].read()


def ask(method: str, timeout: float, **parameters: Any) -> dict[str, Any] | None:
    call = Call(method, **parameters)
    deadline = time.monotonic() + timeout
    while call.open and time.monotonic() < deadline:
        listen([call], deadline - time.monotonic())
    call.close()
    return call.reply and call.reply.get("parameters")
