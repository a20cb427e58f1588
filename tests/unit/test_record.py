# SPDX-License-Identifier: LGPL-2.1-or-later
"""Records and their form on disk."""

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from flavourd.device import Binding, DeviceId, Sriov
from flavourd.record import Record, changed, step

_ID = DeviceId("pci", "0000:01:00.0")
_FULL = Record(
    _ID,
    4711,
    Binding("e1000e", "e1000e", "mine"),
    "vfio",
    "vfio-pci",
    unfinished=True,
    since="2026-11-22T11:00:00+00:00",
    origin="uevent",
    interfaces=("eth0", "eth1"),
    sriov=Sriov(4, autoprobe=False),
    intent=("variant", "vfio_pci"),
    steps=("loading variant", "unbinding from e1000e"),
)
# Of every kind that JSON has, and what Python's JSON has beyond.
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 1.5, 2**70, 10**400, float("inf"), float("nan"), "", "x", "eth0", "\ud800"),
    *([], ["x"], [None], [[]], [{}], [1], {}, {"x": 1}, {"bus": "pci", "name": "x"}, {"vfs": 1}, {"step": "x"}),
)


@pytest.mark.parametrize(
    "record",
    [
        _FULL,
        Record(_ID, 0, Binding(), "vfio"),
        Record(_ID, 1, Binding("e1000e"), "vfio", interfaces=("eth0", "eth1")),
        Record(_ID, 1, Binding("e1000e"), "vfio", sriov=Sriov()),
        # An override may hold any byte, and what splits lines elsewhere.
        Record(_ID, 2**63, Binding(None, None, "\udcff\n\"'\r\v\f\x1c\x85\u2028"), "vfio", "\udcff", steps=("a\nb",)),
    ],
)
def test_a_record_comes_back_as_it_was_written(record: Record) -> None:
    text = record.to_text()
    assert Record.from_text(text) == record
    assert text.count("\n") == 1
    assert text.encode("utf-8")  # it can be written to a file whatever it holds


def test_what_is_appended_counts_from_there_on() -> None:
    text = _FULL.to_text()
    text += step("binding to vfio-pci") + changed(override="other", unfinished=False) + step("\udcff\n")
    assert Record.from_text(text) == replace(
        _FULL, override="other", unfinished=False, steps=(*_FULL.steps, "binding to vfio-pci", "\udcff\n")
    )


def test_every_field_can_be_changed_and_a_whole_record_be_put_back() -> None:
    other = Record(
        _ID, 1, Binding(), "default", None, since="x", origin="cli", interfaces=("a",), intent=("b",), steps=("c",)
    )
    for field in fields(Record):
        text = other.to_text() + changed(**{field.name: asdict(_FULL)[field.name]})
        assert Record.from_text(text) == replace(other, **{field.name: getattr(_FULL, field.name)})
    text = other.to_text() + step("more") + changed(**asdict(_FULL))
    assert Record.from_text(text) == _FULL, "steps too"


def test_a_last_line_that_was_not_written_to_its_end_does_not_count() -> None:
    whole, last = _FULL.to_text() + step("one"), changed(unfinished=False)
    for length in range(len(last)):
        assert Record.from_text(whole + last[:length]) == Record.from_text(whole)
    assert not Record.from_text(whole + last).unfinished
    with pytest.raises(ValueError, match=r"."):
        Record.from_text(_FULL.to_text()[:-1])


