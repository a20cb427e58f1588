# SPDX-License-Identifier: LGPL-2.1-or-later
"""When devices are to be looked at although nothing is heard of them."""

import asyncio
from collections.abc import Callable

from flavourd.device import DeviceId


class Timers:
    """due: hears of the device whose time has come; None stands for all."""

    def __init__(self, loop: asyncio.AbstractEventLoop, due: Callable[[DeviceId | None], None]) -> None:
        self._loop, self._due = loop, due
        self._set: dict[DeviceId | None, asyncio.TimerHandle] = {}

    def within(self, seconds: float, device: DeviceId | None) -> None:
        """What was to be sooner stays so: else events that come one after the other would put it off for ever."""
        earlier = self._set.get(device)
        if earlier is None or earlier.when() > self._loop.time() + seconds:
            self.drop(device)
            self._set[device] = self._loop.call_later(seconds, self._now, device)

    def drop(self, device: DeviceId | None) -> None:
        if timer := self._set.pop(device, None):
            timer.cancel()

    def stop(self) -> None:
        for timer in self._set.values():
            timer.cancel()
        self._set.clear()

    def _now(self, device: DeviceId | None) -> None:
        del self._set[device]
        self._due(device)
