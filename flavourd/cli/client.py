# SPDX-License-Identifier: LGPL-2.1-or-later
"""A small Varlink client (https://varlink.org/Method-Call): JSON objects, each ended by a NUL byte, both ways."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress

from flavourd import __version__
from flavourd.cli.exits import ConnectionLost, Exit, Failure, of_code
from flavourd.cli.screen import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import Popen
    from typing import Any

    from flavourd.cli.exits import Json

_SOCKET = "/run/flavourd/io.flavourd"
_INTERFACE = "io.flavourd.Manager"
_NOT_KNOWN = ("MethodNotFound", "InterfaceNotFound", "InvalidParameter")
_BUFFER = 1 << 16
_SSH_SECONDS = 2.0  # to end by itself after we have hung up


class Client:
    """Connects at the first call. One call at a time: a stream is read to its end, or nothing is called after it."""

    def __init__(self, host: str | None = None, *, raw: bool = False) -> None:
        """raw: answers as they come; else they hold nothing that a terminal would obey."""
        self._host, self._raw = host, raw
        self._socket: socket.socket | None = None
        self._ssh: Popen[bytes] | None = None
        self._received = b""

    def call(self, method: str, **parameters: Any) -> Json:
        """The answer's parameters; Failure if it is an error, or does not come. None counts as not given."""
        self._send({"method": f"{_INTERFACE}.{method}", "parameters": _given(parameters)})
        return self._parameters(self._receive())

    def stream(self, method: str, **parameters: Any) -> Iterator[Json]:
        """The parameters of each answer until the last one."""
        self._send({"method": f"{_INTERFACE}.{method}", "parameters": _given(parameters), "more": True})
        more = True
        while more:
            reply = self._receive()
            yield self._parameters(reply)
            more = reply.get("continues") is True

    def close(self) -> None:
        """Hang up: the daemon withdraws what it has not begun."""
        if self._socket:
            self._socket.close()
            self._socket, self._received = None, b""
        if self._ssh:
            from subprocess import TimeoutExpired

            try:
                self._ssh.wait(_SSH_SECONDS)
            except TimeoutExpired:
                self._ssh.terminate()

    # ---

    def _send(self, message: Json) -> None:
        if not self._socket:
            self._socket = self._connect_by_ssh(self._host) if self._host else _connect()
        # Who shows us out may have said why: the answer is there, or the end of it.
        with suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\0")

    def _receive(self) -> Json:
        assert self._socket
        parts = [self._received]
        while b"\0" not in parts[-1]:
            try:
                part = self._socket.recv(_BUFFER)
            except OSError:
                part = b""
            if not part:
                raise self._lost()
            parts.append(part)
        message, _, self._received = b"".join(parts).partition(b"\0")
        try:
            reply = json.loads(message)
        except ValueError:
            reply = None
        if not isinstance(reply, dict) or not isinstance(reply.get("parameters") or {}, dict):
            hint = "is it flavourd that listens there? systemctl status flavourd"
            raise Failure(Exit.UNREACHABLE, f"what flavourd{self._where} answered is no Varlink message", hint)
        return reply

    def _connect_by_ssh(self, host: str) -> socket.socket:
        """sshd there connects to flavourd's socket as the user who logs in, so it needs no flavourctl there."""
        from subprocess import Popen

        program = os.environ.get("FLAVOURD_SSH") or "ssh"
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                command = [program, "-x", "-T", "-e", "none", "-W", _socket_path(), "--", host]
                self._ssh = Popen(command, stdin=theirs.fileno(), stdout=theirs.fileno())
            except OSError as error:
                ours.close()
                raise Failure(Exit.UNREACHABLE, f"{program} cannot be run: {error.strerror}") from error
        return ours

    def _parameters(self, reply: Json) -> Json:
        said: Json = reply.get("parameters") or {}
        if not self._raw:
            said = printable(said)
        if error := reply.get("error"):
            raise self._failure(str(error), said)
        return said

    def _failure(self, error: str, said: Json) -> Failure:
        interface, _, name = error.rpartition(".")
        message, hint, code = str(said.get("message") or error), str(said.get("hint") or ""), said.get("code")
        if name in _NOT_KNOWN and interface == "org.varlink.service":
            unknown = next(map(str, said.values()), name)
            other = f"it is another version than this flavourctl ({__version__})"
            hint = "install the same version of both, then: systemctl restart flavourd"
            return Failure(Exit.NOT_DONE, f"flavourd{self._where} does not know {unknown}: {other}", hint)
        if name == "NotPermitted":
            return Failure(Exit.DENIED, message, hint, code)
        return Failure(of_code(code), message, hint, code, said)

    def _lost(self) -> Failure:
        if self._ssh and (status := self._ssh.wait()):
            hint = (
                f"does this work: ssh {self._host} systemctl status flavourd\n"
                "are you in the group flavourd there, and does sshd allow AllowStreamLocalForwarding?"
            )
            return ConnectionLost(f"flavourd on {self._host} cannot be reached: ssh ended with {status}", hint)
        hint = "systemctl status flavourd; journalctl -u flavourd"
        return ConnectionLost(f"flavourd{self._where} closed the connection without an answer", hint)

    @property
    def _where(self) -> str:
        return f" on {self._host}" if self._host else ""


def _socket_path() -> str:
    return os.environ.get("FLAVOURD_SOCKET") or _SOCKET


def _connect() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(_socket_path())
    except OSError as error:
        connection.close()
        raise _no_way(error) from error
    return connection


def _no_way(error: OSError) -> Failure:
    match error:
        case FileNotFoundError() | ConnectionRefusedError():
            hint = "systemctl enable --now flavourd"
            return Failure(Exit.UNREACHABLE, "flavourd does not run on this host", hint)
        case PermissionError():
            sentence = "you may not speak to flavourd: its socket is for root and the group flavourd"
            hint = "sudo flavourctl …, or: usermod -aG flavourd USER and log in anew"
            return Failure(Exit.DENIED, sentence, hint)
        case _:
            sentence = f"flavourd cannot be reached at {_socket_path()}: {error.strerror or error}"
            return Failure(Exit.UNREACHABLE, sentence)


def _given(parameters: Json) -> Json:
    return {name: value for name, value in parameters.items() if value is not None}
