# SPDX-License-Identifier: LGPL-2.1-or-later
"""Requests that have been heard and are not taken on yet.

The kernel keeps some hundred events for us and drops what comes on top. To read one is cheap and to take its request on
is not, so the event loop comes by to read again between a few of them.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from flavourd.request import Request

_AT_ONCE = 8
# What comes on top is for the kernel to drop and to tell: memory must not grow without end.
_MOST = 8192


class Inbox:
    """take_on: gets the requests, in their order."""

    def __init__(self, take_on: Callable[[Iterable[Request]], None]) -> None:
        self._take_on = take_on
        self._waiting: deque[Request] = deque()
        self._later: asyncio.Handle | None = None

    def put(self, requests: Iterable[Request]) -> None:
        """The first are taken on at once; all, if there are too many."""
        self._waiting.extend(requests)
        if len(self._waiting) > _MOST:
            self.empty()
        elif not self._later:
            self._take_some()

    def empty(self) -> None:
        """Take on all that wait."""
        if self._later:
            self._later.cancel()
            self._later = None
        self._take_on(self._first(len(self._waiting)))

    def _take_some(self) -> None:
        self._later = None
        if len(self._waiting) > _AT_ONCE:
            self._later = asyncio.get_running_loop().call_soon(self._take_some)
        self._take_on(self._first(_AT_ONCE))

    def _first(self, count: int) -> Iterator[Request]:
        while self._waiting and count:
            count -= 1
            yield self._waiting.popleft()
