# SPDX-License-Identifier: LGPL-2.1-or-later
"""What became of writes of which flavourd itself never told an outcome: it was away, or refused even to listen."""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime

from flavourd.attributes.tree import Node

_MOST = 1000


@dataclass(frozen=True)
class Note:
    """instance: of the device that was meant."""

    time: datetime
    instance: int
    text: str


class Unheard:
    """The last one of each device."""

    def __init__(self) -> None:
        self._notes: OrderedDict[tuple[str, ...], Note] = OrderedDict()

    def note(self, node: Node, text: str, time: datetime | None = None) -> None:
        """node: a file of the device. time: now, unless told."""
        key = node.path[:3]
        self._notes.pop(key, None)
        self._notes[key] = Note(time or datetime.now(UTC), node.inode, text)
        if len(self._notes) > _MOST:
            self._notes.popitem(last=False)

    def newer(self, node: Node, than: str | None) -> str | None:
        """Text of the device's note, unless flavourd has told an outcome since. than: when that was (RFC 3339)."""
        note = self._notes.get(node.path[:3])
        if not note or note.instance != node.inode:
            return None
        told = datetime.fromisoformat(than) if than else None
        return None if told and told > note.time else note.text
