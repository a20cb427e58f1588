# SPDX-License-Identifier: LGPL-2.1-or-later
"""Requests that come as uevents, marked by udev/90-flavourd.rules.

Only tagged events pass the filter in the kernel, so unrelated ones never wake the daemon. Tags stay with a device, so
its later events do come; and the rules keep an open request in udev's database. Hence one rule for live events, at
start and after an overflow: a request counts if its SEQNUM is newer than the last one taken for that device.
"""

import os
import socket
from collections.abc import Iterator

import pyudev

from flavourd.device import DeviceId
from flavourd.request import Origin, Request

TAG = "flavourd"


class Uevents:
    def __init__(self) -> None:
        self._context = pyudev.Context()
        self._monitor = pyudev.Monitor.from_netlink(self._context, source="udev")
        self._monitor.filter_by_tag(TAG)
        self._monitor.start()
        # pyudev tells an overflow by raising for ever (its issue 194): ask the socket itself, which also clears it.
        self._socket = socket.socket(fileno=os.dup(self._monitor.fileno()))

    def fileno(self) -> int:
        return int(self._monitor.fileno())

    def drain(self) -> tuple[list[Request], bool]:
        """Everything that has come; and whether some was lost, so that `all()` must be asked."""
        found: list[Request] = []
        lost = False
        while True:
            try:
                device = self._monitor.poll(timeout=0)
            except OSError:
                if not self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise
                lost = True
                continue
            if device is None:
                return found, lost
            if marked := marked_request(device):
                found.append(marked)

    def all(self) -> Iterator[Request]:
        """The last request of every device, from udev's database."""
        for device in self._context.list_devices().match_tag(TAG):
            if marked := marked_request(device):
                yield marked


def marked_request(device: pyudev.Device) -> Request | None:
    """What the rules have marked on this device or event; None if nothing."""
    origin, seqnum = _property(device, "FLAVOUR_ORIGIN"), _property(device, "FLAVOUR_SEQNUM")
    if origin not in tuple(Origin) or not seqnum.isascii() or not seqnum.isdecimal() or not device.subsystem:
        return None
    live = _property(device, "SEQNUM") == seqnum
    return Request(
        device=DeviceId(device.subsystem, device.sys_name),
        wanted=_property(device, "FLAVOUR_REQUEST"),
        origin=Origin(origin),
        uuid=(_property(device, "SYNTH_UUID") or None) if live else None,
        seqnum=int(seqnum),
    )


def _property(device: pyudev.Device, key: str) -> str:
    try:
        return str(device.properties.get(key, ""))
    except UnicodeDecodeError:  # anybody with root may send anything
        return "\N{REPLACEMENT CHARACTER}"
