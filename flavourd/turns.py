# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whose turn it is: what conflicts (see kin.py) one after the other, all else side by side.

Every request that is taken on gets an answer within the deadline of its turn, whatever the kernel does. A turn whose
worker is past it is stuck: what conflicts with it is refused until the kernel lets go, and what came of it is then
told too.
"""

import asyncio
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Protocol

from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.keys import Keys
from flavourd.lines import Lines
from flavourd.outcome import Kind, Outcome, refused
from flavourd.request import Origin, Request
from flavourd.step import Step, What
from flavourd.stuck import Stuck
from flavourd.worker import WorkerDied

# Enough to keep every lock of the kernel's driver core busy; more would only wait there and cost memory.
_WORKERS_AT_ONCE = 16
# VFs of a PF come in hundreds: whoever else asks finds a slot free.
_SHARING_AT_ONCE = 12
_SLOT_SECONDS = 5.0
# Who asks faster than the kernel switches must not cost memory without end.
_MOST_WAITING_FOR_A_DEVICE = 256
_WAITING = Step(What.WAITING, "waiting for its turn")


class AtWork(Protocol):
    """A process that carries requests out; see Worker."""

    pid: int
    done: asyncio.Future[list[Outcome]]


# What is told on the way: of which request of the turn, and the step.
Start = Callable[[Callable[[tuple[int, Step]], None]], AtWork]


class _Turn:
    """Requests that are carried out together, and the keys that they need meanwhile."""

    def __init__(self, requests: Sequence[Request], keys: Keys, deadline: float) -> None:
        self.requests, self.keys, self.deadline = tuple(requests), keys, deadline
        self.devices = frozenset(request.device for request in requests)
        self.step: tuple[Request, Step] = (self.requests[0], _WAITING)
        self.refused: FlavourError | None = None
        self.stuck: Stuck | None = None


class Turns:
    """begin: called when the turn of requests has come, gives what starts a process for them, or why they are not to be
    begun. told: gets every step on the way to the outcomes. answered: gets the outcomes of requests that were taken on
    together, for whoever waits for them. done: gets them again, with whether they were begun, when the answer has left;
    the turn of what conflicts with them comes after that. inquire: finds out about a request whose worker (its pid, and
    the step it is at) is stuck.

    `deadline`: seconds. `open` counts the requests without an answer, `waiting` those whose turn has not come; `stuck`
    holds the devices whose worker is past the deadline; `steps` has the last step of each device that is not done with.
    """

    def __init__(
        self,
        begin: Callable[[Sequence[Request], Keys], Start | FlavourError],
        told: Callable[[Request, Step], None],
        answered: Callable[[Sequence[Outcome]], None],
        done: Callable[[Sequence[Outcome], bool], None],
        inquire: Callable[[Request, int, Step], Awaitable[Stuck]],
        deadline: float,
    ) -> None:
        self._begin, self._told, self._answered, self._done_with, self._inquire = begin, told, answered, done, inquire
        self.deadline = deadline
        self._lines: Lines[_Turn] = Lines()
        self._waiting: dict[_Turn, None] = {}  # for a key or for a slot
        self._sleeping: list[_Turn] = []  # in the kernel, past the deadline
        self._servers: set[asyncio.Task[None]] = set()
        self._slots, self._sharing = asyncio.Semaphore(_WORKERS_AT_ONCE), asyncio.Semaphore(_SHARING_AT_ONCE)
        self._all_answered = asyncio.Event()
        self._all_answered.set()
        self._not_done: Counter[DeviceId] = Counter()
        self.steps: dict[DeviceId, Step] = {}
        self.stuck: dict[DeviceId, Stuck] = {}
        self.open = 0

    @property
    def waiting(self) -> int:
        return sum(len(turn.requests) for turn in self._waiting)

    def take_on(
        self,
        requests: Sequence[Request],
        keys: Keys,
        *,
        first: bool = False,
        deadline: float | None = None,
    ) -> None:
        """Carry requests out together. keys: of all their devices. first: before all others that wait for a key.
        deadline: if another one than usual.
        """
        self.open += len(requests)
        self._all_answered.clear()
        turn = _Turn(requests, keys, self.deadline if deadline is None else deadline)
        if ahead := next((each for each in self._sleeping if each.keys.between(keys)), None):
            self._answer(_refused_for(turn, ahead), begun=False)
            return
        if not first and any(self._not_done[device] >= _MOST_WAITING_FOR_A_DEVICE for device in turn.devices):
            sentence = f"{_MOST_WAITING_FOR_A_DEVICE} requests wait for it already"
            self._answer(_refused(requests, Code.TOO_MANY, sentence, "wait for their answers"), begun=False)
            return
        self._not_done.update(turn.devices)
        self._waiting[turn] = None
        for request in requests:
            self.steps.setdefault(request.device, _WAITING)
            self._told(request, _WAITING)
        self._serve_all(self._lines.join(turn, keys, first=first))

    def drop_waiting(self, wanted: Callable[[Request], bool] = lambda _request: True) -> list[Request]:
        """Forget those of the waiting requests for which `wanted` is true, and say which they were. They get no
        answer.
        """
        dropped = [request for turn in self._drop(self._waiting_for(wanted)) for request in turn.requests]
        self.open -= len(dropped)
        self._look()
        return dropped

    def withdraw(self, wanted: Callable[[Request], bool]) -> int:
        """Refuse those of the waiting requests for which `wanted` is true: they are not wanted any more. How many."""
        turns = self._drop(self._waiting_for(wanted))
        for turn in turns:
            sentence, hint = "it was withdrawn before its turn came", "ask again if you still want it"
            self._answer(_refused(turn.requests, Code.WITHDRAWN, sentence, hint), begun=False)
        return sum(len(turn.requests) for turn in turns)

    async def all_answered(self) -> None:
        """Wait until no request is open. One that is stuck has its answer."""
        await self._all_answered.wait()

    # --- turns that wait

    def _waiting_for(self, wanted: Callable[[Request], bool]) -> list[_Turn]:
        return [turn for turn in self._waiting if any(map(wanted, turn.requests))]

    def _drop(self, turns: list[_Turn]) -> list[_Turn]:
        """They will not begin."""
        for turn in turns:
            del self._waiting[turn]
            self._done(turn)
        self._serve_all(self._lines.leave(*turns))
        return turns

    def _done(self, turn: _Turn) -> None:
        for device in turn.devices:
            self._not_done[device] -= 1
            if not self._not_done[device]:
                del self._not_done[device]
                self.steps.pop(device, None)

    # --- one turn

    def _serve_all(self, turns: Iterable[_Turn]) -> None:
        for turn in turns:
            server = asyncio.create_task(self._serve(turn))
            self._servers.add(server)  # the loop itself keeps only a weak reference
            server.add_done_callback(self._servers.discard)

    async def _serve(self, turn: _Turn) -> None:
        async with self._sharing if turn.keys.shared else nullcontext(), self._slots:
            if turn not in self._waiting:  # it was dropped
                return
            del self._waiting[turn]
            if worker := self._start(turn):
                await asyncio.wait((worker.done,), timeout=min(_SLOT_SECONDS, turn.deadline))
        if worker:
            if not worker.done.done():  # it sleeps in the kernel and needs no slot for that
                await asyncio.wait((worker.done,), timeout=max(0, turn.deadline - _SLOT_SECONDS))
            if not worker.done.done():
                await self._wait_for_kernel(turn, worker)
        outcomes: list[Outcome] = []
        if worker:
            outcomes = _outcomes(turn, worker.done)
            self._tell(outcomes)
            await asyncio.sleep(0)  # whoever waits for them goes first
        self._done(turn)
        self.steps.update(dict.fromkeys(turn.devices & self._not_done.keys(), _WAITING))
        if turn.refused:
            self._answer([refused(request, turn.refused) for request in turn.requests], begun=False)
        if worker:
            self._end(outcomes)  # may take on a request that goes before all others
        self._serve_all(self._lines.leave(turn))

    def _start(self, turn: _Turn) -> AtWork | None:
        def told(numbered: tuple[int, Step]) -> None:
            number, step = numbered
            request = turn.requests[number]
            turn.step = request, step
            self.steps[request.device] = step
            self._told(request, step)

        try:
            start = self._begin(turn.requests, turn.keys)
            if isinstance(start, FlavourError):
                turn.refused = start
                return None
            for number in reversed(range(len(turn.requests))):
                told((number, Step(What.BEGUN, "reading the device")))
            return start(told)
        except OSError as error:  # no memory, no processes, a full /run
            hint = "free what it names, then ask again"
            self._answer(_refused(turn.requests, Code.HOST, f"no worker could be started: {error}", hint))
        except Exception:  # noqa: BLE001 - the request is answered, whatever it was
            self._answer(_refused(turn.requests, Code.INTERNAL, traceback.format_exc(), "this is a bug in flavourd"))
        return None

    async def _wait_for_kernel(self, turn: _Turn, worker: AtWork) -> None:
        request, step = turn.step
        stuck = await self._inquire(request, worker.pid, step)
        if worker.done.done():  # it woke while we asked
            return
        turn.stuck = stuck
        self._sleeping.append(turn)
        self.stuck.update(dict.fromkeys(turn.devices, stuck))
        self._answer([self._told_stuck(each, stuck) for each in turn.requests])
        for each in self._drop(self._lines.behind(turn)):
            self._answer(_refused_for(each, turn), begun=False)
        await asyncio.wait((worker.done,))
        self._sleeping.remove(turn)
        for device in turn.devices:
            del self.stuck[device]
        self.open += len(turn.requests)  # the end of it is one more answer
        self._all_answered.clear()

    def _told_stuck(self, request: Request, stuck: Stuck) -> Outcome:
        sentence = f"the kernel has not answered within {self.deadline:g} s: {stuck}"
        hint = f"see cat /proc/{stuck.pid}/stack and journalctl -k; whoever holds a device open must let it go"
        return Outcome(request, Kind.STUCK, request.wanted, code=Code.STUCK, sentence=sentence, hint=hint)

    def _answer(self, outcomes: Sequence[Outcome], *, begun: bool = True) -> None:
        self._tell(outcomes)
        self._end(outcomes, begun=begun)

    def _tell(self, outcomes: Sequence[Outcome]) -> None:
        try:
            self._answered(outcomes)
        except BaseException:  # nobody is to wait for the end of it
            self.open -= len(outcomes)
            self._look()
            raise

    def _end(self, outcomes: Sequence[Outcome], *, begun: bool = True) -> None:
        self.open -= len(outcomes)
        try:
            self._done_with(outcomes, begun)  # may take on another one, and only then it shows whether all are answered
        finally:
            self._look()

    def _look(self) -> None:
        if not self.open:
            self._all_answered.set()


def _refused(requests: Iterable[Request], code: Code, sentence: str, hint: str) -> list[Outcome]:
    return [refused(request, FlavourError(code, sentence, hint)) for request in requests]


def _refused_for(turn: _Turn, ahead: _Turn) -> list[Outcome]:
    """Refused because it would fall asleep behind one that is stuck."""
    hint = "it heals by itself when the kernel lets go; ask again then"
    if shared := sorted(map(str, turn.devices & ahead.devices)):
        sentence = f"an earlier switch of {', '.join(shared)} is still stuck in the kernel: {ahead.stuck}"
        return _refused(turn.requests, Code.STUCK, sentence, hint)
    devices, keys = ", ".join(sorted(map(str, ahead.devices))), " and ".join(sorted(turn.keys.between(ahead.keys)))
    sentence = f"it shares {keys} with {devices}, which is stuck in the kernel: {ahead.stuck}"
    return _refused(turn.requests, Code.KIN_STUCK, sentence, hint)


def _outcomes(turn: _Turn, done: asyncio.Future[list[Outcome]]) -> list[Outcome]:
    try:
        return done.result()
    except WorkerDied as died:
        return [_lost(request, died) for request in turn.requests]


def _lost(request: Request, died: WorkerDied) -> Outcome:
    put_back = request.origin is Origin.PUT_BACK
    next_step = "ask for `default`" if put_back else "if it has left anything half done, that is put back now"
    hint = f"{next_step}; this is a bug, of flavourd or of the driver that it asked"
    return Outcome(request, Kind.LOST, request.wanted, code=Code.INTERNAL, sentence=str(died), hint=hint)
