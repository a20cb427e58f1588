# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the files driver_flavour say."""

from datetime import UTC, datetime
from typing import Any

import pytest

from flavourd.attributes.texts import buses, candidates, choice, current, one_line
from flavourd.attributes.tree import FLAVOUR, Node
from flavourd.attributes.unheard import _MOST, Unheard
from flavourd.flavour import Flavour, FlavourOnBus, Flavours, Universal

_ON_BUS = FlavourOnBus(Universal("a", "a"))
_FLAVOURS = Flavours(
    {
        "vfio": Flavour("", "vfio-dev", {"pci": _ON_BUS, "platform": _ON_BUS}),
        "uio": Flavour("", "uio", {"pci": _ON_BUS}),
    }
)


def plan(kind: str, **told: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "flavour": "vfio",
        "candidates": [],
        "driver": None,
        "target": None,
        "code": None,
        "message": "",
        "hint": "",
    }
    return empty | told | {"kind": kind}


def test_buses_are_those_that_any_flavour_has() -> None:
    assert buses(_FLAVOURS) == {"pci", "platform"}
    assert buses(Flavours()) == frozenset()


@pytest.mark.parametrize(
    ("bus", "held", "text"),
    [
        ("pci", "", "[default] vfio uio\n"),
        ("pci", "vfio-dev", "default [vfio] uio\n"),
        ("pci", "uio", "default vfio [uio]\n"),
        ("platform", "vfio-dev", "default [vfio]\n"),
        ("platform", "uio", "[default] vfio\n"),
        ("usb", "vfio-dev", "[default]\n"),
    ],
)
def test_all_flavours_of_the_bus_are_shown_with_the_current_one_in_brackets(bus: str, held: str, text: str) -> None:
    assert choice(_FLAVOURS, bus, current(_FLAVOURS, bus, held.__eq__)) == text


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (
            plan("switch", candidates=[{"module": "virtio_vfio_pci"}, {"module": "vfio_pci"}]),
            "virtio_vfio_pci vfio_pci",
        ),
        (plan("already", driver="vfio-pci"), "already, vfio-pci"),
        (plan("already"), "already, no driver"),
        (plan("switch", flavour="default", target="e1000e"), "e1000e"),
        (plan("switch", flavour="default"), "-"),
        (
            plan("refused", code="bridge", message="it is a\nbridge", hint="take what is behind it"),
            "refused: it is a bridge [bridge]; take what is behind it",
        ),
        (plan("refused", code="in-use", message="it is mounted"), "refused: it is mounted [in-use]"),
    ],
)
def test_candidates_are_told_in_one_line_for_each_flavour(told: dict[str, Any], line: str) -> None:
    assert candidates([told, plan("already", flavour="x")]) == f"{told['flavour']}: {line}\nx: already, no driver\n"


def test_a_story_becomes_one_line() -> None:
    assert one_line("a\n\tb  c\n") == "a b c"


# --- what flavourd never heard of

_FILE = Node(("pci", "devices", "x", FLAVOUR), 7)


def at(second: int) -> datetime:
    return datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC)


def told(second: int) -> str:
    return at(second).isoformat(timespec="milliseconds")


def test_the_last_note_is_told_until_flavourd_tells_something_newer() -> None:
    unheard = Unheard()
    assert unheard.newer(_FILE, None) is None
    unheard.note(_FILE, "first", at(1))
    unheard.note(_FILE, "second", at(3))
    assert unheard.newer(_FILE, None) == "second"
    assert unheard.newer(_FILE, told(2)) == "second"
    assert unheard.newer(_FILE, told(4)) is None


def test_a_note_is_about_one_device_and_not_about_its_successor() -> None:
    unheard = Unheard()
    unheard.note(_FILE, "gone", at(1))
    assert unheard.newer(Node(_FILE.path, 8), None) is None
    assert unheard.newer(Node(("pci", "devices", "y", FLAVOUR), 7), None) is None


def test_no_more_notes_are_kept_than_there_is_room_for() -> None:
    unheard = Unheard()
    for number in range(_MOST + 1):
        unheard.note(Node(("pci", "devices", str(number), FLAVOUR), 7), "text", at(1))
    assert unheard.newer(Node(("pci", "devices", "0", FLAVOUR), 7), None) is None
    assert unheard.newer(Node(("pci", "devices", "1", FLAVOUR), 7), None) == "text"
