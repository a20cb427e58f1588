# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which files there are: BUS/devices/NAME/driver_flavour and its two neighbours, as far as sysfs has the device."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flavourd.device import DeviceId
from flavourd.sysfs import entries

FLAVOUR: Final = "driver_flavour"
CANDIDATES: Final = "driver_candidates"
ERROR: Final = "driver_flavour_error"
FILES = (FLAVOUR, CANDIDATES, ERROR)

_DEVICES = "devices"
_BELOW_A_DEVICE = 8  # numbers: the directory's own, and one for each file
_MOST = (1 << 63) - 1


@dataclass(frozen=True)
class Node:
    """A directory or file. path: from the root, which has none. inode: of the directory in sysfs that it stands for.

    The kernel gives each of these directories another number, also if a device is plugged in where another one was: so
    the number tells them apart.
    """

    path: tuple[str, ...]
    inode: int

    @property
    def device(self) -> DeviceId | None:
        """That it is, or belongs to."""
        return DeviceId(self.path[0], self.path[2]) if len(self.path) > 2 else None

    @property
    def file(self) -> str | None:
        """One of FILES; None if it is a directory."""
        return self.path[3] if len(self.path) > 3 else None

    @property
    def number(self) -> int:
        """As stat(2) tells it: another one for every node, and the same whenever it is looked at."""
        which = FILES.index(self.path[3]) + 1 if len(self.path) > 3 else 0
        return (self.inode * _BELOW_A_DEVICE + which) & _MOST if self.path else 1


ROOT = Node((), 0)


class Tree:
    """root: of the host."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._buses = root / "sys/bus"

    def child(self, parent: Node, name: str, buses: Iterable[str]) -> Node | None:
        """What has this name in a directory. buses: that have flavours."""
        depth = len(parent.path)
        allowed: Iterable[str]
        match depth:
            case 0:
                allowed = buses
            case 1:
                allowed = (_DEVICES,)
            case 2:
                allowed = () if name in ("", ".", "..") or "/" in name else (name,)
            case 3:
                return Node((*parent.path, name), parent.inode) if name in FILES and self.stands(parent) else None
            case _:
                return None
        path = (*parent.path, name)
        inode = self._inode(path)
        return Node(path, inode) if name in allowed and inode else None

    def children(self, parent: Node, buses: Iterable[str]) -> list[Node]:
        """In the order of their numbers: who reads a directory bit by bit misses nothing that stays."""
        names: Iterable[str]
        match len(parent.path):
            case 0:
                names = buses
            case 1:
                names = (_DEVICES,)
            case 2:
                names = entries(self._buses.joinpath(*parent.path))
            case _:
                names = FILES
        nodes = (self.child(parent, name, buses) for name in names)
        return sorted((node for node in nodes if node), key=lambda node: node.number)

    def stands(self, node: Node) -> bool:
        """It is there still, and not another device at its address."""
        return not node.path or self._inode(node.path[:3]) == node.inode

    def _inode(self, path: tuple[str, ...]) -> int:
        """0 if it is not there."""
        try:
            return self._buses.joinpath(*path).stat().st_ino
        except (OSError, ValueError):  # a NUL in the name
            return 0
