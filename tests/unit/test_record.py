# SPDX-License-Identifier: LGPL-2.1-or-later
"""Records and their form on disk."""

import json
from typing import Any

import pytest

from flavourd.device import Binding, DeviceId
from flavourd.record import Record

_ID = DeviceId("pci", "0000:01:00.0")
_FULL = Record(
    _ID, 4711, Binding("e1000e", "e1000e", "mine"), "vfio", "vfio-pci", True, "2026-11-22T11:00:00+00:00", "uevent"
)


@pytest.mark.parametrize(
    "record",
    [
        _FULL,
        Record(_ID, 0, Binding(), "vfio"),
        Record(_ID, 1, Binding("e1000e"), "vfio", interfaces=("eth0", "eth1")),
        Record(_ID, 2**63, Binding(None, None, "\udcff\n\"'"), "vfio", "\udcff"),  # an override may hold any byte
    ],
)
def test_a_record_comes_back_as_it_was_written(record: Record) -> None:
    text = record.to_json()
    assert Record.from_json(text) == record
    assert text.encode("utf-8")  # it can be written to a file whatever it holds


def test_a_record_of_the_version_before_is_read_too() -> None:
    without = {key: value for key, value in json.loads(_FULL.to_json()).items() if key != "interfaces"}
    assert Record.from_json(json.dumps(without)) == _FULL


def changed(**values: Any) -> str:
    return json.dumps({**json.loads(_FULL.to_json()), **values})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"text"',
        "12",
        "{}",
        _FULL.to_json()[:-3],
        changed(more=1),
        changed(device="pci/0000:01:00.0"),
        changed(device={"bus": "pci"}),
        changed(device={"bus": "pci", "name": 5}),
        changed(device={"bus": "pci", "name": "x", "more": "y"}),
        changed(original=None),
        changed(original={"driver": 5}),
        changed(original={"override": ["x"]}),
        changed(original={"else": "x"}),
        changed(instance="5"),
        changed(instance=1.5),
        changed(flavour=None),
        changed(override=1),
        changed(unfinished="no"),
        changed(unfinished=0),
        changed(since=None),
        changed(origin=3),
        changed(interfaces=5),
        changed(interfaces=[["eth0"]]),
        json.dumps({k: v for k, v in json.loads(_FULL.to_json()).items() if k != "original"}),
        json.dumps({k: v for k, v in json.loads(_FULL.to_json()).items() if k != "instance"}),
        "[" * 100_000,
    ],
    ids=lambda text: text[:30],
)
def test_what_is_no_record_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Record.from_json(text)
