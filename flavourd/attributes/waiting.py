# SPDX-License-Identifier: LGPL-2.1-or-later
"""Those who wait for an answer of flavourd's: they get it, or another one as soon as they, or we, have given up."""

import asyncio
import errno
import os
import time
from collections import Counter
from collections.abc import Coroutine
from typing import Any, TypeVar

from flavourd.attributes.writers import Writer

T = TypeVar("T")

_LOOK_SECONDS = 0.1
_SHARE = 2  # looking takes no more than a third of a processor, however many wait


class Waiting:
    """most: so many at a time, half of them for a user who is not root; more are told to come again (EAGAIN)."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._given_up: dict[asyncio.Future[None], Writer] = {}
        self._stopping: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inside: Counter[int] = Counter()  # by their users
        self._looking: asyncio.Task[None] | None = None

    async def answer(self, work: Coroutine[Any, Any, T], who: Writer | None = None) -> T:
        """What the work returns or raises; OSError if it is not waited for: EINTR if `who` has given up, EAGAIN if
        there are too many, or we stop. Work that is not waited for is cancelled.
        """
        uid = who.uid if who else 0
        if (
            self._inside.total() >= self._most
            or (uid and self._inside[uid] >= self._most // 2)
            or self._stopping.done()
        ):
            work.close()
            raise _error(errno.EAGAIN)
        given_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(work)
        self._inside[uid] += 1
        if who and who.is_there():
            self._given_up[given_up] = who
            self._look()
        try:
            await asyncio.wait((task, given_up, self._stopping), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise _error(errno.EINTR if given_up.done() else errno.EAGAIN)
            return task.result()
        finally:
            self._inside[uid] -= 1
            self._given_up.pop(given_up, None)
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))

    def stop(self) -> None:
        """From now on nobody waits."""
        if not self._stopping.done():
            self._stopping.set_result(None)

    def _look(self) -> None:
        if not self._looking or self._looking.done():
            self._looking = asyncio.create_task(self._look_after_them())

    async def _look_after_them(self) -> None:
        while self._given_up:
            spent = 0.0
            for given_up, who in tuple(self._given_up.items()):
                began = time.monotonic()
                if given_up in self._given_up and not given_up.done() and who.has_given_up():
                    given_up.set_result(None)
                spent += time.monotonic() - began
                await asyncio.sleep(0)
            await asyncio.sleep(max(_LOOK_SECONDS, _SHARE * spent))


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
