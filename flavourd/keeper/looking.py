# SPDX-License-Identifier: LGPL-2.1-or-later
"""Looks at many devices in workers, and again later at those that cannot be looked at now."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import partial

from flavourd import logs
from flavourd.desk import Desk
from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.keeper.look import Sighting
from flavourd.keeper.patience import patiently
from flavourd.keeper.timers import Timers

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 300.0


class Looking:
    """`later`: what was to be looked at and is in work, or sleeps in the kernel."""

    def __init__(self, desk: Desk, timers: Timers) -> None:
        self._desk, self._timers = desk, timers
        self.later: set[DeviceId] = set()
        self._pauses: dict[DeviceId, float] = {}

    async def at(
        self, devices: Collection[DeviceId], look: Callable[[Sequence[DeviceId]], list[Sighting]]
    ) -> list[Sighting]:
        """look: at these, in a worker."""
        free = set(devices) - self._desk.turns.steps.keys()
        asleep = free & self._desk.sight.asleep
        self.later -= free
        self.later |= set(devices) - free
        self._put_off(asleep)
        awake = sorted(free - asleep)
        try:
            found = await patiently(partial(self._look, awake, partial(look, awake)), {Code.STUCK}) if awake else []
        except FlavourError as error:
            if error.code is not Code.STUCK or len(awake) == 1:
                if error.code is not Code.STUCK:
                    logs.tell_trouble(error, logs.WARNING)
                self._put_off(awake)
                return []
        else:
            for device in awake:
                self._pauses.pop(device, None)
            return found
        # One of them sleeps in the kernel: the others can be looked at without it.
        alone = await asyncio.gather(*(self.at([device], look) for device in awake))
        return [sighting for one in alone for sighting in one]

    def forget(self, device: DeviceId) -> None:
        self.later.discard(device)
        self._pauses.pop(device, None)

    async def _look(self, devices: Sequence[DeviceId], work: Callable[[], list[Sighting]]) -> list[Sighting]:
        sight = self._desk.sight
        return await (sight.look_over(work) if len(devices) > 1 else sight.look_at(devices[0], work))

    def _put_off(self, devices: Collection[DeviceId]) -> None:
        self.later.update(devices)
        for device in devices:
            self._pauses[device] = min(2 * self._pauses.get(device, _FIRST_PAUSE / 2), _LONGEST_PAUSE)
            self._timers.within(self._pauses[device], device)
