# SPDX-License-Identifier: LGPL-2.1-or-later
"""What flavourd remembers on disk."""

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flavourd.device import Binding, DeviceId, Sriov
from flavourd.errors import Code, FlavourError
from flavourd.journal import Journal, since_boot
from flavourd.keys import Keys
from flavourd.record import Record, step
from flavourd.request import Origin, Request
from flavourd.use import Guard, Severity

from .full import full_at

_A, _B = DeviceId("pci", "0000:01:00.0"), DeviceId("pci", "0000:01:00.1")
_RECORD = Record(_A, 7, Binding("e1000e"), "vfio", "vfio-pci")
_RECORDS, _BEGUN = "run/flavourd/records", "run/flavourd/begun"
_RECORD_FILE, _BEGUN_FILE = f"{_RECORDS}/pci:{_A.name}.json", f"{_BEGUN}/pci:{_A.name}"

# Holds the lock of a key, `alone` or `shared`, until its standard input ends.
_HOLDER = """
import sys
from pathlib import Path
from flavourd.journal import Journal
from flavourd.keys import Keys
root, how, key = sys.argv[1:]
with Journal(Path(root)).locked(Keys(**{how: frozenset({key})})):
    print("held", flush=True)
    sys.stdin.read()
"""
_OWN, _OTHER = (Keys(frozenset({str(device)})) for device in (_A, _B))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path)
    assert journal.prepare() == []
    return journal


def records(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "run/flavourd/records").iterdir())


def test_preparing_twice_keeps_what_is_there(journal: Journal) -> None:
    journal.save(_RECORD)
    assert journal.prepare() == []
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
    [b"", b"{", b"\xff\xfe", b"{}\n", replace(_RECORD, device=_B).to_text().encode(), b"[" * 100_000 + b"\n"],
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
    aside = file.with_name("pci:0000:01:00.0.json.corrupt")
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
    (tmp_path / f"run/flavourd/records/.pci:{_A.name}.json.new").write_text(replace(_RECORD, unfinished=True).to_text())
    assert [record.device for record in journal.unfinished()] == [_B, third]


def test_the_last_request_taken_is_remembered_for_each_device(journal: Journal, tmp_path: Path) -> None:
    assert journal.taken(_A) == 0
    journal.take(request(_A, 12))
    journal.take(request(_A, 3456))
    assert Journal(tmp_path).taken(_A) == 3456
    journal.take(request(_A, 3455))
    assert journal.taken(_A) == 3456, "whose turn comes later than that of a newer one that was refused"
    assert journal.taken(_B) == 0


def test_a_request_that_no_uevent_brought_does_not_change_which_was_the_last(journal: Journal) -> None:
    journal.take(request(_A, 12))
    journal.take(request(_A))
    journal.begin([request(_A)])
    assert journal.taken(_A) == 12


@pytest.mark.parametrize("content", [b"", b"x", b"\xff", b"1 2"])
def test_a_spoilt_memory_of_requests_counts_as_none(journal: Journal, tmp_path: Path, content: bytes) -> None:
    journal.take(request(_A, 12))
    (file,) = (tmp_path / "run/flavourd/taken").iterdir()
    file.write_bytes(content)
    assert journal.taken(_A) == 0


def begun(device: DeviceId, instance: int, **rest: Any) -> tuple[Request, ...]:
    """One that was begun alone, as it is found."""
    return (Request(device, rest.pop("wanted", "vfio"), Origin.RECOVERY, instance=instance, begun=12.5, **rest),)


def test_what_was_begun_and_not_answered_is_found_after_a_restart_and_answered_to_its_asker(
    journal: Journal, tmp_path: Path
) -> None:
    third = DeviceId("platform", "a.b:c.json")
    asked = (request(third), request(_B, 6, "default", "u-2"), request(_A, 5, "vfio", "u-1"))
    for instance, each in enumerate(asked, start=7):
        journal.begin([replace(each, begun=12.5, instance=instance, asker="uid 7")])
    again = Journal(tmp_path)
    assert again.prepare() == []
    assert list(again.unanswered()) == [
        begun(_A, 9, uuid="u-1", asker="uid 7"),
        begun(_B, 8, wanted="default", uuid="u-2", asker="uid 7"),
        begun(third, 7, asker="uid 7"),
    ]
    assert journal.taken(_A) == 5


