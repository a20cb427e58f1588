# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Varlink server that answers from a table. It tests what flavourctl makes of answers, not what flavourd says."""

import json
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

Json = dict[str, Any]
Reply = Json | bytes
# What is sent for a call, one after the other; a function is asked with the parameters of the call.
Script = Sequence[Reply] | Callable[[Json], Sequence[Reply]]

HANG_UP: Reply = b""  # in the place of a reply
_DEADLINE = 60  # far more than any of this takes


def reply(**parameters: Any) -> Json:
    return {"parameters": parameters}


def more(**parameters: Any) -> Json:
    return {"parameters": parameters, "continues": True}


def error(name: str, **parameters: Any) -> Json:
    return {"error": name if "." in name else f"io.flavourd.Manager.{name}", "parameters": parameters}


class Daemon:
    """`with Daemon(path, {"List": [reply(devices=[])]}) as daemon:`; what is not in the table it does not know.

    A script that ends with `more` leaves the caller waiting. calls: what was asked. hung_up: set when a caller is gone.
    """

    def __init__(self, path: Path, answers: Mapping[str, Script]) -> None:
        self._answers = answers
        self.calls: list[Json] = []
        self.hung_up = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "Daemon":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(_DEADLINE)
        assert not self._thread.is_alive(), "somebody is connected still"
        self._listener.close()

    def asked(self, method: str) -> list[Json]:
        """The parameters of each call of a method."""
        return [call["parameters"] for call in self.calls if call["method"] == f"io.flavourd.Manager.{method}"]

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream, suppress(OSError):
                self._talk(connection, stream)
            self.hung_up.set()

    def _talk(self, connection: socket.socket, stream: Any) -> None:
        received = b""
        while part := stream.read1():
            *messages, received = (received + part).split(b"\0")
            for message in messages:
                call = json.loads(message)
                self.calls.append(call)
                for each in self._script(call):
                    if each == HANG_UP:
                        return
                    connection.sendall((each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\0")

    def _script(self, call: Json) -> Sequence[Reply]:
        interface, _, method = call["method"].rpartition(".")
        assert interface == "io.flavourd.Manager"
        script = self._answers.get(method)
        if script is None:
            return [error("org.varlink.service.MethodNotFound", method=call["method"])]
        return script(call["parameters"]) if callable(script) else script
