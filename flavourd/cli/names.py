# SPDX-License-Identifier: LGPL-2.1-or-later
"""From what people type to the ids of devices."""

from __future__ import annotations

import re

from flavourd.cli.exits import Exit, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flavourd.cli.client import Client
    from flavourd.cli.exits import Json

_GLOB = "*?["
_NEAR = 3
_WHICH = "flavourctl list tells which there are"


class Names:
    """Asks flavourd for its devices when it must, and once. others: what else a word could have been meant for."""

    def __init__(self, client: Client, others: Sequence[str] = ()) -> None:
        self._client, self._others = client, others
        self._devices: list[Json] | None = None

    @property
    def devices(self) -> list[Json]:
        if self._devices is None:
            self._devices = self._client.call("List").get("devices") or []
        return self._devices

    def ids(self, words: Sequence[str]) -> list[str]:
        """In the order of the words, each device once. Failure for a word that means no device, or several."""
        return list(dict.fromkeys(device for word in words for device in self._meant_by(word)))

    def chosen(self, words: Sequence[str]) -> list[Json]:
        """The devices themselves; all if there are no words."""
        by_id = {str(device.get("id")): device for device in self.devices}
        ids = self.ids(words) if words else list(by_id)
        if missing := [device for device in ids if device not in by_id]:
            raise self.unknown(missing[0])
        return [by_id[device] for device in ids]

    def _meant_by(self, word: str) -> list[str]:
        if as_it_is := address(word):
            return [as_it_is]
        if any(char in word for char in _GLOB):
            return self._matching(word)
        found = list(dict.fromkeys(str(device.get("id")) for device in self.devices if word in called(device)))
        if len(found) > 1:
            raise Failure(Exit.UNKNOWN, f"{word} means several devices", f"say which: {', '.join(found)}")
        if not found:
            raise self.unknown(word)
        return found

    def _matching(self, pattern: str) -> list[str]:
        """Bridges stay with the host: only who names one means it."""
        from fnmatch import fnmatchcase

        found = [
            str(device.get("id"))
            for device in self.devices
            if not device.get("bridge")
            and any(fnmatchcase(name, pattern.lower()) for name in map(str.lower, called(device)))
        ]
        if not found:
            raise Failure(Exit.UNKNOWN, f"no device matches {pattern}", _WHICH)
        return found

    def unknown(self, word: str) -> Failure:
        disks = (disk for device in self.devices for disk in device.get("disks") or [])
        whole = next((disk for disk in disks if re.fullmatch(rf"{re.escape(disk)}p?\d+", word)), None)
        hint = f"that is a partition: ask for the whole disk, {whole}" if whole else self._near(word)
        what = "device, code or guard" if self._others else "device"
        return Failure(Exit.UNKNOWN, f"there is no {what} {word}", hint, "no-device")

    def nearer(self, failure: Failure, ids: Sequence[str]) -> Failure:
        """A failure of flavourd's, with what was meant by an id that was taken as it is and is not there."""
        if failure.exit is Exit.UNKNOWN and failure.code == "no-device":
            there = {device.get("id") for device in self.devices}
            failure.hint = next((self._near(device) for device in ids if device not in there), failure.hint)
        return failure

    def _near(self, word: str) -> str:
        """A hint at what is spelt nearly like a word: of each device the name that is nearest."""
        from difflib import get_close_matches

        # Whoever gets an address wrong means a card near it; another slot that looks alike may be the host's disk.
        slot = (address(word) or "").rpartition(".")[0]
        owner = {
            name: str(device.get("id"))
            for device in self.devices
            for name in called(device)
            if str(device.get("id")).startswith(slot)
        }
        owner |= {name: name for name in self._others}
        nearest: dict[str, str] = {}
        for name in get_close_matches(word, owner, n=4 * _NEAR):
            nearest.setdefault(owner[name], name)
        near = [name if name in device else f"{name} ({device})" for device, name in nearest.items()][:_NEAR]
        return f"did you mean {' or '.join(near)}?" if near else _WHICH


def called(device: Json) -> Iterator[str]:
    """All that a device may be called by."""
    whole = str(device.get("id"))
    bare = whole.partition("/")[2]
    yield from (whole, bare, bare.removeprefix("0000:"))
    yield from device.get("interfaces") or []
    yield from device.get("interfaces_before") or []
    yield from device.get("disks") or []


def short(device: str) -> str:
    """As it stands in tables, where most devices are PCI."""
    return device.removeprefix("pci/")


def address(word: str) -> str | None:
    """The id that a word is by its form alone."""
    if match := re.fullmatch(r"(?:pci/)?(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])", word, re.IGNORECASE):
        domain, rest = match.groups()
        return f"pci/{domain or '0000'}:{rest}".lower()
    return word if "/" in word and not any(char in word for char in _GLOB) else None
