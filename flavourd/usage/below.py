# SPDX-License-Identifier: LGPL-2.1-or-later
"""What goes away with a device's driver: everything that stands below the device's directory in sysfs."""

import os
from contextlib import suppress
from dataclasses import dataclass, field

from flavourd.survey import stands_on
from flavourd.usage import peek

# Directories without nodes or interfaces in them that may be many or large.
_BARREN = frozenset(
    {"power", "queue", "queues", "mq", "holders", "slaves", "integrity", "trace", "statistics", "msi_irqs", "hwmon"}
    | {"wakeup", "vfio-dev", "link"}
)
_MOST = 20_000  # directories; a host with 500 disks behind one controller has half as many


@dataclass(frozen=True)
class Node:
    """What has a node in /dev. kind: its class or bus. number: MAJOR:MINOR. place: its directory in sysfs."""

    kind: str
    name: str
    number: str
    place: str

    def device_number(self) -> str:
        """See Procfs.device_number(): the same numbers are given to blocks and characters."""
        return f"{'b' if self.kind == 'block' else 'c'}{self.number}"

    def path(self) -> str:
        """In /dev, as the kernel names it; by the node's own `uevent`, which takes no lock but the node's."""
        if self.kind == "usb":  # that node is the USB device itself, whose lock a driver of its own may hold
            bus, device = peek.text(f"{self.place}/busnum"), peek.text(f"{self.place}/devnum")
            return f"/dev/bus/usb/{int(bus):03}/{int(device):03}" if bus and device else f"/dev/{self.name}"
        for line in (peek.text(f"{self.place}/uevent") or "").split("\n"):
            if line.startswith("DEVNAME="):
                return f"/dev/{line.removeprefix('DEVNAME=')}"
        return f"/dev/{self.name.replace('!', '/')}"


@dataclass
class Below:
    """networks: names of interfaces. away: further ones are in another network namespace. complete: False if there was
    more than could be looked at.
    """

    nodes: list[Node] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)
    away: bool = False
    complete: bool = True

    def disks(self) -> list[str]:
        """Names in /sys/class/block, with partitions."""
        return [node.name for node in self.nodes if node.kind == "block"]


def below(place: str, classes: str) -> Below:
    """place: the device's real directory. classes: /sys/class.

    Devices with an override of their own are counted too (a VMD controller takes its NVMe drives away with it, a USB
    controller of two functions its platform device), but not behind a bridge: that one stays as long as they do.
    """
    found = Below()
    bridge = os.path.exists(f"{place}/secondary_bus_number")
    todo, seen = [place], 0
    while todo:
        here, inner, node, foreign = todo.pop(), [], False, False
        seen += 1
        if seen > _MOST:
            found.complete = False
            break
        with suppress(OSError), os.scandir(here) as entries:  # gone meanwhile
            for entry in entries:
                name = entry.name
                if name == "dev":
                    node = True
                elif name == "driver_override":
                    foreign = bridge and here != place
                elif name not in _BARREN and entry.is_dir(follow_symlinks=False):
                    inner.append(entry.path)
        if foreign:
            continue
        if node and here != place and (one := _node(here)):
            found.nodes.append(one)
        for path in inner:
            if path.endswith("/net"):
                names = peek.names(path)
                found.networks += names
                found.away = found.away or not names or _subdirectories(path) > len(names)
            else:
                todo.append(path)
    if any(node.kind == "nvme" for node in found.nodes):
        found.nodes += _several_ways(place, classes)
    found.nodes.sort(key=lambda node: node.place)
    return found


def _node(place: str) -> Node | None:
    number, kind = peek.text(f"{place}/dev"), peek.target(f"{place}/subsystem")
    return Node(kind, place.rpartition("/")[2], number, place) if number and kind else None


def _subdirectories(net: str) -> int:
    """The directory stays as long as an interface is in it (drivers/base/core.c:cleanup_glue_dir()). What is listed are
    those of the namespace which sysfs was mounted in, what is counted are all (fs/kernfs/inode.c:set_nlink()).
    """
    try:
        return os.stat(net).st_nlink - 2
    except OSError:
        return 0


def _several_ways(place: str, classes: str) -> list[Node]:
    """Disks and partitions of NVMe subsystems that one of the device's controllers leads to."""
    found = []
    for name in peek.names(f"{classes}/block"):
        home = os.path.realpath(f"{classes}/block/{name}")
        disk = os.path.dirname(home) if os.path.exists(f"{home}/partition") else home
        if "/nvme-subsystem/" in home and any(peek.below(above, place) for above in stands_on(disk)):
            found.append(_node(home))
    return [node for node in found if node]