def test_what_was_begun_together_is_found_together(journal: Journal, tmp_path: Path) -> None:
    third = DeviceId("pci", "0000:00:1f.0")
    asked = [
        replace(request(device, number, uuid=f"u-{number}"), begun=12.5, instance=instance)
        for number, instance, device in ((5, 8, _B), (6, 7, _A))
    ]
    journal.begin(asked)
    journal.begin([replace(request(third), begun=12.5, instance=9)])
    alone, together = Journal(tmp_path).unanswered()
    assert alone == begun(third, 9)
    assert together == (
        *begun(_B, 8, uuid="u-5", beside=frozenset({_A})),
        *begun(_A, 7, uuid="u-6", beside=frozenset({_B})),
    )
    assert (journal.taken(_B), journal.taken(_A)) == (5, 6)
    journal.end(asked)
    assert list(journal.unanswered()) == [alone]


def test_when_a_request_was_begun_is_remembered_over_restarts(journal: Journal) -> None:
    """In seconds since boot, for somebody may set the time of day."""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    journal.begin([request(_A)])
    ((first,),) = journal.unanswered()
    assert first.begun
    assert before <= first.begun <= since_boot() <= time.clock_gettime(time.CLOCK_BOOTTIME)
    journal.begin([first])
    assert list(journal.unanswered()) == [(first,)]


def test_a_file_whose_writer_died_before_it_had_its_name_is_no_request(journal: Journal, tmp_path: Path) -> None:
    journal.begin([request(_A, 5)])
    (file,) = (tmp_path / "run/flavourd/begun").iterdir()
    file.rename(file.with_name(f".{file.name}.new"))
    assert list(journal.unanswered()) == []


def test_what_was_answered_is_not_found_again(journal: Journal) -> None:
    journal.begin([request(_A, 5)])
    journal.begin([request(_B, 6)])
    for _ in range(2):
        journal.end([request(_A)])
    assert [left.device for (left,) in journal.unanswered()] == [_B]


@pytest.mark.parametrize(
    "wanted", ["\N{REPLACEMENT CHARACTER}", "\udcff", "a\nb", 'q"uote', "vfio_pci:v00008086d000010D3*", ""]
)
def test_a_request_is_found_with_the_very_word_that_was_asked(journal: Journal, wanted: str) -> None:
    journal.begin([request(_A, 5, wanted)])
    ((found,),) = journal.unanswered()
    assert found.wanted == wanted


def words(**values: Any) -> bytes:
    """What was begun with _A alone, with other values."""
    common = {"device": {"bus": "pci", "name": _A.name}, "wanted": "vfio", "uuid": None, "asker": None}
    origin = {"origin": "uevent"}
    lists: dict[str, list[str]] = {key: [] for key in ("candidates", "force", "forced", "deny", "guards")}
    return json.dumps(
        [{**common, **lists, "instance": 7, "begun": 12.5, "vfs": None, "rule": None, **origin, **values}]
    ).encode()


