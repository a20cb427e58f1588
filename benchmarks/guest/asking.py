# SPDX-License-Identifier: LGPL-2.1-or-later
"""Call flavourd without libraries: io.flavourd.Manager over its socket, one connection for a call."""

import json
import socket
from typing import Any

_SOCKET = "/run/flavourd/io.flavourd"
_PATIENCE = 300


def ask(method: str, **parameters: Any) -> dict[str, Any]:
    """Return the reply's parameters; RuntimeError with what was said if it is an error."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PATIENCE)
        connection.connect(_SOCKET)
        words = {"method": f"io.flavourd.Manager.{method}", "parameters": parameters}
        connection.sendall(json.dumps(words).encode() + b"\0")
        answer = bytearray()
        while not answer.endswith(b"\0"):
            if not (part := connection.recv(1 << 16)):
                raise RuntimeError(f"{method}: flavourd has hung up after {bytes(answer)!r}")
            answer += part
    reply = json.loads(answer[:-1])
    if "error" in reply:
        raise RuntimeError(f"{method}: {reply}")
    return dict(reply["parameters"])
