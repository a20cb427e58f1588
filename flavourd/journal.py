# SPDX-License-Identifier: LGPL-2.1-or-later
"""What flavourd remembers under /run/flavourd: a record for each switched device, and what was asked of each.

Bindings end with the kernel that made them, and so does /run. Each file has one writer: records belong to the worker
that holds the device's lock, requests to the daemon. A record is begun whole or not at all; what comes later is
appended, which needs no room even where /run is full.
"""

import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.keys import Keys
from flavourd.record import Record, changed, step
from flavourd.request import OWN, Origin, Request
from flavourd.sysfs import entries
from flavourd.use import Guard, Severity

_LONGEST = 1 << 24  # bytes; none of our files comes near it
_HOLDER = b"%010d"  # its number; 0 for those who share
_LATEST = 1e11  # seconds since boot from which a date can still be reckoned


class Journal:
    def __init__(self, root: Path = Path("/")) -> None:
        run = root / "run/flavourd"
        # Texts: each switch opens a dozen of these files, and pathlib would double what that costs.
        self._records, self._taken, self._begun, self._locks = (
            str(run / name) for name in ("records", "taken", "begun", "locks")
        )

    def prepare(self) -> list[FlavourError]:
        """Make the directories, and set aside what is in them and cannot be ours: those are the errors."""
        troubles = []
        for place in map(Path, (self._records, self._taken, self._begun, self._locks)):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            for unfinished in place.glob(".*.new"):  # somebody was killed while he wrote it
                try:
                    unfinished.unlink()
                except OSError as error:
                    troubles.append(_set_aside(str(unfinished), f"{unfinished} is in the way ({error})"))
        for directory, read in ((self._records, self._read_record), (self._begun, _read_begun)):
            for file in _files(directory):
                try:
                    read(file)
                except FileNotFoundError:  # its worker was just done with it
                    continue
                except (OSError, ValueError) as error:
                    troubles.append(_set_aside(file, f"{file} is nothing that flavourd has written ({error})"))
        return troubles

    # --- records

    def record(self, device: DeviceId, *, set_aside: bool = True) -> Record | None:
        """FlavourError(RECORD) if the file is no record; it is set aside then (unless somebody only wants to look) and
        the device counts as never touched.
        """
        file = self._record_file(device)
        try:
            return self._read_record(file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            sentence = f"what was remembered of {device} cannot be read ({error})"
            if set_aside:
                raise _set_aside(file, sentence) from error
            raise FlavourError(Code.RECORD, sentence, "it will be set aside at the next request") from error

    def save(self, record: Record) -> None:
        write_whole(self._record_file(record.device), record.to_text())

    def change(self, device: DeviceId, **fields: Any) -> None:
        """These fields of the record have other values from now on."""
        _append(self._record_file(device), changed(**fields))

    def restore(self, record: Record) -> None:
        """The record that was there before."""
        _append(self._record_file(record.device), changed(**asdict(record)))

    def mark(self, device: DeviceId, text: str) -> None:
        """What is about to be done, for who finds the record unfinished."""
        _append(self._record_file(device), step(text))

    def drop(self, device: DeviceId) -> None:
        _unlink(self._record_file(device))

    def records(self) -> Iterator[Record]:
        """Of all devices that have one; what cannot be read is told when its device is asked for."""
        for file in _files(self._records):
            with suppress(OSError, ValueError):
                yield self._read_record(file)

    def unfinished(self) -> Iterator[Record]:
        """Of the devices whose worker died in the middle of a switch, or is still at it."""
        return (record for record in self.records() if record.unfinished)

    # --- requests

    def taken(self, device: DeviceId) -> int:
        """SEQNUM of the last uevent whose request for this device was taken on; 0 if none was."""
        try:
            return int(Path(self._taken, file_name(str(device))).read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return 0

    def take(self, request: Request) -> None:
        """Never again take this request, or an earlier one of its device, from udev."""
        if request.seqnum and request.seqnum > self.taken(request.device):
            write_whole(f"{self._taken}/{file_name(str(request.device))}", f"{request.seqnum}\n")

    def begin(self, requests: Sequence[Request]) -> None:
        """These requests are in work together from now on, until `end`."""
        words = [
            {
                "device": asdict(request.device),
                "wanted": request.wanted,
                "uuid": request.uuid,
                "asker": request.asker,
                "instance": request.instance,
                "candidates": request.candidates,
                "force": sorted(request.force),
                "begun": request.begun or since_boot(),
                "forced": sorted(request.forced),
                "deny": request.deny,
                "guards": request.guards,
                "vfs": request.vfs,
                "rule": request.rule,
                "origin": request.origin,
            }
            for request in requests
        ]
        write_whole(self._begun_file(requests), json.dumps(words) + "\n")
        for request in requests:
            self.take(request)

    def end(self, requests: Sequence[Request]) -> None:
        _unlink(self._begun_file(requests))

    def unanswered(self) -> Iterator[tuple[Request, ...]]:
        """What a daemon that died had begun and not answered; each tuple was begun together. What it did by itself
        still has its origin.
        """
        for file in _files(self._begun):
            with suppress(OSError, ValueError):  # `prepare` has set it aside
                yield _read_begun(file)

    # --- locks

    @contextmanager
    def locked(self, keys: Keys, wait: Callable[[int], None] = lambda _pid: None) -> Iterator[None]:
        """With these keys (see kin.py), and so without anybody who conflicts with them.

        A worker may outlive its daemon; its successor waits here until the kernel has let the first one go. wait:
        called before, with the number of the process that is waited for (0 if it is not told: there may be several).
        """
        with ExitStack() as stack:
            for key in keys:  # in one order, or two could wait for each other
                alone = key in keys.alone
                how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
                fd = os.open(self._lock_file(key), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
                stack.callback(os.close, fd)
                try:
                    fcntl.flock(fd, how | fcntl.LOCK_NB)
                except BlockingIOError:
                    wait(_holder(fd))
                    fcntl.flock(fd, how)
                # Always as long, and written at once: whoever reads meanwhile finds a whole number.
                os.pwrite(fd, _HOLDER % (os.getpid() if alone else 0), 0)
            yield

    def in_work(self, key: str) -> bool:
        """Whether a worker, of whichever daemon, has this key alone now."""
        try:
            fd = os.open(self._lock_file(key), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    # ---

    def _lock_file(self, key: str) -> str:
        return f"{self._locks}/{file_name(key)}"

    def _begun_file(self, requests: Sequence[Request]) -> str:
        return f"{self._begun}/{file_name(str(requests[0].device))}"

    def _record_file(self, device: DeviceId) -> str:
        return f"{self._records}/{file_name(str(device))}.json"

    def _read_record(self, file: str) -> Record:
        record = Record.from_text(read_own(file))
        if self._record_file(record.device) != file:
            raise ValueError(f"it is about {record.device}")
        return record


def _read_begun(file: str) -> tuple[Request, ...]:
    try:
        found = tuple(_begun_of(words) for words in json.loads(read_own(file)))
        if not found or file_name(str(found[0].device)) != os.path.basename(file):
            raise ValueError("it is about another device")
        devices = frozenset(request.device for request in found)
        return tuple(replace(request, beside=devices - {request.device}) for request in found)
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _begun_of(words: dict[str, Any]) -> Request:
    request = Request(
        DeviceId.parse(f"{words['device']['bus']}/{words['device']['name']}"),
        str(words["wanted"]),
        Origin(words["origin"]) if words.get("origin") in OWN else Origin.RECOVERY,
        words["uuid"],
        candidates=tuple(map(str, words["candidates"])),
        force=frozenset(map(str, words["force"])),
        asker=words["asker"],
        instance=int(words["instance"]),
        begun=float(words["begun"]),
        # An older version did not know of these.
        forced=frozenset(map(str, words.get("forced", ()))),
        deny=tuple(map(str, words.get("deny", ()))),
        guards=tuple((Guard(guard), Severity(severity)) for guard, severity in words.get("guards", ())),
        vfs=words.get("vfs"),
        rule=words.get("rule"),
    )
    if not all(isinstance(text, str | None) for text in (request.uuid, request.asker, request.rule)):
        raise ValueError("a field is not a text")
    if request.vfs is not None and type(request.vfs) is not int:
        raise ValueError("a field is not a number")
    if not 0 < float(words["begun"]) < _LATEST:
        raise ValueError("it was begun at no time")
    return request


def since_boot() -> float:
    """Seconds; unlike the time of day, nobody sets it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _holder(fd: int) -> int:
    holder = os.pread(fd, 20, 0)
    return int(holder) if holder.isdigit() else 0


def _files(directory: str) -> list[str]:
    return [f"{directory}/{name}" for name in entries(directory) if name[0] != "." and not name.endswith(".corrupt")]


def _unlink(file: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(file)


def file_name(key: str) -> str:
    return key.replace("/", ":")


def _set_aside(file: str, sentence: str) -> FlavourError:
    aside = f"{file}.corrupt"
    try:
        os.replace(file, aside)
    except OSError as error:
        return FlavourError(Code.RECORD, sentence, f"and it cannot be set aside: {error}; take it away")
    return FlavourError(Code.RECORD, sentence, f"it was set aside as {aside}, and the device counts as never touched")


def read_own(file: str) -> str:
    """Of a plain file that is root's (ours) alone; ValueError for any other."""
    fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise ValueError("it is no plain file of root's own")
        if status.st_size > _LONGEST:
            raise ValueError("it is too long")
        return os.read(fd, status.st_size).decode()
    finally:
        os.close(fd)


def write_whole(file: str, text: str) -> None:
    """Whole or not at all."""
    directory, _, name = file.rpartition("/")
    new, words = f"{directory}/.{name}.new", text.encode()
    # For nobody else to write to, whatever the umask: `read_own` would not have it.
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        while words:
            words = words[os.write(fd, words) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(new, file)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _append(file: str, line: str) -> None:
    """To a file that is there: the whole line or nothing of it, and nothing of one that somebody was killed over."""
    words = line.encode()
    fd = os.open(file, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        there = os.pread(fd, os.fstat(fd).st_size, 0)
        if not there.endswith(b"\n"):
            os.ftruncate(fd, there.rfind(b"\n") + 1)
        if (written := os.write(fd, words)) != len(words):
            os.ftruncate(fd, os.fstat(fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file)
        os.fsync(fd)
    finally:
        os.close(fd)