def test_the_words_of_these_tests_are_those_that_are_written(journal: Journal, tmp_path: Path) -> None:
    journal.begin([replace(request(_A), begun=12.5, instance=7)])
    assert json.loads((tmp_path / _BEGUN_FILE).read_bytes()) == json.loads(words())


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"\xff", b"{}", b"[]", b"12", b'"x"', b"null", b"[null]", b"[[]]", b"[{}]", b"[" * 100_000),
        b'{"wanted": "vfio", "uuid": null, "instance": 7, "candidates": [], "force": []}',  # before there were several
        *(words()[:-2], words()[1:-1], words() + b"x"),
        *(words(device=_A.name), words(device={"bus": "pci"}), words(device={"bus": "pci", "name": _B.name})),
        *(words(uuid=5), words(asker=["x"]), words(candidates=5), words(force=None), words(instance=None)),
        *(words(instance=float("inf")), words(instance=[]), words(begun=None), words(begun="x"), words(begun=10**400)),
        *(words(begun=float("nan")), words(begun=float("inf")), words(begun=-1), words(begun=1e20)),
        *(words(rule=5), words(vfs="8"), words(vfs=True), words(vfs=1.5), words(deny=None), words(forced=5)),
        words(origin=[]),
        *(words(guards=[["no", "error"]]), words(guards=[["held", "no"]]), words(guards=["held"]), words(guards=None)),
    ],
    ids=lambda content: content[-40:],
)
def test_what_is_no_request_is_passed_over_and_set_aside_at_the_next_start(
    journal: Journal, tmp_path: Path, content: bytes
) -> None:
    for device in (_A, _B):
        journal.begin([request(device)])
    file = tmp_path / _BEGUN_FILE
    file.write_bytes(content)
    for _ in range(2):
        assert [found.device for (found,) in journal.unanswered()] == [_B]
    assert file.read_bytes() == content
    (trouble,) = journal.prepare()
    assert trouble.code is Code.RECORD
    assert str(file) in trouble.sentence
    assert f"{file}.corrupt" in trouble.hint
    assert not file.exists()
    assert journal.prepare() == []
    assert [found.device for (found,) in journal.unanswered()] == [_B]


def test_whatever_value_stands_in_a_request_it_is_one_or_it_is_none(journal: Journal, tmp_path: Path) -> None:
    values: tuple[Any, ...] = (None, True, 0, -1, 1.5, 10**400, float("nan"), "", "x", "\ud800", [], [[]], {}, {"x": 1})
    names = (*json.loads(words())[0], "more")
    read = 0
    for name in names:
        for value in values:
            (tmp_path / _BEGUN_FILE).write_bytes(words(**{name: value}))
            journal.prepare()
            for (found,) in journal.unanswered():
                read += 1
                assert found.device == _A
                journal.begin([found])
                assert list(journal.unanswered()) == [(found,)]
    assert read > len(values), "some are well"


@pytest.mark.parametrize("room", [0, 1, 10])
def test_where_there_is_no_room_files_stay_as_they_are(journal: Journal, tmp_path: Path, room: int) -> None:
    journal.save(_RECORD)
    journal.mark(_A, "loading vfio_pci")
    file = tmp_path / _RECORD_FILE
    before = file.read_bytes()
    changes: list[Callable[[], None]] = [
        lambda: journal.mark(_A, "binding to vfio-pci"),
        lambda: journal.change(_A, unfinished=True),
        lambda: journal.restore(_RECORD),
    ]
    for change in changes:
        with full_at(len(before) + room), pytest.raises(OSError, match=r"large|No space"):
            change()
        assert file.read_bytes() == before
    with full_at(room):
        with pytest.raises(OSError, match="large"):
            journal.save(replace(_RECORD, flavour="other"))
        with pytest.raises(OSError, match="large"):
            journal.begin([request(_A)])
    assert file.read_bytes() == before
    assert list(journal.unanswered()) == []
    journal.mark(_A, "binding to vfio-pci")
    assert journal.record(_A) == replace(_RECORD, steps=("loading vfio_pci", "binding to vfio-pci"))
    assert journal.prepare() == []
    assert records(tmp_path) == [file.name]


def test_a_write_that_fails_leaves_the_old_record_whole(journal: Journal, tmp_path: Path) -> None:
    journal.save(_RECORD)
    (tmp_path / "run/flavourd/records/.pci:0000:01:00.0.json.new").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space"):
        journal.save(replace(_RECORD, flavour="other"))
    assert journal.record(_A) == _RECORD


@contextmanager
def holder(root: Path, how: str = "alone", key: str = str(_A)) -> Iterator[subprocess.Popen[str]]:
    """Another process that has a key; killed in the end, if it still lives."""
    arguments = [sys.executable, "-c", _HOLDER, str(root), how, key]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


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
    with holder(tmp_path):
        assert locked_against(tmp_path, how)
    assert not locked_against(tmp_path, how)
    with journal.locked(_OWN):
        assert locked_against(tmp_path, how)


