# SPDX-License-Identifier: LGPL-2.1-or-later
"""The socket: who comes in, how many, and who has gone again."""

import asyncio
import json
import os
import select
import socket
from collections import Counter
from contextlib import suppress

from asyncvarlink import VarlinkInterfaceRegistry, VarlinkTransport

from flavourd import logs
from flavourd.errors import Code, FlavourError
from flavourd.ipc.call import Peer
from flavourd.ipc.connection import Connection
from flavourd.ipc.replies import refusal

_CONNECTIONS_OF_A_USER = 256
_ACCEPTED_AT_ONCE = 16
_PAUSE_SECONDS = 1.0
_TOO_MANY = FlavourError(
    Code.TOO_MANY,
    f"you have {_CONNECTIONS_OF_A_USER} connections to flavourd already",
    "close some of them, then ask again",
)


class Door:
    """sock: listening, as systemd passes it."""

    def __init__(self, sock: socket.socket, registry: VarlinkInterfaceRegistry) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock, self._registry = sock, registry
        self._inside: Counter[int] = Counter()
        # asyncio hears that a peer has gone only from what it reads, and during a call nothing is read.
        self._hangups = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._is_open = False
        sock.setblocking(False)

    @property
    def count(self) -> int:
        return self._inside.total()

    def open(self) -> None:
        self._loop.add_reader(self._sock, self._accept)
        self._loop.add_reader(self._hangups, self._on_hangup)
        self._is_open = True

    def close(self) -> None:
        """Let nobody in any more; those who are inside go on."""
        self._loop.remove_reader(self._sock)
        self._is_open = False

    async def settled(self) -> None:
        """Wait until those inside have their answers; not for ever, for somebody may not be reading."""
        serving = [c.serving for c in self._connections.values() if c.serving and not c.serving.done()]
        if serving:
            await asyncio.wait(serving, timeout=_PAUSE_SECONDS)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _ = self._sock.accept()
                self._let_in(connection)
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors, no memory: those who wait are let in later
                sentence, hint = f"nobody can be let in: {error}", "see LimitNOFILE= in flavourd.service"
                logs.tell_trouble(FlavourError(Code.HOST, sentence, hint), logs.WARNING)
                self._loop.remove_reader(self._sock)
                self._loop.call_later(_PAUSE_SECONDS, self._accept_again)
                return

    def _accept_again(self) -> None:
        if self._is_open:
            self._loop.add_reader(self._sock, self._accept)

    def _let_in(self, connection: socket.socket) -> None:
        peer = Peer.of(connection)
        connection.setblocking(False)
        if self._inside[peer.uid] >= _CONNECTIONS_OF_A_USER:
            _turn_away(connection, _TOO_MANY)
            return
        try:
            number = os.dup(connection.fileno())  # ours until we close it, so it stands for no other connection
        except OSError:
            connection.close()
            raise
        self._inside[peer.uid] += 1
        self._connections[number] = protocol = Connection(self._registry, peer)
        self._hangups.register(number, 0)  # EPOLLHUP is always told
        # Without message boundaries it reads a little at a time, so that nobody keeps the loop for himself.
        transport = VarlinkTransport(self._loop, connection, connection, protocol, boundary_predictor=None)
        transport.closed_future.add_done_callback(lambda _: self._let_out(number, peer))

    def _on_hangup(self) -> None:
        for number, _ in self._hangups.poll(0):
            self._hangups.unregister(number)
            self._connections[number].gone()

    def _let_out(self, number: int, peer: Peer) -> None:
        del self._connections[number]
        with suppress(FileNotFoundError):  # he has hung up
            self._hangups.unregister(number)
        os.close(number)
        self._inside[peer.uid] -= 1


def turn_all_away(sock: socket.socket, error: FlavourError) -> None:
    """Tell those who wait outside why nobody will let them in."""
    sock.setblocking(False)
    with suppress(OSError):  # there is nobody more
        while True:
            _turn_away(sock.accept()[0], error)


def _turn_away(connection: socket.socket, error: FlavourError) -> None:
    """The answer to whatever the caller is going to ask, or has asked already."""
    with connection, suppress(OSError):
        connection.send(json.dumps(refusal(error).tojson()).encode() + b"\0")
