# SPDX-License-Identifier: LGPL-2.1-or-later
"""Answers of the kernel about routes and addresses: bytes of a real kernel (Linux 6.18), and such as are made here."""

import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from flavourd.usage import rtnetlink
from flavourd.usage.rtnetlink import Local, Route, Tables, answer, default_routes, dump, local_addresses

# A default route (0.0.0.0/0 by 192.0.2.1, interface 4) and one that is none (192.0.2.0/24 on it).
_DEFAULT = bytes.fromhex(
    "340000001800020007000000a210000002000000fe0300010000000008000f00fe00000008000500c00002010800040004000000"
)
_OTHER = bytes.fromhex(
    "3c0000001800020007000000a210000002180000fe02fd010000000008000f00fe00000008000100c0000200"
    "08000700c00002020800040004000000"
)
_DEFAULT_6 = bytes.fromhex(
    "740000001800020007000000a21000000a000000fe0300010000000008000f00fe0000000800060000040000"
    "14000500fd0000000000000000000000000000010800040004000000"
    "24000c0000000000000000000000000000000000000000000000000000000000000000000500140000000000"
)
_ADDRESS = bytes.fromhex(
    "580000001400020007000000a2100000021880000400000008000100c000020208000200c000020208000400c00002ff"
    "090003006574683000000000080008008000000014000600ffffffffffffffff1600000016000000"
)
_ADDRESS_6 = bytes.fromhex(
    "500000001400020007000000a21000000a4080fd0400000014000100fe8000000000000000fc00fffe000001"
    "14000600ffffffffffffffff1600000016000000080008008000000005000b0003000000"
)
_DONE = bytes.fromhex("140000000300020007000000a210000000000000")
_BODY = 16
_SEQUENCE = 7
_UNREACHABLE = 7


def message(kind: int, body: bytes, flags: int = 2, sequence: int = _SEQUENCE) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body + bytes(-len(body) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def number(value: int) -> bytes:
    return struct.pack("=i", value)


def route(*attributes: bytes, length: int = 0, table: int = 254, kind: int = 1, family: int = 2) -> list[Route]:
    body = struct.pack("=8BI", family, length, 0, 0, table, 3, 0, kind, 0) + b"".join(attributes)
    return list(default_routes(body))


# --- what one message says


def test_the_default_route_of_a_real_kernel_is_told_from_other_routes() -> None:
    assert list(default_routes(_DEFAULT[_BODY:])) == [Route(4, 4)]
    assert list(default_routes(_DEFAULT_6[_BODY:])) == [Route(6, 4)]
    assert list(default_routes(_OTHER[_BODY:])) == []


def test_addresses_of_a_real_kernel_are_read() -> None:
    assert list(local_addresses(_ADDRESS[_BODY:])) == [Local(4, ip_address("192.0.2.2"))]
    assert list(local_addresses(_ADDRESS_6[_BODY:])) == [Local(4, ip_address("fe80::fc:ff:fe00:1"))]


def test_a_default_route_of_any_table_but_the_local_one_counts() -> None:
    assert route(attribute(4, number(3)), table=100) == [Route(4, 3)]
    assert route(attribute(4, number(3)), table=255) == []
    assert route(attribute(4, number(3)), attribute(15, number(1000)), table=252) == [Route(4, 3)]
    assert route(attribute(4, number(3)), attribute(15, number(255)), table=0) == []


def test_every_way_of_a_route_with_several_counts() -> None:
    hop = struct.pack("=HBBi", 16, 0, 0, 8) + attribute(5, bytes(4))
    assert route(attribute(9, hop + struct.pack("=HBBi", 8, 0, 0, 9))) == [Route(4, 8), Route(4, 9)]


def test_a_route_that_leads_nowhere_or_is_no_ip_is_none() -> None:
    assert route(attribute(4, number(1)), kind=_UNREACHABLE) == []
    assert route(attribute(4, number(1)), family=28) == []  # MPLS
    assert list(default_routes(b"")) == []


def test_where_only_a_nexthop_object_knows_the_way_that_is_told() -> None:
    assert route(attribute(30, number(12))) == [Route(4, None)]


def test_of_a_point_to_point_link_the_own_end_is_taken() -> None:
    body = struct.pack("=4BI", 2, 32, 0, 0, 5) + attribute(1, bytes([10, 0, 0, 2])) + attribute(2, bytes([10, 0, 0, 1]))
    assert list(local_addresses(body)) == [Local(5, ip_address("10.0.0.1"))]
    assert list(local_addresses(body[:8])) == list(local_addresses(b"")) == []


def test_attributes_without_a_length_end_the_reading() -> None:
    assert route(bytes(8)) == [Route(4, None)]
    assert route(attribute(9, bytes(8))) == [Route(4, None)]


# --- what a packet says


def test_an_answer_may_have_several_parts() -> None:
    assert answer(_DEFAULT + _OTHER, _SEQUENCE) == ([_DEFAULT[_BODY:], _OTHER[_BODY:]], False, True)
    assert answer(_DONE, _SEQUENCE) == ([], True, True)


def test_an_answer_to_another_question_is_passed_over() -> None:
    assert answer(_DEFAULT + _DONE, _SEQUENCE + 1) == ([], False, True)


@pytest.mark.parametrize("kind", [2, 3])
def test_an_error_of_the_kernel_is_raised(kind: int) -> None:
    with pytest.raises(PermissionError):
        answer(message(kind, number(-1)), _SEQUENCE)


def test_a_packet_that_is_cut_short_is_an_error() -> None:
    for text in (_DEFAULT[:-4], struct.pack("=IHHII", 4, 24, 0, _SEQUENCE, 0)):
        with pytest.raises(OSError, match="cut short"):
            answer(text, _SEQUENCE)


# --- a whole dump


def asked(*answers: list[bytes]) -> rtnetlink.Ask:
    """A kernel that answers each question with the next of these; parts are given its sequence number."""
    left = list(answers)

    def ask(kind: int, family: int, sequence: int) -> Iterator[bytes]:
        for text in left.pop(0):
            yield text[:8] + struct.pack("=I", sequence) + text[12:]

    return ask


_DISTURBED = message(24, _DEFAULT[_BODY:], flags=2 | 0x10)


def test_a_dump_ends_with_its_last_part() -> None:
    assert dump(asked([_DEFAULT, _OTHER, _DONE, _DEFAULT]), 26, 2, default_routes) == [Route(4, 4)]


def test_a_disturbed_dump_is_asked_for_again() -> None:
    assert dump(asked([_DISTURBED, _DONE], [_DEFAULT, _DONE]), 26, 2, default_routes) == [Route(4, 4)]


def test_tables_that_never_stand_still_are_an_error() -> None:
    with pytest.raises(OSError, match="changed each time"):
        dump(asked(*[[_DISTURBED, _DONE]] * 9), 26, 2, default_routes)


def test_this_hosts_kernel_answers() -> None:
    assert isinstance(rtnetlink.tables(), Tables)
