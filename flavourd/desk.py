# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where all requests come together, whoever made them: taken on, carried out in their turn, told, and remembered."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from flavourd import logs
from flavourd.answer import Rules, answer
from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.flavour import DEFAULT, Flavours
from flavourd.host import Host
from flavourd.module_index import ModuleIndex
from flavourd.outcome import Kind, Outcome, refused
from flavourd.policy.flavours import read_flavours
from flavourd.policy.settings import Settings, Then, read_settings
from flavourd.request import Origin, Request
from flavourd.step import Step
from flavourd.stuck import Stuck
from flavourd.together import TellOf
from flavourd.turns import Turns
from flavourd.usage.procfs import Procfs
from flavourd.worker import Worker, WorkerDied

T = TypeVar("T")

# Somebody only wants to look: rather no answer than a late one, and not at the cost of those who switch.
_LOOK_SECONDS = 10.0
_LOOKS_AT_ONCE = 4

# The time in which a new worker surely finds the old one's lock and tells whom it waits for.
_SUCCESSOR_SECONDS = 2.0

# Between attempts to put back what was left half done: what keeps it may take its time.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 300.0

# So refused, what stands in the journal as begun is another request of the device.
_NEVER_BEGUN = (Code.STUCK, Code.KIN_STUCK, Code.WITHDRAWN, Code.TOO_MANY)


