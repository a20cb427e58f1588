# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the use of disks means for taking them away: findings, each with what would free them."""

import re
from collections import defaultdict
from collections.abc import Iterator

from flavourd.facts import Layer, Volume
from flavourd.use import Finding, Guard
from flavourd.wording import listed, quoted, verb

_SHOWN = 3  # mount points in a hint
_BETWEEN = re.compile(r"(?<!-)-(?!-)")  # LVM doubles the dashes of names (dm name: VG-LV)


def disk_findings(volumes: tuple[Volume, ...]) -> Iterator[Finding]:
    for volume in volumes:
        if volume.mounted:
            yield _mounted(volume)
    for volume in volumes:
        if volume.swap:
            yield Finding(Guard.SWAP, f"{_on(volume)} is swap space", f"swapoff {quoted(_node(volume))}")
    groups: dict[tuple[Layer, tuple[str, ...], str], list[Volume]] = defaultdict(list)
    for volume in volumes:
        # What carries something is told by that, and what is mounted or swap has been told.
        if volume.layer and volume.layer is not Layer.PARTITION and not _told(volume):
            family = _volume_group(volume) if volume.layer is Layer.LVM else volume.name
            groups[volume.layer, volume.stands_on, family].append(volume)
    for (layer, below, _), some in groups.items():
        names = listed([volume.name for volume in some])
        if layer is Layer.ZFS:
            sentence = f"ZFS pool {names} is imported from {listed(below)}"
        else:
            sentence = f"{layer}{'s' * (len(some) > 1)} {names} {verb(some, 'stands', 'stand')} on {listed(below)}"
        processes = dict.fromkeys(process for volume in some for process in volume.processes)
        yield Finding(Guard.STACKED, sentence, _taken_down(some[0]), tuple(processes))


def _mounted(volume: Volume) -> Finding:
    here = [mount.path for mount in volume.mounts if mount.seen_by is None]
    if here:
        return Finding(
            Guard.MOUNTED,
            f"{_on(volume)} is mounted at {listed(here)}",
            f"umount {' '.join(map(quoted, here[:_SHOWN]))}",
        )
    if volume.mounts:
        first = volume.mounts[0]
        more = len(volume.mounts) - 1
        return Finding(
            Guard.MOUNTED,
            f"{_on(volume)} is mounted at {first.path} in the mount namespace of {first.seen_by}"
            + (f" and {more} more" if more else ""),
            f"stop {first.seen_by.unit or first.seen_by.name}" if first.seen_by else "",
        )
    return Finding(
        Guard.MOUNTED, f"{_on(volume)} is part of a filesystem that is mounted", "umount that filesystem; see findmnt"
    )


def _on(volume: Volume) -> str:
    """`nvme0n1p1`, or for what stands on it `nvme0n1p1 (vg-root on it)`."""
    if not volume.stands_on:
        return volume.name
    it = "it" if len(volume.stands_on) == 1 else "them"
    return f"{listed(volume.stands_on)} ({volume.name} on {it})"


def _node(volume: Volume) -> str:
    mapper = volume.layer in (Layer.LVM, Layer.CRYPT, Layer.MULTIPATH, Layer.DM)
    return f"/dev/mapper/{volume.name}" if mapper else f"/dev/{volume.name}"


def _volume_group(volume: Volume) -> str:
    return _BETWEEN.split(volume.name)[0].replace("--", "-")


def _taken_down(volume: Volume) -> str:
    match volume.layer:
        case Layer.LVM:
            return f"vgchange -an {quoted(_volume_group(volume))}"
        case Layer.CRYPT:
            return f"cryptsetup close {quoted(volume.name)}"
        case Layer.MULTIPATH:
            return f"multipath -f {quoted(volume.name)}"
        case Layer.DM:
            return f"dmsetup remove {quoted(volume.name)}"
        case Layer.MD:
            return f"mdadm --stop {_node(volume)}"
        case Layer.BCACHE:
            return f"echo 1 > /sys/block/{volume.name}/bcache/stop"
        case Layer.ZFS:
            return f"zpool export {quoted(volume.name)}"
        case Layer.LOOP:
            return f"losetup -d {_node(volume)}"
        case Layer.EXPORT:
            return "end that export, with targetcli or nvmetcli"
        case Layer.JOURNAL:
            return "umount that filesystem; see findmnt"
        case _:
            return f"take {_node(volume)} down"


def _told(volume: Volume) -> bool:
    return volume.carries or volume.mounted or volume.swap
