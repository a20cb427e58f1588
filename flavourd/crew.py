# SPDX-License-Identifier: LGPL-2.1-or-later
"""Workers that stay a while for the next job of the same kind: to fork one, and to have each page copied that it or the
daemon touches then, costs a good part of a switch.
"""

import asyncio
import gc
import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from flavourd.worker import Worker, WorkerDied, messages, packed

J = TypeVar("J")
T = TypeVar("T")
Tell = Callable[[Any], None]

# Whoever has switched one device often switches another one soon, or the same back.
_IDLE_SECONDS = 30.0
# More would only cost memory: as many are at work at once (see turns.py). What a job may leave behind ends some time.
_MOST_IDLE, _MOST_JOBS = 16, 256
_LEAVING_SECONDS = 1.0
_READ = 65536
_STEP, _RESULT = range(2)


class Errand(Generic[T]):
    """One job and the process that is at it. `done` is its result, or WorkerDied, see Worker."""

    def __init__(self, told: Tell) -> None:
        self.told, self.pid = told, 0
        self.done: asyncio.Future[T] = asyncio.get_running_loop().create_future()


class Crew(Generic[J, T]):
    """Who is still at a job gets no other one, and neither does who was forked for another `work`, or has failed."""

    def __init__(self) -> None:
        self._idle: list[_Hand[J, T]] = []

    def send(self, work: Callable[[J, Tell], T], job: J, told: Tell) -> Errand[T]:
        """Have work(job, tell) done in a worker; what it tells goes to `told`. OSError if none could be started."""
        errand: Errand[T] = Errand(told)
        order = packed(job) if self._idle else b""
        while self._idle:
            hand = self._idle[-1]
            hand.leave_idle()
            if hand.work == work and hand.take(order, errand):
                return errand
            hand.let_go()
        _Hand(work, job, errand, self._idle)
        return errand

    async def finish(self) -> None:
        """Let all go who wait for a job, and wait until they are gone, or for a second: systemd tells of processes that
        a service leaves behind.
        """
        if idle := [*self._idle]:
            await asyncio.wait([hand.retire() for hand in idle], timeout=_LEAVING_SECONDS)


class _Hand(Generic[J, T]):
    """One worker. idle: those that wait for a job."""

    def __init__(self, work: Callable[[J, Tell], T], job: J, errand: Errand[T], idle: "list[_Hand[J, T]]") -> None:
        self.work, self._errand, self._idle = work, errand, idle
        self._retirement: asyncio.TimerHandle | None = None
        self._jobs = 1
        orders, self._orders = os.pipe()
        os.set_blocking(self._orders, False)
        try:
            self._worker: Worker[None] = Worker(lambda tell: _serve(work, job, orders, tell), self._hear, keep=orders)
        except OSError:
            self.let_go()
            raise
        finally:
            os.close(orders)
        errand.pid = self._worker.pid
        self._worker.done.add_done_callback(self._ended)

    def take(self, order: bytes, errand: Errand[T]) -> bool:
        """False if it cannot: it was killed, or the pipe is too small. Half an order is none."""
        try:
            whole = os.write(self._orders, order) == len(order)
        except (BrokenPipeError, BlockingIOError):
            return False
        if whole:
            self._errand, errand.pid = errand, self._worker.pid
            self._jobs += 1
        return whole

    def let_go(self) -> None:
        """It ends when it sees that nobody can give it a job any more."""
        if self._orders >= 0:
            os.close(self._orders)
            self._orders = -1

    def leave_idle(self) -> None:
        if self._retirement:
            self._retirement.cancel()
            self._retirement = None
            self._idle.remove(self)

    def _hear(self, message: tuple[int, Any]) -> None:
        kind, what = message
        if kind == _STEP:
            self._errand.told(what)
            return
        self._errand.done.set_result(what)
        if self._jobs >= _MOST_JOBS or len(self._idle) >= _MOST_IDLE:
            self.let_go()
            return
        self._idle.append(self)
        self._retirement = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self.retire)

    def retire(self) -> asyncio.Future[None]:
        """It gets no other job. Done when it is gone."""
        self.leave_idle()
        self.let_go()
        return self._worker.done

    def _ended(self, done: asyncio.Future[None]) -> None:
        self.retire()
        died = done.exception()
        if not self._errand.done.done():
            self._errand.done.set_exception(died or WorkerDied("the worker ended and gave no answer"))


def _serve(work: Callable[[J, Tell], T], job: J, orders: int, tell: Tell) -> None:
    """In the worker: one job after the other, until nobody can give it another one."""
    # What is the daemon's is never collected (see worker.py); what jobs leave behind is.
    gc.freeze()
    gc.enable()
    came = bytearray()
    while True:
        tell((_RESULT, work(job, lambda what: tell((_STEP, what)))))
        while not (next_one := list(messages(came))):
            if not (part := os.read(orders, _READ)):
                return
            came += part
        (job,) = next_one