def test_a_lock_is_given_back_after_an_error_and_leaves_no_descriptor(journal: Journal, tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ZeroDivisionError), journal.locked(_OWN):
        assert locked_against(tmp_path, fcntl.LOCK_EX)
        raise ZeroDivisionError
    assert not locked_against(tmp_path, fcntl.LOCK_EX)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_locks_of_two_devices_do_not_meet(journal: Journal, tmp_path: Path) -> None:
    with journal.locked(_OWN), journal.locked(_OTHER):
        assert len(list((tmp_path / "run/flavourd/locks").iterdir())) == 2


def test_a_request_is_found_with_the_candidates_and_guards_that_were_named(journal: Journal) -> None:
    asked = replace(request(_A), candidates=("b", "a", "\ud800"), force=frozenset({"table", "other"}))
    journal.begin([asked])
    ((found,),) = journal.unanswered()
    assert (found.candidates, found.force) == (asked.candidates, asked.force)


def test_a_rule_of_the_policy_is_found_with_all_that_it_had_asked(journal: Journal) -> None:
    asked = replace(
        request(_A),
        origin=Origin.POLICY,
        candidates=("@alias", "vfio_pci*"),
        forced=frozenset({"b", "a"}),
        deny=("x*", "y"),
        guards=((Guard.SESSION, Severity.OFF), (Guard.GROUP, Severity.ERROR)),
        vfs=8,
        rule="/etc/flavourd/policy.d/a.yaml:3 (net)",
    )
    journal.begin([asked])
    ((found,),) = journal.unanswered()
    assert found == replace(asked, begun=found.begun)


@pytest.mark.parametrize("origin", Origin)
def test_what_somebody_had_asked_for_is_recovered_and_what_flavourd_does_by_itself_is_known_as_such(
    journal: Journal, origin: Origin
) -> None:
    journal.begin([replace(request(_A), origin=origin)])
    ((found,),) = journal.unanswered()
    assert found.origin is (origin if origin in (Origin.POLICY, Origin.PUT_BACK) else Origin.RECOVERY)


def test_what_an_older_version_had_begun_is_not_lost(journal: Journal, tmp_path: Path) -> None:
    (older,) = json.loads(words())
    for name in ("forced", "deny", "guards", "vfs", "rule", "origin"):
        del older[name]
    (tmp_path / _BEGUN_FILE).write_text(json.dumps([older]))
    assert list(journal.unanswered()) == [begun(_A, 7)]


def test_what_a_newer_version_had_begun_is_not_lost(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / _BEGUN_FILE).write_bytes(words(more=[], origin="star"))
    assert list(journal.unanswered()) == [begun(_A, 7)]


def test_who_only_looks_does_not_set_a_corrupt_record_aside(journal: Journal, tmp_path: Path) -> None:
    file = tmp_path / "run/flavourd/records/pci:0000:01:00.0.json"
    file.write_bytes(b"{")
    for _ in range(2):
        with pytest.raises(FlavourError) as caught:
            journal.record(_A, set_aside=False)
        assert caught.value.code is Code.RECORD
    assert records(tmp_path) == [file.name]


def test_who_waits_for_a_lock_learns_before_for_whom(journal: Journal, tmp_path: Path) -> None:
    waited_for: list[int] = []
    with holder(tmp_path) as other:

        def wait(pid: int) -> None:
            waited_for.append(pid)
            other.kill()

        with journal.locked(_OWN, wait):
            assert waited_for == [other.pid]
    with journal.locked(_OWN, wait):
        assert waited_for == [other.pid], "now there was nobody to wait for"