class Desk:
    """root: of the host. deadline: seconds after which a request is answered even if the kernel has not.

    told, answered: hear every step and every outcome. `counts`: outcomes of each kind so far.
    """

    def __init__(
        self, root: Path, deadline: float, told: Callable[[Request, Step], None], answered: Callable[[Outcome], None]
    ) -> None:
        self._root = root
        self._answered = answered
        self.host = Host.at(root)
        self.turns = Turns(self._begin, self._tell, told, self._inquire, deadline)
        self.counts = dict.fromkeys(Kind, 0)
        self._warned: tuple[str, ...] = ()
        self._taken: dict[DeviceId, int] = {}
        self._pauses: dict[DeviceId, float] = {}
        self._finishing = False
        self._looks, self._glances = asyncio.Semaphore(_LOOKS_AT_ONCE), asyncio.Semaphore(_LOOKS_AT_ONCE)
        self._looked_at: dict[DeviceId, asyncio.Lock] = {}
        self._asleep: set[DeviceId] = set()
        self.flavours, self.settings, self.changers = self._configuration()

    def reload(self) -> None:
        """FlavourError(CONFIG) if the configuration is wrong; what was read before goes on to be used then."""
        self.flavours, self.settings, self.changers = self._configuration()

    def rules(self) -> Rules:
        return Rules(self.flavours, self.index(), self.settings.severities())

    def index(self) -> ModuleIndex:
        """The kernel's module tables, read anew if they have changed."""
        index = self.host.kmod.index(self.flavours.alias_prefixes, self.flavours.universal_modules)
        if index.warnings != self._warned:
            for warning in index.warnings:
                hint = "variants may be missed, universal drivers still work; run depmod, or mend the file"
                logs.tell_trouble(FlavourError(Code.INDEX_UNREADABLE, warning, hint), logs.WARNING)
            self._warned = index.warnings
        return index

    # --- requests

    def take_on(self, requests: Iterable[Request]) -> None:
        """What udev brought, unless it has been taken on before."""
        for request in requests:
            last = self._taken.get(request.device)
            if request.seqnum > (self.host.journal.taken(request.device) if last is None else last):
                self._taken[request.device] = request.seqnum
                self._queue([request])

    def ask(self, requests: Sequence[Request]) -> None:
        """Take on what somebody asks by the control socket, to be carried out together."""
        if self._finishing:
            self._publish(list(map(_stopping, requests)))
        else:
            self._queue(requests)

    def recover(self) -> None:
        """Go on with what a daemon that died had begun."""
        journal = self.host.journal
        met: set[DeviceId] = set()
        for begun in journal.unanswered():
            requests = [each.request for each in begun]
            met.update(request.device for request in requests)
            if all(each.instance == self.host.sysfs.instance(each.request.device) for each in begun):
                self._queue(requests, deadline=self._patience(requests[0]))
            else:
                sentence = "a device of this request went away before it was done"
                self._tell([refused(request, FlavourError(Code.NO_DEVICE, sentence)) for request in requests])
                met.difference_update(request.device for request in requests)
        for record in list(journal.records()):
            if record.instance != self.host.sysfs.instance(record.device):
                journal.drop(record.device)
            elif record.unfinished and record.device not in met:
                self._queue([_put_back(record.device)])

    def _patience(self, request: Request) -> float:
        """Seconds: a worker that was left behind in the kernel is not waited for all over again."""
        deadline = self.turns.deadline
        if not request.begun or not self.host.journal.in_work(str(request.device)):
            return deadline
        return max(_SUCCESSOR_SECONDS, min(deadline, deadline - (time.time() - request.begun)))

    def _queue(self, requests: Sequence[Request], *, first: bool = False, deadline: float | None = None) -> None:
        serial = self.settings.serial_drivers
        keys = frozenset(key for request in requests for key in self.host.kin.keys(request.device, serial))
        self.turns.take_on(requests, keys, first=first, deadline=deadline)

    def forget(self, devices: Iterable[DeviceId]) -> None:
        """They are gone. What is in work with one settles its record itself."""
        for device in devices:
            if device not in self.turns.steps and not self.host.sysfs.instance(device):
                self.host.journal.drop(device)

    async def finish(self) -> None:
        """Take no more turns, and wait for those that are begun."""
        self._finishing = True
        dropped = self.turns.drop_waiting()
        # udev brings its requests again at the next start, and what was recovered is still written down.
        self._publish([_stopping(request) for request in dropped if request.origin is Origin.VARLINK])
        await self.turns.all_answered()

    async def look(self, work: Callable[[], T]) -> T:
        """Do what only reads, and never waits for a device, in a worker. FlavourError, from the work or about it."""
        async with self._glances:
            return await self._looked(work, None)

    async def look_at(self, device: DeviceId, work: Callable[[], T]) -> T:
        """Do what reads one device; it may sleep in the kernel for as long as somebody else holds the device there.

        FlavourError(STUCK) if it does, from then on at once.
        """
        alone = self._looked_at.setdefault(device, asyncio.Lock())  # one that sleeps must not take all slots
        try:
            async with alone, self._looks:
                if device in self.turns.stuck or device in self._asleep:
                    hint = "it heals when the kernel lets go"
                    raise FlavourError(Code.STUCK, f"{device} is stuck in the kernel", hint)
                return await self._looked(work, device)
        finally:
            if not alone.locked():
                self._looked_at.pop(device, None)

    async def _looked(self, work: Callable[[], T], device: DeviceId | None) -> T:
        try:
            worker = Worker(lambda _tell: _caught(work))
        except OSError as error:
            raise FlavourError(Code.HOST, f"no worker could be started: {error}", "ask again") from error
        await asyncio.wait((worker.done,), timeout=_LOOK_SECONDS)
        if not worker.done.done():
            if device:
                self._asleep.add(device)

            @worker.done.add_done_callback
            def wake(done: asyncio.Future[T | FlavourError]) -> None:
                done.exception()  # nobody wants to know it any more
                if device:
                    self._asleep.discard(device)

            sentence = f"the kernel has not let us look at {device or 'the devices'} for {_LOOK_SECONDS:g} s"
            raise FlavourError(Code.STUCK, sentence, f"see cat /proc/{worker.pid}/stack and journalctl -k")
        try:
            found = worker.done.result()
        except WorkerDied as died:
            raise FlavourError(Code.INTERNAL, str(died), "this is a bug in flavourd; please report it") from died
        if isinstance(found, FlavourError):
            raise found
        return found

    # ---

    def _configuration(self) -> tuple[Flavours, Settings, frozenset[int]]:
        settings = read_settings(self._root)
        return read_flavours(self._root), settings, settings.changers()

    def _begin(self, requests: Sequence[Request], keys: frozenset[str]) -> Callable[[TellOf], list[Outcome]]:
        """The work for requests whose turn has come. If this daemon dies before the answer, the next one goes on."""
        self.host.journal.begin(requests, [self.host.sysfs.instance(request.device) for request in requests])
        late = (requests[0].begun or time.time()) + self.turns.deadline
        drop = self.settings.stuck.then is Then.DROP

        def wanted() -> bool:
            return not (drop and time.time() > late)

        return partial(answer, requests, keys, self.host, self.rules(), wanted=wanted)

    async def _inquire(self, request: Request, worker: int, step: Step) -> Stuck:
        since = datetime.fromtimestamp(request.begun or time.time() - self.turns.deadline, UTC)
        found = Stuck(request, step.pid or worker, since.isoformat(timespec="seconds"), step.text)
        usage, procfs = self.host.usage, Procfs(self._root)
        try:
            return await self.look(
                lambda: replace(found, wchan=procfs.wchan(found.pid), holders=usage.holders(request.device))
            )
        except (FlavourError, WorkerDied):  # what we know is told all the same
            return found

    def _tell(self, outcomes: Sequence[Outcome]) -> None:
        """Of requests that were taken on together."""
        self._publish(outcomes)
        requests = [outcome.request for outcome in outcomes]
        never_begun = all(outcome.kind is Kind.REFUSED and outcome.code in _NEVER_BEGUN for outcome in outcomes)
        if never_begun and requests[0].origin is not Origin.RECOVERY:
            for request in requests:
                self.host.journal.take(request)
        elif not any(outcome.kind is Kind.STUCK for outcome in outcomes):
            self.host.journal.end(requests)
        self.forget(request.device for request in requests)
        for outcome in outcomes:
            self._look_after(outcome)

    def _look_after(self, outcome: Outcome) -> None:
        """What is left half done is put back: at once after a worker's death, and if that fails too, again and again.

        A device that is at work, or stuck, comes here again when it is done.
        """
        device = outcome.request.device
        if outcome.kind in (Kind.SWITCHED, Kind.ALREADY) or device in self.turns.stuck or not self._half_done(device):
            self._pauses.pop(device, None)
        elif outcome.kind is Kind.LOST and outcome.request.origin is not Origin.PUT_BACK:
            self._queue([_put_back(device)], first=True)
        else:
            pause = self._pauses.get(device, _FIRST_PAUSE)
            self._pauses[device] = min(2 * pause, _LONGEST_PAUSE)
            asyncio.get_running_loop().call_later(pause, self._put_back, device)

    def _put_back(self, device: DeviceId) -> None:
        if not self._finishing and device not in self.turns.steps and self._half_done(device):
            self._queue([_put_back(device)])

    def _half_done(self, device: DeviceId) -> bool:
        return any(record.device == device for record in self.host.journal.unfinished())

    def _publish(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self.counts[outcome.kind] += 1
            logs.tell(outcome)
            self._answered(outcome)


def _caught(work: Callable[[], T]) -> T | FlavourError:
    """In the worker: a refusal is an answer, only what nobody foresaw is not."""
    try:
        return work()
    except FlavourError as error:
        return error


def _stopping(request: Request) -> Outcome:
    error = FlavourError(Code.STOPPING, f"{request.device}: flavourd is being stopped", "ask again when it is back")
    return refused(request, error)


def _put_back(device: DeviceId) -> Request:
    return Request(device, DEFAULT, Origin.PUT_BACK)
