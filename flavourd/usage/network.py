# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is done with interfaces: what stands on them, which default routes and connections go through them."""

import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from flavourd.facts import DefaultRoute, Interface, Upper
from flavourd.usage import peek
from flavourd.usage.procfs import Procfs
from flavourd.usage.rtnetlink import Address, Tables

_ESTABLISHED = "01"
_UP = 1  # IFF_UP


@dataclass(frozen=True)
class Connection:
    """An established TCP connection of this host. inode: of its socket, `0` if no process has it any more."""

    local: Address
    remote: Address
    inode: str


class Network:
    """One look; tables are read once, when they are needed first. unknown: what could not be read, in words; unasked:
    that it is routes and addresses, "" if they are known.
    """

    def __init__(self, root: Path, procfs: Procfs, tables: Callable[[], Tables]) -> None:
        self._classes = str(root / "sys/class/net")
        self._procfs = procfs
        self._ask = tables
        self.unknown: list[str] = []
        self.unasked = ""

    def interface(self, name: str) -> Interface:
        return Interface(name, tuple(Upper(upper, self._kind(upper)) for upper in self._uppers(name)))

    def is_up(self, name: str) -> bool:
        """It may carry something, as far as that can be told."""
        flags = peek.text(f"{self._classes}/{name}/flags")
        return flags is None or bool(int(flags, 16) & _UP)

    def above(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """These interfaces and all that stands on them, with those of these that each stands on."""
        found: dict[str, list[str]] = {}
        for own in names:
            todo, seen = [own], set()
            while todo:
                name = todo.pop()
                if name not in seen:
                    seen.add(name)
                    found.setdefault(name, []).append(own)
                    todo += self._uppers(name)
        return {name: tuple(feet) for name, feet in found.items()}

    def routes(self, stack: Mapping[str, tuple[str, ...]]) -> Iterator[DefaultRoute]:
        """stack: see above()."""
        indexes = {self._index(name): name for name in stack}
        for route in self._tables.routes:
            if route.interface in indexes and (name := indexes[route.interface]):
                yield DefaultRoute(f"IPv{route.version}", name, stack[name])

    def connections(self, stack: Mapping[str, tuple[str, ...]]) -> dict[str, list[Connection]]:
        """By the interface whose address they use."""
        indexes = {index: name for name in stack if (index := self._index(name)) is not None}
        owners: dict[Address, list[str | None]] = defaultdict(list)
        for local in self._tables.addresses:
            owners[local.address].append(indexes.get(local.interface))
        ours = {
            address: next(name for name in names if name)
            for address, names in owners.items()
            # Which interface a link-local address stands for is not told where several have the same.
            if any(names) and (all(names) or not address.is_link_local)
        }
        found = defaultdict(list)
        for connection in self._connections if ours else ():
            if connection.local in ours and connection.remote not in owners and not connection.remote.is_loopback:
                found[ours[connection.local]].append(connection)
        return found

    # ---

    def _uppers(self, name: str) -> list[str]:
        place = f"{self._classes}/{name}"
        links = [entry.removeprefix("upper_") for entry in peek.names(place) if entry.startswith("upper_")]
        master = peek.target(f"{place}/master")
        return links if master is None or master in links else [*links, master]

    def _kind(self, name: str) -> str | None:
        place = f"{self._classes}/{name}"
        for line in (peek.text(f"{place}/uevent") or "").split("\n"):
            if line.startswith("DEVTYPE="):
                return line.removeprefix("DEVTYPE=")
        for folder, kind in (("bonding", "bond"), ("bridge", "bridge")):
            if peek.names(f"{place}/{folder}"):
                return kind
        return "openvswitch" if name == "ovs-system" else None

    def _index(self, name: str) -> int | None:
        text = peek.text(f"{self._classes}/{name}/ifindex")
        return int(text) if text else None

    @cached_property
    def _tables(self) -> Tables:
        try:
            tables = self._ask()
        except OSError as error:
            self.unasked = f"routes and addresses: {error.strerror or error}"
            self.unknown.append(self.unasked)
            return Tables()
        if any(route.interface is None for route in tables.routes):
            self.unknown.append("where a default route leads that only a nexthop object tells")
        return tables

    @cached_property
    def _connections(self) -> list[Connection]:
        found: list[Connection] = []
        for name in ("tcp", "tcp6"):
            lines = self._procfs.lines(f"net/{name}")
            if lines is None and name == "tcp":  # without IPv6 there is no tcp6
                self.unknown.append("TCP connections: /proc/net/tcp cannot be read")
            found += connections(lines or ())
        return found


def connections(lines: Iterable[str]) -> Iterator[Connection]:
    """Established ones of /proc/net/tcp or tcp6 (proc_pid_net(5)); addresses of IPv4 in IPv6 are told as IPv4."""
    for line in lines:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _ESTABLISHED:
            yield Connection(_address(fields[1]), _address(fields[2]), fields[9])


def _address(field: str) -> Address:
    """`HEX:PORT`, where HEX is a row of 32-bit words, each in the byte order of the host."""
    digits = field.partition(":")[0]
    words = [int(digits[start : start + 8], 16) for start in range(0, len(digits), 8)]
    address = ip_address(struct.pack(f"={len(words)}I", *words))
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
