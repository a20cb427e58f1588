# SPDX-License-Identifier: LGPL-2.1-or-later
"""What happens, for whoever listens."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flavourd.ipc.wire import Outcome, Step

Event = Step | Outcome

# A listener who does not read must not cost memory without end.
_KEPT_FOR_A_LISTENER = 1000


class Listener:
    """Events that came since it began to listen and that it wants.

    dear: never left out, however slow the listener is; there must be an end to them. `lost`: how many others were left
    out so far.
    """

    def __init__(self, wants: Callable[[Event], bool], dear: type[Event] | None) -> None:
        self._wants, self._dear = wants, dear
        self._events: deque[Event] = deque()
        self._came = asyncio.Event()
        self._over = False
        self.lost = 0

    def hear(self, event: Event) -> None:
        if not self._wants(event):
            return
        if len(self._events) < _KEPT_FOR_A_LISTENER or (self._dear and isinstance(event, self._dear)):
            self._events.append(event)
            self._came.set()
        else:
            self.lost += 1

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

    def publish(self, event: Event) -> None:
        for listener in tuple(self._listeners):
            listener.hear(event)

    def end(self) -> None:
        for listener in tuple(self._listeners):
            listener.end()

    @contextmanager
    def listen(self, wants: Callable[[Event], bool], dear: type[Event] | None = None) -> Iterator[Listener]:
        listener = Listener(wants, dear)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
