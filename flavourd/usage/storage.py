# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is done with disks: what stands on them, what of it is mounted or swap space."""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from flavourd.facts import Layer, Mount, Volume
from flavourd.usage import exports, peek
from flavourd.usage.ask import Processes
from flavourd.usage.blocknames import BlockNames
from flavourd.usage.mountinfo import MountLine
from flavourd.usage.procfs import Procfs
from flavourd.use import Process

_LAYERS = {"LVM": Layer.LVM, "CRYPT": Layer.CRYPT, "mpath": Layer.MULTIPATH}
_NAMED = {"bcache": Layer.BCACHE, "loop": Layer.LOOP}


@dataclass(frozen=True)
class _Mounted:
    line: MountLine
    process: Process | None  # see MountTable


class Storage:
    """One look; tables are read once, when they are needed first. missed: whose mounts could not be looked at, in
    words, "" if there is nobody.
    """

    def __init__(self, root: Path, procfs: Procfs, processes: Processes) -> None:
        self._root = os.path.realpath(root).rstrip("/")
        self._blocks = f"{self._root}/sys/class/block"
        self._names = BlockNames(self._root)
        self._procfs, self._processes = procfs, processes
        self.missed = ""

    def above(self, disks: Collection[str]) -> dict[str, set[str]]:
        """For each of these disks and partitions, and all that stands on them, on which of these it stands; names in
        /sys/class/block.
        """
        found: dict[str, set[str]] = {}
        for disk in disks:
            todo, seen = [disk], set()
            while todo:
                name = todo.pop()
                if name not in seen:
                    seen.add(name)
                    found.setdefault(name, set()).add(disk)
                    todo += self._carried(name) if name in disks else [*self._carried(name), *self._partitions(name)]
        return found

    def number(self, name: str) -> str | None:
        return peek.text(f"{self._blocks}/{name}/dev")

    def volumes(self, disks: Collection[str], openers: Mapping[str, tuple[Process, ...]]) -> Iterator[Volume]:
        """openers: by name in /sys/class/block, who has the node of what stands on the disks open."""
        stack = self.above(disks)
        filesystems = self._filesystems(stack)
        busy = {name for name in stack if name in filesystems or name in self._swaps or self._carried(name)}
        for name, feet in sorted(stack.items()):
            own = name in disks
            shown, layer = (_shown(name), None) if own else self._named(name)
            yield Volume(
                name=shown,
                layer=layer,
                stands_on=() if own else tuple(map(_shown, sorted(feet))),
                carries=bool(self._carried(name)) or not busy.isdisjoint(self._partitions(name)),
                mounted=name in filesystems,
                mounts=_told(filesystems.get(name, ())),
                swap=name in self._swaps,
                processes=openers.get(name, ()),
            )
        for pool, members in sorted(self._pools(disks).items()):
            yield Volume(pool, Layer.ZFS, tuple(map(_shown, sorted(members))))
        for layer, title, name in self._beside_holders:
            if name in stack:
                yield Volume(title, layer, tuple(map(_shown, sorted(stack[name]))))

    # ---

    def _carried(self, name: str) -> list[str]:
        place = f"{self._blocks}/{name}"
        # A cache of bcache has no holders: it belongs to a set of backing devices, each of which is a bcacheN.
        caches = f"{place}/bcache/set"
        links = (f"{caches}/{entry}/dev" for entry in peek.names(caches) if entry.startswith("bdev"))
        return [*peek.names(f"{place}/holders"), *filter(None, map(peek.target, links)), *self._loops.get(name, ())]

    def _partitions(self, name: str) -> list[str]:
        place = f"{self._blocks}/{name}"
        return [one for one in peek.names(place) if os.path.exists(f"{place}/{one}/partition")]

    def _named(self, name: str) -> tuple[str, Layer]:
        place = f"{self._blocks}/{name}"
        if shown := peek.text(f"{place}/dm/name"):
            kinds = (peek.text(f"{place}/dm/uuid") or "").split("-")
            return shown, next((_LAYERS[kind] for kind in kinds[:1] if kind in _LAYERS), Layer.DM)
        if os.path.isdir(f"{place}/md"):
            return name, Layer.MD
        if os.path.exists(f"{place}/partition"):
            return _shown(name), Layer.PARTITION
        return _shown(name), next((_NAMED[kind] for kind in _NAMED if name.startswith(kind)), Layer.OTHER)

    def _filesystems(self, stack: Collection[str]) -> dict[str, list[_Mounted]]:
        """What is mounted, by name in /sys/class/block; with an empty list where a filesystem is, but not seen."""
        found = {
            name: self._mounted[key] for name in stack for key in (name, self.number(name)) if key in self._mounted
        }
        for members in self._btrfs:
            lines = [one for name in sorted(members) for one in self._mounted.get(name, ())]
            found |= dict.fromkeys(members.intersection(stack), lines)
        return found

    @cached_property
    def _mounted(self) -> dict[str | None, list[_Mounted]]:
        """By the number of its device, or by the names of those in /sys/class/block if it tells none (btrfs)."""
        found: dict[str | None, list[_Mounted]] = defaultdict(list)
        tables, self.missed = self._processes.mounts()
        for table in tables:
            for line in table.lines:
                own = self._sources(line) if line.numberless else (line.device,)
                for key in (*own, *filter(None, map(self._names.of, line.beside))):
                    found[key].append(_Mounted(line, table.process))
        return dict(found)

    def _sources(self, line: MountLine) -> tuple[str, ...]:
        """Names in /sys/class/block of what a filesystem without a device's number is on."""
        if line.source not in self._resolved:
            pieces = [line.source]
            if line.kind == "bcachefs" and not os.path.lexists(self._root + line.source):
                pieces = line.source.split(":")
            self._resolved[line.source] = tuple(filter(None, map(self._names.of, pieces)))
        return self._resolved[line.source]

    @cached_property
    def _resolved(self) -> dict[str, tuple[str, ...]]:
        return {}

    @cached_property
    def _swaps(self) -> frozenset[str]:
        return frozenset(filter(None, map(self._names.of, self._procfs.swaps())))

    @cached_property
    def _btrfs(self) -> list[frozenset[str]]:
        """Disks of each btrfs that is mounted somewhere: it is in sysfs only as long as it is (btrfs(5), sysfs)."""
        home = f"{self._root}/sys/fs/btrfs"
        return [frozenset(peek.names(f"{home}/{name}/devices")) for name in peek.names(home) if "-" in name]

    @cached_property
    def _loops(self) -> dict[str, list[str]]:
        found = defaultdict(list)
        for loop, path in exports.loops(self._root):
            if name := self._names.of(path):
                found[name].append(loop)
        return dict(found)

    @cached_property
    def _beside_holders(self) -> list[tuple[Layer, str, str]]:
        """(what it is, its title, name in /sys/class/block of what it is on)"""
        shared = ((Layer.EXPORT, title, self._names.of(path)) for title, path in exports.exports(self._root))
        journals = ((Layer.JOURNAL, "of another filesystem", name) for name in exports.journals(self._root))
        return [(layer, title, name) for layer, title, name in (*shared, *journals) if name]

    def _pools(self, disks: Iterable[str]) -> dict[str, set[str]]:
        """ZFS pools that are imported, by what udev has found on the disks."""
        found = defaultdict(set)
        if self._procfs.exists("spl/kstat/zfs"):
            for name in disks:
                data = peek.text(f"{self._root}/run/udev/data/b{self.number(name)}") or ""
                words = dict(line[2:].partition("=")[::2] for line in data.split("\n") if line.startswith("E:"))
                pool = words.get("ID_FS_LABEL")
                if words.get("ID_FS_TYPE") == "zfs_member" and pool and self._procfs.exists(f"spl/kstat/zfs/{pool}"):
                    found[pool].add(name)
        return found


def _shown(name: str) -> str:
    """sysfs has no slashes in names."""
    return name.replace("!", "/")


def _told(mounts: Sequence[_Mounted]) -> tuple[Mount, ...]:
    """Mount points of the host's own namespace; of others, only if there are none there: most of those are copies."""
    own = [one for one in mounts if one.process is None]
    return tuple(dict.fromkeys(Mount(one.line.path, one.process) for one in own or mounts))