def test_a_lock_that_is_shared_excludes_only_who_wants_it_alone_who_is_not_told_one_of_them_for_all(
    journal: Journal, tmp_path: Path
) -> None:
    shared = Keys(shared=_OWN.alone)
    waited_for: list[int] = []
    with journal.locked(_OWN):
        """Whose number stays in the file must not be taken for one of theirs."""
    with holder(tmp_path, "shared") as one, holder(tmp_path, "shared") as other:
        with journal.locked(shared, waited_for.append):
            assert waited_for == []
            assert locked_against(tmp_path, fcntl.LOCK_EX)
        assert not locked_against(tmp_path, fcntl.LOCK_SH)
        assert not journal.in_work(str(_A)), "nobody has it alone"
        one.kill()
        one.wait(timeout=30)

        def wait(pid: int) -> None:
            waited_for.append(pid)
            other.kill()

        with journal.locked(_OWN, wait):
            assert waited_for == [0]
            assert locked_against(tmp_path, fcntl.LOCK_SH)
            assert journal.in_work(str(_A))


def test_who_wants_to_share_a_lock_waits_for_who_has_it_alone(journal: Journal, tmp_path: Path) -> None:
    with holder(tmp_path, "shared"):
        """It leaves nothing in the file that would be taken for a number."""
    waited_for: list[int] = []
    with holder(tmp_path) as other:

        def wait(pid: int) -> None:
            waited_for.append(pid)
            other.kill()

        with journal.locked(Keys(shared=_OWN.alone), wait):
            assert waited_for == [other.pid]


# --- what is appended to a record


def test_what_is_appended_to_a_record_counts_and_what_was_there_can_be_put_back(
    journal: Journal, tmp_path: Path
) -> None:
    before = replace(_RECORD, interfaces=("eth0",), sriov=Sriov(4, autoprobe=False))
    intent = replace(before, flavour="other", unfinished=True, intent=("a", "b"))
    journal.save(intent)
    for text in ("loading a", "binding to a"):
        journal.mark(_A, text)
    marked = replace(intent, steps=("loading a", "binding to a"))
    assert Journal(tmp_path).record(_A) == marked
    assert list(journal.unfinished()) == [marked]
    journal.change(_A, original={"driver": "x", "module": None, "override": None}, override="a", unfinished=False)
    assert journal.record(_A) == replace(marked, original=Binding("x"), override="a", unfinished=False)
    assert list(journal.unfinished()) == []
    journal.restore(before)
    assert Journal(tmp_path).record(_A) == before
    assert records(tmp_path) == [f"pci:{_A.name}.json"]


