# SPDX-License-Identifier: LGPL-2.1-or-later
"""Call flavourd (https://varlink.org/Method-Call): a connection for each call, for to hang up withdraws it."""

import asyncio
import json
from pathlib import Path
from typing import Any

_INTERFACE = "io.flavourd.Manager"
_LONGEST = 1 << 24  # bytes of a reply
Json = dict[str, Any]


class Away(Exception):
    """flavourd does not run, or has gone before it answered."""


class Failed(Exception):
    """It answered with an error. error: its name, without the interface. said: its parameters."""

    def __init__(self, error: str, said: Json) -> None:
        super().__init__(str(said.get("message") or error))
        self.error, self.said = error, said

    @property
    def code(self) -> str | None:
        code = self.said.get("code")
        return code if isinstance(code, str) else None

    @property
    def hint(self) -> str:
        return str(self.said.get("hint") or "")


class Flavourd:
    """socket: of its own."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def call(self, method: str, **parameters: object) -> Json:
        """The reply's parameters; Away, Failed. Cancelled, it hangs up."""
        request = {"method": f"{_INTERFACE}.{method}", "parameters": parameters}
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket, limit=_LONGEST)
        except OSError as error:
            raise Away(f"{self._socket}: {error.strerror}") from error
        try:
            writer.write(json.dumps(request).encode() + b"\0")
            reply = await reader.readuntil(b"\0")
        # It is as good as gone if what it sends has no end.
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise Away("flavourd closed the connection without an answer") from error
        finally:
            writer.close()
        return _parameters(reply[:-1])


def _parameters(message: bytes) -> Json:
    try:
        reply = json.loads(message)
    except ValueError as error:
        raise Away("what answered is not flavourd") from error
    said = reply.get("parameters") or {} if isinstance(reply, dict) else None
    if not isinstance(said, dict):
        raise Away("what answered is not flavourd")
    if name := reply.get("error"):
        raise Failed(str(name).rpartition(".")[2], said)
    return said
