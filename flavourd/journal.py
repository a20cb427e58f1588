# SPDX-License-Identifier: LGPL-2.1-or-later
"""What flavourd remembers under /run/flavourd: a record for each switched device, and what was asked of each.

Bindings end with the kernel that made them, and so does /run. Each file has one writer: records belong to the worker
that holds the device's lock, requests to the daemon.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.record import Record
from flavourd.request import Origin, Request


class Journal:
    def __init__(self, root: Path = Path("/")) -> None:
        run = root / "run/flavourd"
        self._records, self._taken, self._begun, self._locks = (
            run / name for name in ("records", "taken", "begun", "locks")
        )

    def prepare(self) -> None:
        for directory in (self._records, self._taken, self._begun, self._locks):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    # --- records

    def record(self, device: DeviceId, *, set_aside: bool = True) -> Record | None:
        """FlavourError(RECORD) if the file is no record; it is set aside then (unless somebody only wants to look) and
        the device counts as never touched.
        """
        file = self._record_file(device)
        try:
            record = Record.from_json(file.read_text(encoding="utf-8"))
            if record.device != device:
                raise ValueError(f"it is about {record.device}")
        except FileNotFoundError:
            return None
        except ValueError as error:
            aside = file.with_suffix(".corrupt")
            if set_aside:
                file.replace(aside)
            raise FlavourError(
                Code.RECORD,
                f"what was remembered of {device} cannot be read ({error})",
                f"it {'was' if set_aside else 'will be'} set aside as {aside}; ask again",
            ) from error
        return record

    def save(self, record: Record) -> None:
        _write(self._record_file(record.device), record.to_json())

    def drop(self, device: DeviceId) -> None:
        self._record_file(device).unlink(missing_ok=True)

    def records(self) -> Iterator[Record]:
        """Of all devices that have one; what cannot be read is told when its device is asked for."""
        for file in sorted(self._records.glob("[!.]*.json")):
            with suppress(OSError, ValueError):
                yield Record.from_json(file.read_text(encoding="utf-8"))

    def unfinished(self) -> Iterator[Record]:
        """Of the devices whose worker died in the middle of a switch, or is still at it."""
        return (record for record in self.records() if record.unfinished)

    # --- requests

    def taken(self, device: DeviceId) -> int:
        """SEQNUM of the last uevent whose request for this device was taken on; 0 if none was."""
        try:
            return int((self._taken / _file_name(device)).read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return 0

    def take(self, request: Request) -> None:
        """Never again take this request, or an earlier one of its device, from udev."""
        if request.seqnum:
            _write(self._taken / _file_name(request.device), f"{request.seqnum}\n")

    def begin(self, request: Request, instance: int) -> None:
        """The request, for this instance of its device, is in work from now on, until `end`."""
        words = {
            "wanted": request.wanted,
            "uuid": request.uuid,
            "asker": request.asker,
            "instance": instance,
            "candidates": request.candidates,
            "force": sorted(request.force),
        }
        _write(self._begun / _file_name(request.device), json.dumps(words) + "\n")
        self.take(request)

    def end(self, device: DeviceId) -> None:
        (self._begun / _file_name(device)).unlink(missing_ok=True)

    def unanswered(self) -> Iterator[tuple[Request, int]]:
        """What a daemon that died had begun and not answered, with the instance of the device that was meant."""
        for file in sorted(self._begun.glob("[!.]*")):
            bus, _, name = file.name.partition(":")
            try:
                words = json.loads(file.read_text(encoding="utf-8"))
                request = Request(
                    DeviceId(bus, name),
                    str(words["wanted"]),
                    Origin.RECOVERY,
                    words["uuid"],
                    candidates=tuple(map(str, words.get("candidates", ()))),
                    force=frozenset(map(str, words.get("force", ()))),
                    asker=words.get("asker"),
                )
                yield request, int(words["instance"])
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                file.unlink()  # whoever wrote it, it is no request of ours

    # --- locks

    @contextmanager
    def locked(self, device: DeviceId, wait: Callable[[int], None] = lambda _pid: None) -> Iterator[None]:
        """Alone with the device. A worker may outlive its daemon; its successor waits here until the kernel has let
        the first one go. wait: called before, with the number of the process that is waited for (0 if it is not told).
        """
        fd = os.open(self._locks / _file_name(device), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(fd, 20, 0)
                wait(int(holder) if holder.isdigit() else 0)
                fcntl.flock(fd, fcntl.LOCK_EX)
            os.ftruncate(fd, os.pwrite(fd, str(os.getpid()).encode(), 0))
            yield
        finally:
            os.close(fd)

    # ---

    def _record_file(self, device: DeviceId) -> Path:
        return self._records / f"{_file_name(device)}.json"


def _file_name(device: DeviceId) -> str:
    return f"{device.bus}:{device.name}"


def _write(file: Path, text: str) -> None:
    """Whole or not at all."""
    new = file.with_name(f".{file.name}.new")
    with new.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)
