# SPDX-License-Identifier: LGPL-2.1-or-later
"""Looks at devices for whoever asks, in workers: the kernel may hold up who looks as well as who switches."""

import asyncio
from collections.abc import Callable, Collection
from typing import TypeVar
from weakref import WeakValueDictionary

from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.worker import Worker, WorkerDied

T = TypeVar("T")

# Somebody only wants to look: rather no answer than a late one, and not at the cost of those who switch.
_SECONDS = 10.0
_AT_ONCE = 4


class Sight:
    """stuck: devices at which nobody need look, for he would fall asleep."""

    def __init__(self, stuck: Collection[DeviceId]) -> None:
        self._stuck = stuck
        self._at_one, self._at_all = asyncio.Semaphore(_AT_ONCE), asyncio.Semaphore(_AT_ONCE)
        self._alone: WeakValueDictionary[DeviceId, asyncio.Lock] = (
            WeakValueDictionary()
        )  # while anybody holds or awaits
        self._asleep: set[DeviceId] = set()
        self._sleepers = 0  # who looked at no device in particular

    @property
    def asleep(self) -> frozenset[DeviceId]:
        """Devices at which nobody can look now."""
        return frozenset({*self._stuck, *self._asleep})

    async def look(self, work: Callable[[], T]) -> T:
        """Do what only reads, and never waits for a device, in a worker. FlavourError, from the work or about it."""
        async with self._at_all:
            return await self.at_once(work)

    async def look_over(self, work: Callable[[], T]) -> T:
        """Do what reads many devices, each of which may send it to sleep.

        FlavourError(STUCK) then, and at once while too many have not come back: whoever asks again and again must not
        leave a process each time.
        """
        async with self._at_all:
            if self._sleepers >= _AT_ONCE:
                sentence = f"{self._sleepers} who looked at the devices sleep in the kernel"
                raise FlavourError(Code.STUCK, sentence, "it heals when the kernel lets go; see journalctl -k")
            return await self.at_once(work)

    async def look_at(self, device: DeviceId, work: Callable[[], T]) -> T:
        """Do what reads one device; it may sleep in the kernel for as long as somebody else holds the device there.

        FlavourError(STUCK) if it does, from then on at once.
        """
        alone = self._alone.setdefault(device, asyncio.Lock())  # one that sleeps must not take all slots
        async with alone, self._at_one:
            if device in self._stuck or device in self._asleep:
                hint = "it heals when the kernel lets go"
                raise FlavourError(Code.STUCK, f"{device} is stuck in the kernel", hint)
            return await self.at_once(work, device)

    async def at_once(self, work: Callable[[], T], device: DeviceId | None = None, seconds: float = _SECONDS) -> T:
        """As `look`, without waiting for others who look. device: that may send it to sleep."""
        try:
            worker = Worker(lambda _tell: _caught(work))
        except OSError as error:
            raise FlavourError(Code.HOST, f"no worker could be started: {error}", "ask again") from error
        await asyncio.wait((worker.done,), timeout=seconds)
        if not worker.done.done():
            if device:
                self._asleep.add(device)
            else:
                self._sleepers += 1

            @worker.done.add_done_callback
            def wake(done: asyncio.Future[T | FlavourError]) -> None:
                done.exception()  # nobody wants to know it any more
                if device:
                    self._asleep.discard(device)
                else:
                    self._sleepers -= 1

            sentence = f"the kernel has not let us look at {device or 'the devices'} for {seconds:g} s"
            raise FlavourError(Code.STUCK, sentence, f"see cat /proc/{worker.pid}/stack and journalctl -k")
        try:
            found = worker.done.result()
        except WorkerDied as died:
            raise FlavourError(Code.INTERNAL, str(died), "this is a bug in flavourd; please report it") from died
        if isinstance(found, FlavourError):
            raise found
        return found


def _caught(work: Callable[[], T]) -> T | FlavourError:
    """In the worker: a refusal is an answer, only what nobody foresaw is not."""
    try:
        return work()
    except FlavourError as error:
        return error
