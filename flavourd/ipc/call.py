# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who calls, and how: what the methods need to know of a call beside its parameters."""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_UCRED = struct.Struct("=iII")
_SO_PEERGROUPS = 59  # asm-generic/socket.h; Python has no name for it
_MOST_GROUPS = 256  # more do not fit into what Python lends getsockopt(2)


@dataclass(frozen=True)
class Peer:
    """The process at the other end of a socket, as it was when it connected (unix(7), SO_PEERCRED)."""

    pid: int
    uid: int
    groups: frozenset[int]

    @classmethod
    def of(cls, connection: socket.socket) -> "Peer":
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, gid = _UCRED.unpack(credentials)
        try:
            others = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * _MOST_GROUPS)
        except OSError:  # ERANGE: he has more
            others = b""
        return cls(pid, uid, frozenset((gid, *struct.unpack(f"={len(others) // 4}I", others))))

    def __str__(self) -> str:
        return f"uid {self.uid}, pid {self.pid}"


@dataclass
class Call:
    """oneway: the caller wants no reply, so that he may go away as soon as he has called. more: he takes several."""

    peer: Peer
    oneway: bool
    more: bool
    _acts: list[Callable[[], None]] = field(default_factory=list)

    @contextmanager
    def if_gone(self, act: Callable[[], None]) -> Iterator[None]:
        """Meanwhile, do this when he goes away and is not expected to."""
        self._acts.append(act)
        try:
            yield
        finally:
            self._acts.remove(act)

    def end(self) -> None:
        """The caller has gone."""
        for act in () if self.oneway else tuple(self._acts):
            act()


def one_reply_too(method: F) -> F:
    """Mark a method of several replies whose last one says all, for callers who take no more than one."""
    method.one_reply_too = True  # type: ignore[attr-defined] # a function has attributes, whatever its type says
    return method


CALL: ContextVar[Call] = ContextVar("call")
"""The call that is being served."""
