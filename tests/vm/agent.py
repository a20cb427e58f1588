# SPDX-License-Identifier: LGPL-2.1-or-later
"""Client of qemu-guest-agent: how the tests reach into the machine without a network or a console."""

import base64
import json
import socket
import time
from typing import Any

CHUNK = 1 << 20
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = [_PATH, "HOME=/root", "LANG=C.UTF-8", "TERM=dumb"]


class AgentError(Exception):
    """The agent answered with an error, or not at all."""


class Agent:
    """The host's end of the agent's channel."""

    def __init__(self, channel: socket.socket) -> None:
        self._socket = channel
        self._buffer = b""

    def close(self) -> None:
        self._socket.close()

    def sync(self, timeout: float) -> None:
        """Wait until the agent answers, and throw away whatever an earlier client left in the channel."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            token = time.monotonic_ns() & 0x7FFFFFFF
            self._buffer = b""
            self._send("guest-sync-delimited", {"id": token}, prefix=b"\xff")
            patience = time.monotonic() + min(left, 5)
            try:
                # What was sent while it was away is answered first; who asks anew for each of these never catches up.
                while True:
                    self._until(b"\xff", patience - time.monotonic())
                    if json.loads(self._until(b"\n", patience - time.monotonic())).get("return") == token:
                        return
            except TimeoutError:
                continue  # not started yet
        raise AgentError(f"the guest agent did not answer within {timeout:.0f} s")

    def call(self, command: str, timeout: float = 60, **arguments: Any) -> Any:
        """Return the agent's answer to one command; raise AgentError when it refuses or is silent."""
        self._send(command, arguments)
        try:
            answer = json.loads(self._until(b"\n", timeout))
        except TimeoutError:
            raise AgentError(f"the guest agent did not answer {command} within {timeout:.0f} s") from None
        if "error" in answer:
            raise AgentError(f"{command}: {answer['error']['desc']}")
        return answer["return"]

    def execute(self, words: list[str], stdin: bytes | None = None) -> int:
        """Start a program in the guest, its output captured, and return its pid."""
        given: dict[str, Any] = {} if stdin is None else {"input-data": base64.b64encode(stdin).decode()}
        given |= {"path": words[0], "arg": words[1:], "env": _ENVIRONMENT, "capture-output": True}
        answer = self.call("guest-exec", **given)
        return int(answer["pid"])

    def ended(self, pid: int) -> tuple[int, bytes, bytes] | None:
        """Return (exit status, or 128 + signal; output; errors) of a program, once only, or None while it runs."""
        status = self.call("guest-exec-status", pid=pid)
        if not status["exited"]:
            return None
        rc = status.get("exitcode", 128 + status.get("signal", 0))
        out, err = (base64.b64decode(status.get(key, "")) for key in ("out-data", "err-data"))
        return int(rc), out, err

    def wait(self, pid: int, timeout: float) -> tuple[int, bytes, bytes]:
        """Wait for a program to end; raise TimeoutError when it does not."""
        deadline, pause = time.monotonic() + timeout, 0.005
        while (result := self.ended(pid)) is None:
            if time.monotonic() > deadline:
                raise TimeoutError
            # The agent has no way to call us: ask often at first, then spare the guest, where each answer costs.
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)
        return result

    def read(self, path: str) -> bytes:
        handle = self.call("guest-file-open", path=path, mode="r")
        try:
            data = b""
            while True:
                part = self.call("guest-file-read", handle=handle, count=CHUNK)
                data += base64.b64decode(part["buf-b64"])
                if part["eof"]:
                    return data
        finally:
            self.call("guest-file-close", handle=handle)

    def write(self, path: str, data: bytes) -> None:
        handle = self.call("guest-file-open", path=path, mode="w")
        try:
            while data:
                buffer = base64.b64encode(data[:CHUNK]).decode()
                count = self.call("guest-file-write", **{"handle": handle, "buf-b64": buffer})["count"]
                data = data[count:]
        finally:
            self.call("guest-file-close", handle=handle)

    def _send(self, command: str, arguments: dict[str, Any], prefix: bytes = b"") -> None:
        message = {"execute": command, "arguments": arguments}
        self._socket.settimeout(60)
        self._socket.sendall(prefix + json.dumps(message).encode() + b"\n")

    def _until(self, mark: bytes, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout
        while mark not in self._buffer:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            data = self._socket.recv(1 << 16)
            if not data:
                raise AgentError("the machine is gone")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(mark)
        return line