def test_what_is_appended_to_no_record_is_an_error_and_makes_none(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        journal.mark(_A, "x")
    with pytest.raises(FileNotFoundError):
        journal.change(_A, unfinished=False)
    (tmp_path / _RECORD_FILE).symlink_to(tmp_path / "else")
    (tmp_path / "else").write_text("")
    with pytest.raises(OSError, match="symbolic"):
        journal.mark(_A, "x")
    assert (tmp_path / "else").read_text() == ""


@pytest.mark.parametrize("cut", [1, 2, 5, 18])
def test_a_line_that_somebody_was_killed_over_spoils_neither_what_stands_before_nor_what_comes_after(
    journal: Journal, tmp_path: Path, cut: int
) -> None:
    journal.save(_RECORD)
    journal.mark(_A, "one")
    with (tmp_path / _RECORD_FILE).open("a") as file:
        file.write(step("two")[:-cut])
    assert journal.record(_A) == replace(_RECORD, steps=("one",))
    journal.mark(_A, "three")
    assert journal.record(_A) == replace(_RECORD, steps=("one", "three"))


# --- what cannot be ours


def _fifo(file: Path) -> None:
    os.mkfifo(file)


def _link(file: Path) -> None:
    target = file.parents[1] / "elsewhere"
    target.write_text(_RECORD.to_text())
    file.symlink_to(target)


def _socket(file: Path) -> None:
    there = os.getcwd()  # noqa: PTH109
    os.chdir(file.parent)  # a socket's path may not be long
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(file.name)
    os.chdir(there)


def _huge(file: Path) -> None:
    file.write_text(_RECORD.to_text())
    os.truncate(file, 1 << 36)


def _writable(file: Path) -> None:
    file.write_text(_RECORD.to_text())
    file.chmod(0o620)


_FOREIGN: dict[str, Callable[[Path], object]] = {
    "garbage": lambda file: file.write_bytes(b"\0\xff" * 100),
    "empty": lambda file: file.touch(),
    "of another device": lambda file: file.write_text(replace(_RECORD, device=_B).to_text()),
    "symbolic link": _link,
    "dangling link": lambda file: file.symlink_to("nowhere"),
    "link to itself": lambda file: file.symlink_to(file.name),
    "fifo": _fifo,
    "socket": _socket,
    "directory": lambda file: file.mkdir(),
    "full directory": lambda file: (file / "x" / "y").mkdir(parents=True),
    "huge": _huge,
    "writable by a group": _writable,
}


@pytest.mark.parametrize("where", [_RECORD_FILE, _BEGUN_FILE, f"{_RECORDS}/no record", f"{_BEGUN}/no request"])
@pytest.mark.parametrize("make", _FOREIGN.values(), ids=_FOREIGN)
def test_what_cannot_be_ours_is_set_aside_and_told_at_the_start(
    journal: Journal, tmp_path: Path, make: Callable[[Path], object], where: str
) -> None:
    other = replace(_RECORD, device=_B)
    journal.save(other)
    journal.begin([request(_B)])
    file = tmp_path / where
    make(file)
    before = len(os.listdir("/proc/self/fd"))
    assert list(journal.records()) == [other]
    assert [found.device for (found,) in journal.unanswered()] == [_B]
    (trouble,) = journal.prepare()
    assert trouble.code is Code.RECORD
    assert str(file) in trouble.sentence
    assert f"{file}.corrupt" in trouble.hint
    assert not os.path.lexists(file)
    assert os.path.lexists(f"{file}.corrupt")
    assert journal.prepare() == []
    assert journal.record(_A) is None
    assert list(journal.records()) == [other]
    assert [found.device for (found,) in journal.unanswered()] == [_B]
    assert len(os.listdir("/proc/self/fd")) == before
    journal.save(_RECORD)
    assert journal.record(_A) == _RECORD


@pytest.mark.parametrize("make", _FOREIGN.values(), ids=_FOREIGN)
def test_what_has_come_since_the_start_and_is_no_record_is_set_aside_when_its_device_is_asked_for(
    journal: Journal, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    make(tmp_path / _RECORD_FILE)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FlavourError) as caught:
        journal.record(_A)
    assert caught.value.code is Code.RECORD
    assert "set aside" in caught.value.hint
    assert journal.record(_A) is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_belongs_to_somebody_else_is_not_ours(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.save(_RECORD)
    journal.begin([request(_A)])
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    assert list(journal.records()) == []
    assert list(journal.unanswered()) == []
    assert len(journal.prepare()) == 2


@pytest.mark.parametrize("mask", [0, 0o002, 0o022, 0o077])
def test_what_is_ours_is_ours_whatever_the_umask(journal: Journal, tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        journal.save(_RECORD)
        journal.begin([request(_A)])
    finally:
        os.umask(before)
    assert journal.prepare() == []
    assert journal.record(_A) == _RECORD
    assert (tmp_path / _RECORD_FILE).stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_set_aside_is_told_and_hinders_nobody(journal: Journal, tmp_path: Path) -> None:
    for name in (_RECORD_FILE, _BEGUN_FILE):
        (tmp_path / name).write_text("{")
        (tmp_path / f"{name}.corrupt" / "full").mkdir(parents=True)
    for _ in range(2):
        troubles = journal.prepare()
        assert [trouble.code for trouble in troubles] == [Code.RECORD, Code.RECORD]
        assert all("cannot be set aside" in trouble.hint for trouble in troubles)
    with pytest.raises(FlavourError, match="cannot be set aside"):
        journal.record(_A)


def test_what_somebody_was_killed_over_is_gone_after_the_start(journal: Journal, tmp_path: Path) -> None:
    run = tmp_path / "run/flavourd"
    for directory in ("records", "begun", "taken", "locks"):
        (run / directory / ".pci:x.json.new").write_text("{")
    assert journal.prepare() == []
    assert [path.name for path in run.rglob(".*")] == []
    (run / "records/.pci:x.json.new").mkdir()
    (trouble,) = journal.prepare()
    assert "pci:x.json.new" in trouble.sentence
    assert journal.prepare() == []


# --- locks of several keys


_KEYS = ["pci/0000:01:00.0", "IOMMU group 9", "PF pci/0000:01:00.0", "driver ioatdma"]
_ALL = Keys(frozenset(_KEYS))

# Takes some keys alone and shares others, again and again, and tells whom it has waited for.
_TAKER = """
import sys
from pathlib import Path
from flavourd.journal import Journal
from flavourd.keys import Keys
journal = Journal(Path(sys.argv[1]))
alone, shared = (frozenset(filter(None, words.split(","))) for words in sys.argv[2:])
for _ in range(200):
    with journal.locked(Keys(alone, shared), print):
        pass
"""


def test_of_several_keys_each_is_held_and_each_is_given_back(journal: Journal, tmp_path: Path) -> None:
    assert not any(map(journal.in_work, _KEYS))
    descriptors = len(os.listdir("/proc/self/fd"))
    with journal.locked(_ALL):
        assert all(map(journal.in_work, _KEYS))
        assert not journal.in_work("IOMMU group 10")
        with journal.locked(Keys(frozenset({"IOMMU group 10"}))):
            assert journal.in_work("IOMMU group 10")
    assert not any(map(journal.in_work, _KEYS))
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert {path.name for path in (tmp_path / "run/flavourd/locks").iterdir()} == {
        key.replace("/", ":") for key in (*_KEYS, "IOMMU group 10")
    }


def test_whoever_shares_one_key_waits_and_is_told_for_whom(journal: Journal, tmp_path: Path) -> None:
    waited_for: list[int] = []
    with holder(tmp_path, key=_KEYS[1]) as other:
        assert journal.in_work(_KEYS[1])
        assert not journal.in_work(_KEYS[0])

        def wait(pid: int) -> None:
            waited_for.append(pid)
            other.kill()

        with journal.locked(_ALL, wait):
            assert waited_for == [other.pid]


@pytest.mark.parametrize(("told", "pid"), [(b"", 0), (b"x", 0), (b"-1", 0), (b"1 2", 0), (b"4711", 4711)])
def test_who_holds_a_lock_is_read_as_an_earlier_version_wrote_it_and_else_waited_for_all_the_same(
    journal: Journal, tmp_path: Path, told: bytes, pid: int
) -> None:
    file = tmp_path / "run/flavourd/locks/key"
    file.write_bytes(told)
    waited_for: list[int] = []
    with file.open() as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)

        def wait(pid: int) -> None:
            waited_for.append(pid)
            fcntl.flock(holder, fcntl.LOCK_UN)

        with journal.locked(Keys(frozenset({"key"})), wait):
            assert waited_for == [pid]


def test_who_has_some_keys_alone_and_shares_others_never_waits_for_ever_nor_for_nobody(
    journal: Journal, tmp_path: Path
) -> None:
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", _TAKER, str(tmp_path), ",".join(alone), ",".join(shared)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for alone, shared in ((_KEYS, []), (_KEYS[:2], _KEYS[2:]), (_KEYS[3:], _KEYS[:3]), ([], _KEYS))
    ]
    told = {int(pid) for taker in takers for pid in taker.communicate(timeout=60)[0].split()}
    assert [taker.returncode for taker in takers] == [0] * 4
    assert told <= {0, *(taker.pid for taker in takers)}, "no number is half of two"


def test_if_one_lock_cannot_be_made_the_others_are_given_back(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "run/flavourd/locks/b").mkdir()
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(IsADirectoryError), journal.locked(Keys(frozenset("abc"))):
        pytest.fail("it has no lock")
    assert not journal.in_work("a")
    assert len(os.listdir("/proc/self/fd")) == descriptors