def edited(**values: Any) -> str:
    return json.dumps({**json.loads(_FULL.to_text()), **values}) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "{",
        "[]",
        "[]\n",
        "null\n",
        '"text"\n',
        "12\n",
        "{}\n",
        _FULL.to_text()[:-3] + "\n",
        edited(more=1),
        edited(device="pci/0000:01:00.0"),
        edited(device={"bus": "pci"}),
        edited(device={"bus": "pci", "name": 5}),
        edited(device={"bus": "pci", "name": "x", "more": "y"}),
        edited(original=None),
        edited(original={"driver": 5}),
        edited(original={"override": ["x"]}),
        edited(original={"else": "x"}),
        edited(instance="5"),
        edited(instance=1.5),
        edited(instance=True),
        edited(flavour=None),
        edited(override=1),
        edited(unfinished="no"),
        edited(unfinished=0),
        edited(since=None),
        edited(origin=3),
        edited(interfaces=5),
        edited(interfaces="eth0"),
        edited(interfaces={"eth0": 1}),
        edited(interfaces=[["eth0"]]),
        edited(intent="vfio_pci"),
        edited(intent=[None]),
        edited(steps=None),
        edited(steps="ab"),
        edited(sriov=4),
        edited(sriov={}) + changed(sriov={"vfs": "4"}),
        edited(sriov={"vfs": True, "autoprobe": True}),
        edited(sriov={"vfs": 4, "autoprobe": 1}),
        edited(sriov={"vfs": 4, "more": 1}),
        edited(sriov={"vfs": 4, "autoprobe": True, "total": "7"}),
        "[" * 100_000 + "\n",
        edited(since="x" * (1 << 20)),
        *(_FULL.to_text() + line for line in ("\n", "null\n", "[]\n", "5\n", '"x"\n', '{"more": 1}\n', "{\n")),
        *(_FULL.to_text() + line for line in ('{"step": 5}\n', '{"step": ["x"]}\n', '{"override": 5}\n')),
        step("without a record"),
        changed(unfinished=False),
        step("before the record") + _FULL.to_text(),
        *(edited().replace(f'"{name}"', '"renamed"', 1) for name in ("device", "instance", "original", "flavour")),
    ],
    ids=lambda text: text[-40:],
)
def test_what_is_no_record_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Record.from_text(text)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """All containers in a JSON value with each of their keys."""
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in list(keys):
            yield value, key
            yield from places(value[key])


def parsed(text: str) -> Record | None:
    """Whatever it is, it is a record with fields of their types, or a ValueError."""
    try:
        record = Record.from_text(text)
    except ValueError:
        return None
    assert json.loads(record.to_text())
    assert Record.from_text(record.to_text()) == record
    assert hash(record) is not None, "all of it is values"
    return record


def test_any_value_in_any_place_of_any_line_is_a_record_or_a_value_error() -> None:
    line = changed(**asdict(_FULL))
    count = len(list(places(json.loads(line))))
    read = 0
    for number in range(count):
        for value in _VALUES:
            values = json.loads(line)
            container, key = list(places(values))[number]
            container[key] = value
            spoilt = json.dumps(values) + "\n"
            for text in (spoilt, _FULL.to_text() + spoilt):
                read += parsed(text) is not None
    assert read > count, "some of them are as good as what was there"


@pytest.mark.parametrize("seed", range(20))
def test_a_file_with_whatever_in_it_is_a_record_or_a_value_error(seed: int) -> None:
    dice = random.Random(seed)
    names = [field.name for field in fields(Record)] + ["step", "bus", "name", "driver", "vfs", "x"]

    def anything(depth: int) -> Any:
        if depth == 0 or dice.random() < 0.4:
            return dice.choice(_VALUES)
        if dice.random() < 0.5:
            return [anything(depth - 1) for _ in range(dice.randrange(4))]
        return {dice.choice(names): anything(depth - 1) for _ in range(dice.randrange(4))}

    for _ in range(300):
        lines = [json.dumps(anything(3)) for _ in range(dice.randrange(3))]
        parsed("\n".join(dice.sample([_FULL.to_text().strip(), *lines], len(lines) + 1)) + "\n")
        text = _FULL.to_text() + "".join(f"{line}\n" for line in lines)
        start = dice.randrange(len(text))
        parsed(text[:start] + dice.choice(("", "\n", "{", "\0", "\u2028", "null")) + text[start + dice.randrange(9) :])
