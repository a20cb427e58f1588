# SPDX-License-Identifier: LGPL-2.1-or-later
"""Requests that come as uevents, marked by udev/90-flavourd.rules.

Only tagged events pass the filter in the kernel, so unrelated ones never wake the daemon. The rules that are made from
the policy tag all devices that it may be for. Tags stay with a device, so its later events do come; and the rules keep
an open request in udev's database. Hence one rule for live events, at start and after an overflow: a request counts if
its SEQNUM is newer than the last one taken for that device.

The device node of the kernel module is tagged too, so that we hear when the module is loaded.
"""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyudev

from flavourd.device import DeviceId
from flavourd.request import Origin, Request
from flavourd.udevdb import UdevDatabase

TAG = "flavourd"
# The rest cannot come from udev, whoever sends the event.
_ORIGINS = {Origin.ATTRIBUTE, Origin.UEVENT, Origin.MODALIAS, Origin.RULE}
_MODULE = DeviceId("misc", "driver_flavour")
_LARGEST = 2**64 - 1
_LARGEST_BUFFER = 1 << 27


@dataclass(frozen=True)
class Heard:
    """changed: devices with what has happened to them (add, bind, unbind, change, …), where that is no new request.
    lost: events were, so that `all()` must be asked. module: the kernel module driver_flavour has come.
    """

    requests: tuple[Request, ...]
    removed: tuple[DeviceId, ...]
    lost: bool
    changed: tuple[tuple[DeviceId, str], ...] = ()
    module: bool = False


class Uevents:
    """database: of the host that is asked for what was missed; events always come from this one."""

    def __init__(self, database: UdevDatabase) -> None:
        self._database = database
        self._monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="udev")
        self._monitor.filter_by_tag(TAG)
        self._monitor.start()
        # pyudev tells an overflow by raising for ever (its issue 194): ask the socket itself, which also clears it.
        self._socket = socket.socket(fileno=os.dup(self._monitor.fileno()))
        # As much as anybody may have (net.core.rmem_max); who asks for nothing gets half of that (socket(7)).
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _LARGEST_BUFFER)

    def fileno(self) -> int:
        return int(self._monitor.fileno())

    def drain(self) -> Heard:
        """Everything that has come."""
        found: list[Request] = []
        removed: list[DeviceId] = []
        changed: list[tuple[DeviceId, str]] = []
        lost = module = False
        while True:
            try:
                device = self._monitor.poll(timeout=0)
            except OSError as error:
                pending = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if errno.ENOBUFS not in (pending, error.errno):
                    raise
                lost = True
                continue
            if device is None:
                return Heard(tuple(found), tuple(removed), lost, tuple(changed), module)
            if not device.subsystem:
                continue
            # The path's last part, for libudev's sys_name turns `!` into `/`.
            id_ = DeviceId(device.subsystem, device.device_path.rpartition("/")[2])
            if id_ == _MODULE:
                module |= device.action != "remove"
                continue
            read = _reader(device)
            if device.action == "remove":
                removed.append(id_)
                continue
            if request := _request(id_, read):
                found.append(request)
            # An open request is repeated by later events of its device.
            if request is None or read("SEQNUM") != str(request.seqnum):
                changed.append((id_, str(device.action)))

    def all(self) -> Iterator[Request]:
        """The last request of every device on a bus, from udev's database."""
        for device in self._database.tagged(TAG):
            if request := _request(device, self._database.properties(device).__getitem__):
                yield request


def _request(device: DeviceId, read: Callable[[str], str]) -> Request | None:
    """What the rules have marked on a device or event; None if nothing."""
    origin, seqnum = read("FLAVOUR_ORIGIN"), _number(read("FLAVOUR_SEQNUM"))
    if origin not in _ORIGINS or seqnum is None:
        return None
    uuid, ticket = read("FLAVOUR_UUID") or None, _number(read("FLAVOUR_TICKET"))
    return Request(device, read("FLAVOUR_REQUEST"), Origin(origin), uuid, seqnum, ticket=ticket)


def _number(text: str) -> int | None:
    """None for what no kernel counts: anybody with root may send anything."""
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(_LARGEST)):
        return None
    number = int(text)
    return number if 0 < number <= _LARGEST else None


def _reader(device: pyudev.Device) -> Callable[[str], str]:
    def read(key: str) -> str:
        try:
            return str(device.properties.get(key, ""))
        except UnicodeDecodeError:  # anybody with root may send anything
            return "\N{REPLACEMENT CHARACTER}"

    return read
