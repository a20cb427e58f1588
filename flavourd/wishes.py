# SPDX-License-Identifier: LGPL-2.1-or-later
"""What was asked for explicitly and came true: it goes before the policy until the next boot, or until the device is
unplugged. One file a device under /run/flavourd/wishes, whose one writer is the daemon.

In the same form, in another folder, stands where rules that only prefer have brought devices.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from flavourd.device import DeviceId
from flavourd.journal import file_name, read_own, write_whole
from flavourd.sysfs import entries


@dataclass(frozen=True)
class Wish:
    """instance: of the device (see Device), for what comes to its address later was not meant. since: ISO 8601, UTC.
    origin: who asked.
    """

    device: DeviceId
    instance: int
    flavour: str
    since: str
    origin: str


class Wishes:
    def __init__(self, root: Path = Path("/"), folder: str = "wishes") -> None:
        self._wishes = str(root / "run/flavourd" / folder)

    def save(self, wish: Wish) -> None:
        text = json.dumps(asdict(wish)) + "\n"
        try:
            write_whole(self._file(wish.device), text)
        except FileNotFoundError:  # the first one
            os.makedirs(self._wishes, mode=0o700, exist_ok=True)
            write_whole(self._file(wish.device), text)

    def wish(self, device: DeviceId, instance: int) -> Wish | None:
        """None also if the file is none of ours, or about a device that stood there before: then the policy holds."""
        with suppress(OSError, ValueError):
            found = _wish_of(read_own(self._file(device)))
            if (found.device, found.instance) == (device, instance):
                return found
        return None

    def drop(self, device: DeviceId) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._file(device))

    def devices(self) -> Iterator[DeviceId]:
        """Those that have a file."""
        for name in entries(self._wishes):
            if name[0] != "." and name.endswith(".json"):
                with suppress(OSError, ValueError):
                    yield _wish_of(read_own(f"{self._wishes}/{name}")).device

    def _file(self, device: DeviceId) -> str:
        return f"{self._wishes}/{file_name(str(device))}.json"


def _wish_of(text: str) -> Wish:
    """ValueError if `save` has not written it."""
    try:
        values = json.loads(text)
        device = DeviceId.parse(f"{values['device']['bus']}/{values['device']['name']}")
        wish = Wish(**{**values, "device": device})
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if type(wish.instance) is not int or not all(isinstance(x, str) for x in (wish.flavour, wish.since, wish.origin)):
        raise ValueError("a field is of another type")
    return wish
