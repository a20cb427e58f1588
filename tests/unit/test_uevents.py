# SPDX-License-Identifier: LGPL-2.1-or-later
"""Requests in udev's database, as files."""

import pytest

from flavourd.device import DeviceId
from flavourd.request import Origin, Request
from flavourd.udevdb import UdevDatabase
from flavourd.uevents import Uevents

from .conftest import Tree

_NAME = "+pci:0000:01:00.0"
_ID = DeviceId("pci", "0000:01:00.0")
_MARKED = "I:5\nE:FLAVOUR_REQUEST=vfio\nE:FLAVOUR_ORIGIN=uevent\nE:FLAVOUR_SEQNUM=42\nE:FLAVOUR_UUID=u-u\nG:flavourd\n"


def found(tree: Tree, data: str, name: str = _NAME) -> list[Request]:
    root = tree({f"run/udev/tags/flavourd/{name}": "", f"run/udev/data/{name}": data})
    return list(Uevents(UdevDatabase(root)).all())


def test_a_marked_device_is_a_request(tree: Tree) -> None:
    assert found(tree, _MARKED) == [Request(_ID, "vfio", Origin.UEVENT, "u-u", 42)]


def test_without_uuid_and_word_it_is_a_request_all_the_same(tree: Tree) -> None:
    assert found(tree, "E:FLAVOUR_ORIGIN=attribute\nE:FLAVOUR_SEQNUM=7\n") == [
        Request(_ID, "", Origin.ATTRIBUTE, None, 7)
    ]


@pytest.mark.parametrize(
    ("text", "ticket"),
    [
        ("0", None),
        ("1", 1),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", None),
        ("0" * 21, None),
        ("1" * 5000, None),
        ("-1", None),
        ("\u0661", None),
        ("x", None),
        ("", None),
    ],
)
def test_a_ticket_is_a_number_of_64_bits_and_else_nobody_waits(tree: Tree, text: str, ticket: int | None) -> None:
    marked = _MARKED.replace("=uevent", "=attribute") + f"E:FLAVOUR_TICKET={text}\n"
    assert found(tree, marked) == [Request(_ID, "vfio", Origin.ATTRIBUTE, "u-u", 42, ticket=ticket)]


def test_nothing_else_is(tree: Tree) -> None:
    assert found(tree, "E:FLAVOUR_REQUEST=vfio\n") == []
    assert found(tree, _MARKED.replace("=uevent", "=nobody")) == []
    assert found(tree, _MARKED.replace("=42", "=x")) == []
    assert found(tree, _MARKED.replace("=42", f"={'1' * 5000}")) == []


def test_a_value_with_odd_characters_does_not_become_another_key(tree: Tree) -> None:
    odd = "E:OTHER=a\x0cE:FLAVOUR_REQUEST=evil\x85E:FLAVOUR_ORIGIN=rule\rE:FLAVOUR_SEQNUM=99\n"
    assert found(tree, odd) == []


def test_a_tag_without_data_and_a_host_without_udev_give_none(tree: Tree) -> None:
    root = tree(
        {f"run/udev/tags/flavourd/{_NAME}": "", "run/udev/tags/flavourd/n3": "", "run/udev/tags/flavourd/c1:3": ""}
    )
    assert list(Uevents(UdevDatabase(root)).all()) == []
    assert list(Uevents(UdevDatabase(root / "nowhere")).all()) == []
