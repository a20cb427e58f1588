# SPDX-License-Identifier: LGPL-2.1-or-later
"""What happens, for whoever listens."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flavourd.ipc.wire import Outcome, Step

Event = Step | Outcome


class Listener:
    """Events that came since it began to listen and that it wants.

    limit: how many are kept for who is slow to read, the newest; None: all. steps: whether it hears of steps, too.
    `lost`: how many were left out so far.
    """

    def __init__(self, wants: Callable[[Event], bool], limit: int | None, steps: bool) -> None:
        self._wants, self.steps = wants, steps
        self._events: deque[Event] = deque(maxlen=limit)
        self._came = asyncio.Event()
        self._over = False
        self.lost = 0

    def hear(self, event: Event) -> None:
        if (self.steps or isinstance(event, Outcome)) and self._wants(event):
            self.lost += len(self._events) == self._events.maxlen
            self._events.append(event)
            self._came.set()

    def end(self) -> None:
        """Nobody wants to know any more."""
        self._over = True
        self._came.set()

    async def next(self) -> Event | None:
        """The next event, waited for; None after `end`, when there are no more."""
        while not self._events and not self._over:
            self._came.clear()
            await self._came.wait()
        return self._events.popleft() if self._events else None


class Feed:
    def __init__(self) -> None:
        self._listeners: set[Listener] = set()

    @property
    def tells_steps(self) -> bool:
        """Whether anybody wants to hear of them."""
        return any(listener.steps for listener in self._listeners)

    def publish(self, event: Event) -> None:
        for listener in tuple(self._listeners):
            listener.hear(event)

    def end(self) -> None:
        for listener in tuple(self._listeners):
            listener.end()

    @contextmanager
    def listen(
        self, wants: Callable[[Event], bool], limit: int | None = None, *, steps: bool = True
    ) -> Iterator[Listener]:
        listener = Listener(wants, limit, steps)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
