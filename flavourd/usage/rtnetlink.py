# SPDX-License-Identifier: LGPL-2.1-or-later
"""Default routes and addresses of this network namespace, asked of the kernel (rtnetlink(7)).

By hand, because /proc/net/route shows the main table only and what is packaged costs a third of a second to import.
"""

import itertools
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeVar

Address = IPv4Address | IPv6Address

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # rtattr: length, type
_ROUTE = struct.Struct("=8BI")  # rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
_NEXT_HOP = struct.Struct("=HBBi")  # rtnexthop: length, flags, hops, interface
_ADDRESS = struct.Struct("=4BI")  # ifaddrmsg: family, prefix length, flags, scope, interface
_NUMBER = struct.Struct("=i")

_ERROR, _DONE = 2, 3
_GET_ADDRESS, _GET_ROUTE = 22, 26
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR: the tables changed meanwhile
_OIF, _MULTIPATH, _TABLE = 4, 9, 15
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_LOCAL_TABLE, _UNICAST = 255, 1
_TRIES = 5
_PATIENCE = 5.0  # seconds
_numbers = itertools.count(1)

T = TypeVar("T")
Ask = Callable[[int, int, int], Iterator[bytes]]


@dataclass(frozen=True)
class Route:
    """A default route's way out. interface: index; None if only a nexthop object knows (nexthop_compat_mode=0)."""

    version: int
    interface: int | None


@dataclass(frozen=True)
class Local:
    """An address of this host's. interface: index."""

    interface: int
    address: Address


@dataclass(frozen=True)
class Tables:
    routes: tuple[Route, ...] = ()
    addresses: tuple[Local, ...] = ()


def tables() -> Tables:
    """OSError if the kernel cannot be asked, or its tables never stand still."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as connection:
        connection.settimeout(_PATIENCE)
        connection.bind((0, 0))

        def ask(kind: int, family: int, sequence: int) -> Iterator[bytes]:
            body = struct.pack("=B11x", family)  # an rtmsg; an ifaddrmsg is shorter, and the rest is not looked at
            connection.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST_DUMP, sequence, 0) + body)
            while True:
                yield connection.recv(1 << 18)

        families = socket.AF_INET, socket.AF_INET6
        return Tables(
            # The same way may be told once for each metric.
            tuple(dict.fromkeys(way for family in families for way in dump(ask, _GET_ROUTE, family, default_routes))),
            tuple(local for family in families for local in dump(ask, _GET_ADDRESS, family, local_addresses)),
        )


def dump(ask: Ask, kind: int, family: int, parse: Callable[[bytes], Iterable[T]]) -> list[T]:
    """Everything of one kind. ask: send a request with a sequence number, and give back packets, without end."""
    for _ in range(_TRIES):
        sequence = next(_numbers)
        found: list[T] = []
        undisturbed = True
        for packet in ask(kind, family, sequence):
            bodies, finished, steady = answer(packet, sequence)
            found += [one for body in bodies for one in parse(body)]
            undisturbed = undisturbed and steady
            if finished:
                break
        if undisturbed:
            return found
    raise InterruptedError(None, "the tables of routes and addresses changed each time they were read")


def answer(data: bytes, sequence: int) -> tuple[list[bytes], bool, bool]:
    """Bodies of the messages of one packet that answer this request; whether it was the last one; and whether the
    tables stood still. OSError if the kernel refused.
    """
    found, finished, steady = [], False, True
    for kind, flags, number, body in _messages(data):
        if number != sequence:  # of somebody else's question
            continue
        steady = steady and not flags & _INTERRUPTED
        if kind in (_ERROR, _DONE):
            code = _NUMBER.unpack_from(body)[0] if len(body) >= _NUMBER.size else 0
            if code:
                raise OSError(-code, os.strerror(-code))
            finished = True
        else:
            found.append(body)
    return found, finished, steady


def default_routes(body: bytes) -> Iterator[Route]:
    """From the body of an RTM_NEWROUTE message; none unless it is a default route that leads somewhere."""
    if len(body) < _ROUTE.size or body[1] != 0:  # dst_len
        return
    family, _, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
    attributes = dict(_attributes(body[_ROUTE.size :]))
    if len(wide := attributes.get(_TABLE, b"")) == _NUMBER.size:
        (table,) = _NUMBER.unpack(wide)
    version = {socket.AF_INET: 4, socket.AF_INET6: 6}.get(family)
    if kind != _UNICAST or table == _LOCAL_TABLE or version is None:
        return
    ways: list[int | None] = list(_next_hops(attributes.get(_MULTIPATH, b"")))
    if len(way := attributes.get(_OIF, b"")) == _NUMBER.size:
        ways += _NUMBER.unpack(way)
    yield from (Route(version, way) for way in ways or [None])


def local_addresses(body: bytes) -> Iterator[Local]:
    """From the body of an RTM_NEWADDR message: one or none."""
    if len(body) < _ADDRESS.size:
        return
    interface = _ADDRESS.unpack_from(body)[-1]
    attributes = dict(_attributes(body[_ADDRESS.size :]))
    # With a point-to-point link IFA_ADDRESS is the other end.
    text = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS, b"")
    if len(text) in (4, 16):
        yield Local(interface, ip_address(text))


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if not _HEADER.size <= length <= len(data) - offset:
            raise OSError(None, "a netlink message is cut short")
        yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
        offset += _aligned(length)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)


def _next_hops(data: bytes) -> Iterator[int]:
    offset = 0
    while offset + _NEXT_HOP.size <= len(data):
        length, _, _, interface = _NEXT_HOP.unpack_from(data, offset)
        if length < _NEXT_HOP.size:
            return
        yield interface
        offset += _aligned(length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
