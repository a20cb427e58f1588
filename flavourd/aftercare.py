# SPDX-License-Identifier: LGPL-2.1-or-later
"""Devices that were left half switched are put back: at once, and if that fails, again and again.

And why what is tried again and again fails is told once.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from flavourd.device import DeviceId
from flavourd.outcome import Kind, Outcome
from flavourd.request import Origin

# Between attempts: what keeps a device from going back may take its time.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 300.0


class Aftercare:
    """half_done: whether a device's switch has begun and its end was not written down. put_back: asks for it; first:
    before all others that wait for the device.
    """

    def __init__(self, half_done: Callable[[DeviceId], bool], put_back: Callable[[DeviceId, bool], None]) -> None:
        self._half_done, self._put_back = half_done, put_back
        self._pauses: dict[DeviceId, float] = {}
        self._timers: dict[DeviceId, asyncio.TimerHandle] = {}
        self._told: dict[DeviceId, tuple[object, ...]] = {}

    def repeats(self, outcome: Outcome) -> bool:
        """Whether this was told before: why an attempt failed is news only if the last one failed otherwise."""
        device, request = outcome.request.device, outcome.request
        of_policy = request.origin is Origin.POLICY and outcome.kind in (Kind.REFUSED, Kind.UNDONE)
        if not of_policy and (request.origin is not Origin.PUT_BACK or outcome.kind is not Kind.REFUSED):
            self._told.pop(device, None)
            return False
        # What a put-back meets is told by its code alone: the sentence may name another process each time.
        words = (outcome.kind, request.instance, outcome.sentence) if of_policy else ()
        telling = (request.origin, outcome.code, *words)
        told_before = self._told.get(device) == telling
        self._told[device] = telling
        return told_before

    def after(self, outcome: Outcome) -> None:
        """Look after the device of a request that has ended."""
        device = outcome.request.device
        if timer := self._timers.pop(device, None):
            timer.cancel()
        if outcome.kind in (Kind.SWITCHED, Kind.ALREADY) or not self._half_done(device):
            self._pauses.pop(device, None)
            if outcome.request.origin is not Origin.POLICY:  # who has been told of in vain is asked for again later
                self._told.pop(device, None)
        elif outcome.kind is Kind.LOST and outcome.request.origin is not Origin.PUT_BACK:
            self._put_back(device, True)
        else:
            if outcome.request.origin is Origin.PUT_BACK:
                self._pauses[device] = min(2 * self._pauses.get(device, _FIRST_PAUSE / 2), _LONGEST_PAUSE)
            pause = self._pauses.get(device, _FIRST_PAUSE)
            self._timers[device] = asyncio.get_running_loop().call_later(pause, self._again, device)

    def _again(self, device: DeviceId) -> None:
        del self._timers[device]
        with suppress(OSError):  # what cannot be read now is read at the next start
            if self._half_done(device):
                self._put_back(device, False)
