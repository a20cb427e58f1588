# SPDX-License-Identifier: LGPL-2.1-or-later
"""What flavourd remembers on disk."""

import fcntl
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from flavourd.device import Binding, DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.journal import Journal
from flavourd.record import Record
from flavourd.request import Origin, Request

_A, _B = DeviceId("pci", "0000:01:00.0"), DeviceId("pci", "0000:01:00.1")
_RECORD = Record(_A, 7, Binding("e1000e"), "vfio", "vfio-pci")

# Holds the lock of a device until its standard input ends.
_HOLDER = """
import sys
from pathlib import Path
from flavourd.device import DeviceId
from flavourd.journal import Journal
with Journal(Path(sys.argv[1])).locked(DeviceId.parse(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path)
    journal.prepare()
    return journal


def records(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "run/flavourd/records").iterdir())


def test_preparing_twice_keeps_what_is_there(journal: Journal) -> None:
    journal.save(_RECORD)
    journal.prepare()
    assert journal.record(_A) == _RECORD


def test_a_record_is_kept_for_its_device_only(journal: Journal) -> None:
    assert journal.record(_A) is None
    journal.save(_RECORD)
    assert journal.record(_A) == _RECORD
    assert journal.record(_B) is None


def test_the_last_record_of_a_device_counts(journal: Journal) -> None:
    journal.save(replace(_RECORD, unfinished=True))
    journal.save(_RECORD)
    assert journal.record(_A) == _RECORD


def test_saving_leaves_the_record_and_nothing_else(journal: Journal, tmp_path: Path) -> None:
    journal.save(_RECORD)
    assert records(tmp_path) == ["pci:0000:01:00.0.json"]


def test_a_dropped_record_is_gone_and_dropping_nothing_is_no_error(journal: Journal) -> None:
    journal.save(_RECORD)
    for _ in range(2):
        journal.drop(_A)
        assert journal.record(_A) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"{}", replace(_RECORD, device=_B).to_json().encode(), b"[" * 100_000],
    ids=["empty", "cut", "no text", "no record", "another device", "without end"],
)
def test_a_corrupt_record_is_set_aside_and_told_and_then_the_device_is_untouched(
    journal: Journal, tmp_path: Path, content: bytes
) -> None:
    journal.save(_RECORD)
    file = tmp_path / "run/flavourd/records/pci:0000:01:00.0.json"
    file.write_bytes(content)
    with pytest.raises(FlavourError) as caught:
        journal.record(_A)
    assert caught.value.code is Code.RECORD
    aside = file.with_name("pci:0000:01:00.0.corrupt")
    assert str(_A) in caught.value.sentence
    assert str(aside) in caught.value.hint
    assert aside.read_bytes() == content
    assert journal.record(_A) is None
    journal.save(_RECORD)
    assert journal.record(_A) == _RECORD


def request(device: DeviceId, seqnum: int = 0, wanted: str = "vfio", uuid: str | None = None) -> Request:
    return Request(device, wanted, Origin.UEVENT, uuid, seqnum)


def test_a_record_that_says_unfinished_is_found_and_a_corrupt_one_hides_no_other(
    journal: Journal, tmp_path: Path
) -> None:
    third = DeviceId("platform", "a.b:c.json")
    for record in (
        _RECORD,
        replace(_RECORD, device=_B, unfinished=True),
        replace(_RECORD, device=third, unfinished=True),
    ):
        journal.save(record)
    (tmp_path / "run/flavourd/records/pci:0000:00:00.0.json").write_bytes(b"{")
    (tmp_path / f"run/flavourd/records/.pci:{_A.name}.json.new").write_text(replace(_RECORD, unfinished=True).to_json())
    assert [record.device for record in journal.unfinished()] == [_B, third]


def test_the_last_request_taken_is_remembered_for_each_device(journal: Journal, tmp_path: Path) -> None:
    assert journal.taken(_A) == 0
    journal.take(request(_A, 12))
    journal.take(request(_A, 3456))
    assert Journal(tmp_path).taken(_A) == 3456
    assert journal.taken(_B) == 0


def test_a_request_that_no_uevent_brought_does_not_change_which_was_the_last(journal: Journal) -> None:
    journal.take(request(_A, 12))
    journal.take(request(_A))
    journal.begin(request(_A), 7)
    assert journal.taken(_A) == 12


@pytest.mark.parametrize("content", [b"", b"x", b"\xff", b"1 2"])
def test_a_spoilt_memory_of_requests_counts_as_none(journal: Journal, tmp_path: Path, content: bytes) -> None:
    journal.take(request(_A, 12))
    (file,) = (tmp_path / "run/flavourd/taken").iterdir()
    file.write_bytes(content)
    assert journal.taken(_A) == 0


def test_what_was_begun_and_not_answered_is_found_after_a_restart_and_answered_to_its_asker(
    journal: Journal, tmp_path: Path
) -> None:
    third = DeviceId("platform", "a.b:c.json")
    asked = (request(third), request(_B, 6, "default", "u-2"), request(_A, 5, "vfio", "u-1"))
    for instance, each in enumerate(asked, start=7):
        journal.begin(each, instance)
    assert list(Journal(tmp_path).unanswered()) == [
        (Request(_A, "vfio", Origin.RECOVERY, "u-1"), 9),
        (Request(_B, "default", Origin.RECOVERY, "u-2"), 8),
        (Request(third, "vfio", Origin.RECOVERY), 7),
    ]
    assert journal.taken(_A) == 5


def test_a_file_whose_writer_died_before_it_had_its_name_is_no_request(journal: Journal, tmp_path: Path) -> None:
    journal.begin(request(_A, 5), 7)
    (file,) = (tmp_path / "run/flavourd/begun").iterdir()
    file.rename(file.with_name(f".{file.name}.new"))
    assert list(journal.unanswered()) == []


def test_what_was_answered_is_not_found_again(journal: Journal) -> None:
    journal.begin(request(_A, 5), 7)
    journal.begin(request(_B, 6), 7)
    for _ in range(2):
        journal.end(_A)
    assert [left.device for left, _ in journal.unanswered()] == [_B]


@pytest.mark.parametrize(
    "wanted", ["\N{REPLACEMENT CHARACTER}", "\udcff", "a\nb", 'q"uote', "vfio_pci:v00008086d000010D3*", ""]
)
def test_a_request_is_found_with_the_very_word_that_was_asked(journal: Journal, wanted: str) -> None:
    journal.begin(request(_A, 5, wanted), 7)
    ((found, _),) = journal.unanswered()
    assert found.wanted == wanted


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"{}", b"[]", b"12", b'"x"', b"null", b'{"wanted": "vfio", "uuid": null}', b"[" * 100_000],
    ids=lambda content: content[:20],
)
def test_what_is_no_request_is_passed_over_for_good(journal: Journal, tmp_path: Path, content: bytes) -> None:
    journal.begin(request(_A), 7)
    journal.begin(request(_B), 7)
    (tmp_path / f"run/flavourd/begun/{_A.bus}:{_A.name}").write_bytes(content)
    for _ in range(2):
        assert [found.device for found, _ in journal.unanswered()] == [_B]
    assert not (tmp_path / f"run/flavourd/begun/{_A.bus}:{_A.name}").exists()


def test_a_write_that_fails_leaves_the_old_record_whole(journal: Journal, tmp_path: Path) -> None:
    journal.save(_RECORD)
    (tmp_path / "run/flavourd/records/.pci:0000:01:00.0.json.new").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space"):
        journal.save(replace(_RECORD, flavour="other"))
    assert journal.record(_A) == _RECORD


def locked_against(root: Path, how: int) -> bool:
    (file,) = (root / "run/flavourd/locks").iterdir()
    with file.open() as stream:
        try:
            fcntl.flock(stream, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.mark.parametrize("how", [fcntl.LOCK_EX, fcntl.LOCK_SH])
def test_a_lock_excludes_a_second_process_until_the_first_one_ends(journal: Journal, tmp_path: Path, how: int) -> None:
    arguments = [sys.executable, "-c", _HOLDER, str(tmp_path), str(_A)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        assert locked_against(tmp_path, how)
        holder.kill()
        holder.wait(timeout=30)
    assert not locked_against(tmp_path, how)
    with journal.locked(_A):
        assert locked_against(tmp_path, how)


def test_a_lock_is_given_back_after_an_error_and_leaves_no_descriptor(journal: Journal, tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ZeroDivisionError), journal.locked(_A):
        assert locked_against(tmp_path, fcntl.LOCK_EX)
        raise ZeroDivisionError
    assert not locked_against(tmp_path, fcntl.LOCK_EX)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_locks_of_two_devices_do_not_meet(journal: Journal, tmp_path: Path) -> None:
    with journal.locked(_A), journal.locked(_B):
        assert len(list((tmp_path / "run/flavourd/locks").iterdir())) == 2


def test_a_request_is_found_with_the_candidates_and_guards_that_were_named(journal: Journal) -> None:
    asked = replace(request(_A), candidates=("b", "a", "\ud800"), force=frozenset({"table", "other"}))
    journal.begin(asked, 7)
    ((found, _),) = journal.unanswered()
    assert (found.candidates, found.force) == (asked.candidates, asked.force)


def test_what_the_version_before_had_begun_is_not_lost(journal: Journal, tmp_path: Path) -> None:
    """It knew neither candidates nor guards."""
    file = tmp_path / f"run/flavourd/begun/{_A.bus}:{_A.name}"
    file.write_text('{"wanted": "vfio", "uuid": "u-1", "instance": 7}\n')
    assert list(journal.unanswered()) == [(Request(_A, "vfio", Origin.RECOVERY, "u-1"), 7)]
    assert file.exists()


def test_what_a_newer_version_had_begun_is_not_lost(journal: Journal, tmp_path: Path) -> None:
    journal.begin(request(_A), 7)
    file = tmp_path / f"run/flavourd/begun/{_A.bus}:{_A.name}"
    file.write_text(file.read_text().replace("{", '{"more": [], ', 1))
    assert [found.device for found, _ in journal.unanswered()] == [_A]


def test_who_only_looks_does_not_set_a_corrupt_record_aside(journal: Journal, tmp_path: Path) -> None:
    file = tmp_path / "run/flavourd/records/pci:0000:01:00.0.json"
    file.write_bytes(b"{")
    for _ in range(2):
        with pytest.raises(FlavourError) as caught:
            journal.record(_A, set_aside=False)
        assert caught.value.code is Code.RECORD
    assert records(tmp_path) == [file.name]


def test_who_waits_for_a_lock_learns_before_for_whom(journal: Journal, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", _HOLDER, str(tmp_path), str(_A)]
    waited_for: list[int] = []
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"

        def wait(pid: int) -> None:
            waited_for.append(pid)
            holder.kill()

        with journal.locked(_A, wait):
            assert waited_for == [holder.pid]
    with journal.locked(_A, wait):
        assert waited_for == [holder.pid], "now there was nobody to wait for"
