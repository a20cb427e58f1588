# SPDX-License-Identifier: LGPL-2.1-or-later
"""What was asked for explicitly, on disk."""

import os
from pathlib import Path

import pytest

from flavourd.device import DeviceId
from flavourd.wishes import Wish, Wishes

from .conftest import Tree

_ONE, _OTHER = (DeviceId("pci", f"0000:0{number}:00.0") for number in (1, 2))
_WISH = Wish(_ONE, 7, "vfio", "2026-11-22T10:00:00+00:00", "varlink")


def file(root: Path, device: DeviceId = _ONE) -> Path:
    return root / f"run/flavourd/wishes/{device.bus}:{device.name}.json"


def test_a_wish_is_found_again_by_its_device(tmp_path: Path) -> None:
    Wishes(tmp_path).save(_WISH)
    assert Wishes(tmp_path).wish(_ONE, 7) == _WISH
    assert Wishes(tmp_path).wish(_OTHER, 7) is None
    assert list(Wishes(tmp_path).devices()) == [_ONE]
    assert file(tmp_path).stat().st_mode & 0o777 == 0o600


def test_what_comes_to_the_address_later_was_not_meant(tmp_path: Path) -> None:
    Wishes(tmp_path).save(_WISH)
    assert Wishes(tmp_path).wish(_ONE, 8) is None


def test_the_last_wish_holds_and_one_that_is_dropped_does_not(tmp_path: Path) -> None:
    wishes = Wishes(tmp_path)
    wishes.save(_WISH)
    wishes.save(Wish(_ONE, 7, "default", _WISH.since, _WISH.origin))
    assert (found := wishes.wish(_ONE, 7)) and found.flavour == "default"
    for _ in range(2):
        wishes.drop(_ONE)
    assert wishes.wish(_ONE, 7) is None


_FIELDS = '"flavour": "vfio", "since": "", "origin": ""'
_DEVICE = '"device": {"bus": "pci", "name": "0000:01:00.0"}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '{"device": "pci/0000:01:00.0"}',
        f"{{{_DEVICE}}}",
        f'{{{_DEVICE}, "instance": "7", {_FIELDS}}}',
        f'{{{_DEVICE}, "instance": 7, {_FIELDS.replace(chr(34) + "vfio" + chr(34), "null")}}}',
        f'{{{_DEVICE.replace("01", "02")}, "instance": 7, {_FIELDS}}}',
        f'{{"device": {{"bus": "..", "name": "x"}}, "instance": 7, {_FIELDS}}}',
        f'{{{_DEVICE}, "instance": 7, {_FIELDS}, "more": 1}}',
        "\udcff",
    ],
)
def test_what_flavourd_has_not_written_is_no_wish(tree: Tree, text: str) -> None:
    root = tree({"run/flavourd/wishes/pci:0000:01:00.0.json": text})
    assert Wishes(root).wish(_ONE, 7) is None
    assert list(Wishes(root).devices()) in ([], [DeviceId("pci", "0000:02:00.0")])


def test_a_file_that_others_may_write_or_that_is_none_is_no_wish(tmp_path: Path) -> None:
    Wishes(tmp_path).save(_WISH)
    file(tmp_path).chmod(0o666)
    assert Wishes(tmp_path).wish(_ONE, 7) is None
    file(tmp_path).unlink()
    os.mkfifo(file(tmp_path))
    assert Wishes(tmp_path).wish(_ONE, 7) is None


def test_without_room_nothing_is_half_written(tmp_path: Path) -> None:
    Wishes(tmp_path).save(_WISH)
    before = file(tmp_path).read_bytes()
    file(tmp_path).with_name(f".{file(tmp_path).name}.new").mkdir()
    with pytest.raises(OSError, match=r".json.new"):
        Wishes(tmp_path).save(Wish(_ONE, 7, "default", "", ""))
    assert file(tmp_path).read_bytes() == before
