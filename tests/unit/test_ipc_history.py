# SPDX-License-Identifier: LGPL-2.1-or-later
"""The last outcomes, on disk and in memory."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flavourd import outcome
from flavourd.device import DeviceId
from flavourd.ipc import history
from flavourd.ipc.history import History
from flavourd.ipc.wire import Outcome
from flavourd.request import Origin, Request

_DEVICE = "pci/0000:01:00.0"


def told(note: str, device: str = _DEVICE) -> Outcome:
    request = Request(DeviceId.parse(device), "vfio", Origin.UEVENT)
    return Outcome.of(outcome.Outcome(request, outcome.Kind.SWITCHED, "vfio", notes=(note,)))


def add(kept: History, outcome: Outcome) -> None:
    kept.add(outcome)
    kept.write()


def notes(kept: History, limit: int = 10_000, device: str | None = None) -> list[str]:
    return [note for one in kept.last(limit, device) for note in one.notes]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "run/flavourd").mkdir(parents=True)
    return tmp_path


def file(root: Path) -> Path:
    return root / "run/flavourd/history"


def test_outcomes_are_found_again_after_a_restart_oldest_first(root: Path) -> None:
    first = History(root)
    assert first.last(10) == []
    kept = [told(note) for note in ("a", "line\nfeed", "\u2028\x85\x1c", "\udcff\ud800", "ä")]
    for one in kept:
        add(first, one)
    again = History(root)
    assert again.last(10) == first.last(10) == kept
    add(again, told("later"))
    assert notes(History(root)) == [*notes(first), "later"]


def test_the_last_so_many_of_one_device_or_of_all(root: Path) -> None:
    kept = History(root)
    for note, device in (("a", _DEVICE), ("b", "pci/0000:02:00.0"), ("c", _DEVICE), ("d", _DEVICE)):
        add(kept, told(note, device))
    for one in (kept, History(root)):
        assert notes(one, 2) == ["c", "d"]
        assert notes(one, 2, _DEVICE) == ["c", "d"]
        assert notes(one, 5, _DEVICE) == ["a", "c", "d"]
        assert notes(one, 1, "pci/0000:02:00.0") == ["b"]
        assert notes(one, 1, "pci/0000:03:00.0") == notes(one, 0) == notes(one, -1) == []
        assert notes(one, 10**400) == ["a", "b", "c", "d"]


def test_what_is_not_written_down_yet_is_told_all_the_same(root: Path) -> None:
    kept = History(root)
    add(kept, told("a"))
    kept.add(told("b", "pci/0000:02:00.0"))
    kept.add(told("c"))
    assert (notes(kept), notes(kept, 1), notes(kept, 2, _DEVICE)) == (["a", "b", "c"], ["c"], ["a", "c"])
    assert notes(History(root)) == ["a"]
    kept.write()
    assert notes(kept) == notes(History(root)) == ["a", "b", "c"]


def test_neither_file_nor_memory_grows_without_end(root: Path) -> None:
    kept, most = History(root), history._KEPT
    longest = 0
    for number in range(5 * most):
        add(kept, told(str(number)))
        longest = max(longest, file(root).stat().st_size)
    assert notes(kept) == notes(History(root)) == [str(number) for number in range(4 * most, 5 * most)]
    line = len(file(root).read_text(encoding="utf-8").splitlines()[-1]) + 1
    assert longest <= 2 * most * line
    assert [path.name for path in file(root).parent.iterdir()] == ["history"]


@pytest.mark.parametrize(
    "foreign",
    [
        b"",
        b"\n\n",
        b"garbage",
        b"\xff\xfe",
        b"\0" * 100,
        b"[" * 100_000,
        b"7" * 5000,
        b"null",
        b"[]",
        b"{}",
        b'{"device": 7}',
    ],
    ids=lambda foreign: repr(foreign[:8]),
)
def test_foreign_lines_are_passed_over_and_do_not_stay(root: Path, foreign: bytes) -> None:
    kept = History(root)
    add(kept, told("a"))
    own = file(root).read_bytes()
    file(root).write_bytes(foreign + b"\n" + own + foreign + b"\n" + own)
    again = History(root)
    assert notes(again) == ["a", "a"]
    add(again, told("b"))
    assert notes(History(root)) == ["a", "a", "b"]
    assert file(root).read_bytes().count(b"\n") == 3


def test_a_last_line_that_is_cut_spoils_neither_the_others_nor_the_next_one(root: Path) -> None:
    kept = History(root)
    for note in "ab":
        add(kept, told(note))
    file(root).write_bytes(file(root).read_bytes()[:-20])
    again = History(root)
    assert notes(again) == ["a"]
    add(again, told("c"))
    assert notes(History(root)) == ["a", "c"]


def test_what_a_newer_version_has_written_is_passed_over_and_ours_is_kept(root: Path) -> None:
    """It may mean anything; the journal has it."""
    kept = History(root)
    add(kept, told("ours"))
    newer = json.loads(file(root).read_text(encoding="utf-8")) | {"new_field": 1, "notes": ["newer"]}
    with file(root).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(newer) + "\n")
    assert notes(History(root)) == ["ours"]


def test_what_an_older_version_has_written_without_fields_that_may_be_absent_is_kept(root: Path) -> None:
    kept = History(root)
    add(kept, told("older"))
    words = json.loads(file(root).read_text(encoding="utf-8"))
    file(root).write_text(json.dumps({k: v for k, v in words.items() if v is not None}) + "\n", encoding="utf-8")
    assert History(root).last(10) == kept.last(10)


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """What a full disk does: a write that ends in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("before", [0, 1], ids=["the file is written anew", "a line is appended"])
def test_on_a_full_disk_memory_has_it_all_and_the_disk_too_as_soon_as_there_is_room(root: Path, before: int) -> None:
    first = History(root)
    add(first, told("old"))
    kept = History(root)
    for number in range(before):
        add(kept, told(str(number)))
    for note in ("lost", "lost too"):
        with no_file_longer_than(file(root).stat().st_size + 100), pytest.raises(OSError, match="large"):
            add(kept, told(note))
    expected = ["old", *map(str, range(before)), "lost", "lost too"]
    assert notes(kept) == expected
    assert notes(History(root)) == expected[:-2], "what was on the disk is still there"
    add(kept, told("room"))
    assert notes(kept) == notes(History(root)) == [*expected, "room"]


def test_without_the_folder_memory_has_it_all(tmp_path: Path) -> None:
    kept = History(tmp_path)
    with pytest.raises(FileNotFoundError):
        add(kept, told("a"))
    assert notes(kept) == ["a"]
