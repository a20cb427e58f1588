# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the host uses a device for, as it was seen: facts without a judgement (guards.py makes findings of them)."""

from dataclasses import dataclass
from enum import StrEnum

from flavourd.device import DeviceId
from flavourd.use import Guard, Process


@dataclass(frozen=True)
class Mount:
    """path: the mount point. seen_by: a process of the mount namespace that it is in, None: the host's own."""

    path: str
    seen_by: Process | None = None


class Layer(StrEnum):
    """What a block device is, for those that stand on a disk or partition of the device."""

    LVM = "LVM volume"
    CRYPT = "encrypted volume"
    MULTIPATH = "multipath volume"
    DM = "device-mapper volume"
    MD = "RAID"
    BCACHE = "bcache volume"
    ZFS = "ZFS pool"
    LOOP = "loop device"
    EXPORT = "export"  # to other hosts, by the kernel itself
    JOURNAL = "journal"  # of a filesystem on another disk
    PARTITION = "partition"  # of one of the others
    OTHER = "volume"


@dataclass(frozen=True)
class Volume:
    """A block device that is the device's own, or stands on such ones.

    name: as people know it: `nvme0n1p1`, `md127`, for device-mapper its name in /dev/mapper, for ZFS the pool. layer:
    None for the device's own disks and partitions. stands_on: the device's own disks and partitions below it, () if it
    is one of them. carries: something stands on it in turn. mounted: a filesystem on it is; mounts: where, as far as
    that could be seen. swap: it is swap space. processes: who has it open, apart from the device's own (see
    Use.opened).
    """

    name: str
    layer: Layer | None = None
    stands_on: tuple[str, ...] = ()
    carries: bool = False
    mounted: bool = False
    mounts: tuple[Mount, ...] = ()
    swap: bool = False
    processes: tuple[Process, ...] = ()


@dataclass(frozen=True)
class Upper:
    """An interface on top of another. kind: bond, bridge, vlan, macvlan …; None if that cannot be told."""

    name: str
    kind: str | None = None


@dataclass(frozen=True)
class Interface:
    """An interface of the device's, and what stands directly on it."""

    name: str
    uppers: tuple[Upper, ...] = ()


@dataclass(frozen=True)
class DefaultRoute:
    """family: IPv4 or IPv6. interface: through which it leads. own: the device's interfaces below that one; the
    interface itself if it is the device's.
    """

    family: str
    interface: str
    own: tuple[str, ...]


@dataclass(frozen=True)
class Sessions:
    """Established TCP connections with other hosts that use an address of an interface. own: as in DefaultRoute.

    peers: their addresses, each once. count: of connections.
    """

    interface: str
    own: tuple[str, ...]
    peers: tuple[str, ...]
    count: int
    processes: tuple[Process, ...] = ()


@dataclass(frozen=True)
class Opened:
    """A node in /dev of the device's, and who has it open."""

    node: str
    processes: tuple[Process, ...]


@dataclass(frozen=True)
class Holder:
    """Who holds the device through VFIO. certain: False where the kernel does not tell which device it is (before
    6.18).
    """

    process: Process
    certain: bool = True


@dataclass(frozen=True)
class Unseen:
    """What somebody may use without having been seen. guard: whose look it was. what: nodes, disks or interfaces. why:
    a clause, `open files of x (pid 7) could not be looked at`.
    """

    guard: Guard
    what: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Use:
    """What the host uses one device for.

    driver: what holds it. away: its driver's interfaces are in another network namespace. console: the framebuffer on
    it that the kernel's console uses, as /proc/iomem or sysfs calls it. keyboards: names of all the host's keyboards,
    if they all are behind the device. domains: of libvirt's that have it and run. vfs: of a PF, those that are
    enabled. nameless: it has a node in /dev, but nobody tells which. unseen: what may be in use; unknown: what
    else could not be looked at, in words.
    """

    driver: str | None = None
    volumes: tuple[Volume, ...] = ()
    opened: tuple[Opened, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    away: bool = False
    routes: tuple[DefaultRoute, ...] = ()
    sessions: tuple[Sessions, ...] = ()
    console: str | None = None
    keyboards: tuple[str, ...] = ()
    holders: tuple[Holder, ...] = ()
    domains: tuple[str, ...] = ()
    vfs: "tuple[tuple[DeviceId, Use], ...]" = ()
    nameless: bool = False
    unseen: tuple[Unseen, ...] = ()
    unknown: tuple[str, ...] = ()
