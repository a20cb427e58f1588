# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where all requests come together, whoever made them: taken on, carried out in their turn, told, and remembered."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from flavourd import logs
from flavourd.aftercare import Aftercare
from flavourd.answer import Answerer, Job, Rules
from flavourd.crew import Crew
from flavourd.device import DeviceId
from flavourd.errnos import errno_of
from flavourd.errors import Code, FlavourError
from flavourd.flavour import DEFAULT, Flavours
from flavourd.host import Host
from flavourd.journal import since_boot
from flavourd.keys import Keys
from flavourd.module_index import ModuleIndex
from flavourd.outcome import Kind, Outcome, refused
from flavourd.policy.flavours import read_flavours
from flavourd.policy.settings import Settings, Then, read_settings
from flavourd.request import OWN, Origin, Request
from flavourd.sight import Sight
from flavourd.step import Step
from flavourd.stuck import Stuck
from flavourd.turns import Start, Turns
from flavourd.usage.procfs import Procfs
from flavourd.waiters import Waiters

# The time in which a new worker surely finds the old one's lock and tells whom it waits for.
_SUCCESSOR_SECONDS = 2.0
# An answer is due: what cannot be found out until then is left out.
_INQUIRY_SECONDS = 5.0
_RETRY_SECONDS = 1.0
_GONE = FlavourError(Code.WITHDRAWN, "who asked has gone", "ask again if you still want it")


class Desk:
    """root: of the host. deadline: seconds after which a request is answered even if the kernel has not.

    told, answered: hear every step and every outcome. `counts`: outcomes of each kind so far. `ended`: hears outcomes
    too, also of attempts whose failing is no news. `kept`: see Rules.
    """

    def __init__(
        self, root: Path, deadline: float, told: Callable[[Request, Step], None], answered: Callable[[Outcome], None]
    ) -> None:
        self._root = root
        self._answered = answered
        self.host = Host.at(root)
        self.turns = Turns(self._begin, told, self._answer, self._write_down, self._inquire, deadline)
        self._crew: Crew[Job, list[Outcome]] = Crew()
        self.counts = dict.fromkeys(Kind, 0)
        self._warned: tuple[str, ...] = ()
        self._taken: dict[DeviceId, int] = {}
        self._finishing = False
        self.ended: Callable[[Outcome], None] = _nobody_hears
        self.kept: Callable[[DeviceId], bool] | None = None
        self.sight = Sight(self.turns.stuck)
        self._aftercare = Aftercare(self._half_done, self._put_back)
        self._waiters = Waiters(root, lambda trouble: logs.tell_trouble(trouble, logs.WARNING))
        self._tickets: set[int] = set()  # of those who have no answer yet
        self._retry: asyncio.TimerHandle | None = None
        self.flavours, self.settings, self.changers = self._configuration()

    def reload(self) -> None:
        """FlavourError(CONFIG) if the configuration is wrong; what was read before goes on to be used then."""
        flavours, settings, changers = self._configuration()
        settings.attributes.access()  # for another process, but it is here that somebody hears whether it is right
        self.flavours, self.settings, self.changers = flavours, settings, changers
        self.listen()

    def listen(self, *, missed: bool = False) -> None:
        """Answer the writers of `driver_flavour`, if the kernel module is there, and tell it of our flavours. missed:
        some of their requests may have been, and nobody knows whose: all are sent away, to ask again, but those whose
        turn has come.
        """
        self._waiters.listen()
        self._waiters.tell(self.flavours)
        if missed:
            self._waiters.dismiss()
        if self._waiters.kept_out and not self._retry and not self._finishing:
            # As by a worker of a daemon that died, which has the node for a moment after its fork.
            self._retry = asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._listen_again)

    def _listen_again(self) -> None:
        self._retry = None
        self.listen()

    def rules(self) -> Rules:
        return Rules(self.flavours, self.index(), self.settings.severities(), self.kept)

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

    def take_on(self, requests: Iterable[Request], *, from_before: bool = False) -> None:
        """What udev brought, unless it has been taken on before. from_before: that was found while nobody listened, so
        that whoever waited for one of them has been sent away.
        """
        for request in requests:
            if self._finishing and request.ticket is None:  # udev brings it again at the next start
                continue
            last = self._taken.get(request.device)
            if request.seqnum > (self.host.journal.taken(request.device) if last is None else last):
                self._taken[request.device] = request.seqnum
                self._take(request, from_before)
            elif self._waits_unheard(request):
                self._take(replace(request, seqnum=0), from_before)  # what came before it stays taken

    def _take(self, request: Request, from_before: bool) -> None:
        if request.ticket is None:
            self._queue([request])
        elif from_before:
            self._refuse(refused(request, _GONE))
        elif self._finishing:
            self._refuse(_stopping(request))
        else:
            self._tickets.add(request.ticket)
            self._queue([request])

    def _waits_unheard(self, request: Request) -> bool:
        """Whether somebody waits for a request that does not seem to be new. Two events of one device can come in the
        wrong order: the kernel numbers them before it sends them, each on its own (since Linux 6.11,
        lib/kobject_uevent.c:kobject_uevent_env()).
        """
        ticket = request.ticket
        if ticket is None or ticket in self._tickets or not self._waiters.heard:
            return False
        return self._waiters.begin(ticket)

    def ask(self, requests: Sequence[Request]) -> None:
        """Take on what somebody asks by the control socket, to be carried out together."""
        if self._finishing:
            self._publish(list(map(_stopping, requests)))
        else:
            self._queue(requests)

    def recover(self) -> None:
        """Go on with what a daemon that died had begun for somebody. What it has left half done by itself is put back:
        the policy may be another one by now.
        """
        journal = self.host.journal
        begun: set[DeviceId] = set()
        for requests in list(journal.unanswered()):
            if requests[0].origin in OWN:
                journal.end(requests)
                continue
            begun.update(request.device for request in requests)
            self._queue(requests, deadline=self._patience(requests[0]))
        self.forget_gone()
        for record in list(journal.unfinished()):
            if record.device not in begun:
                self._put_back(record.device)

    def _patience(self, request: Request) -> float:
        """Seconds: a worker that was left behind in the kernel is not waited for all over again."""
        deadline = self.turns.deadline
        if not request.begun or not self.host.journal.in_work(str(request.device)):
            return deadline
        return max(_SUCCESSOR_SECONDS, min(deadline, deadline - (since_boot() - request.begun)))

    def _queue(self, requests: Sequence[Request], *, first: bool = False, deadline: float | None = None) -> None:
        meant = [self._meant(request) for request in requests]
        keys = Keys().union(*(self._keys(request.device) for request in meant))
        self.turns.take_on(meant, keys, first=first, deadline=deadline)

    def _meant(self, request: Request) -> Request:
        """The device that stands there now is the one that is meant."""
        return request if request.instance else replace(request, instance=self.host.sysfs.instance(request.device))

    def _keys(self, device: DeviceId) -> Keys:
        serial = self.settings.serial_drivers
        keys = self.host.kin.keys(device, serial)
        with suppress(FlavourError):  # it cannot be read: the device counts as never touched
            record = self.host.journal.record(device, set_aside=False)
            if record and record.original.driver in serial:  # on the way back
                keys = keys.union(Keys(alone=frozenset({f"driver {record.original.driver}"})))
        return keys

    def forget(self, devices: Iterable[DeviceId]) -> None:
        """They are gone, unless others stand there. What is in work with one settles its record itself."""
        for device in devices:
            if device not in self.turns.steps and not self.host.sysfs.instance(device):
                self.host.journal.drop(device)

    def forget_gone(self) -> None:
        """Whatever is gone of all that is remembered."""
        for record in list(self.host.journal.records()):
            if record.instance != self.host.sysfs.instance(record.device) and record.device not in self.turns.steps:
                self.host.journal.drop(record.device)

    async def finish(self) -> None:
        """Take no more turns, and wait for those that are begun."""
        self._finishing = True
        if self._retry:
            self._retry.cancel()
        dropped = self.turns.drop_waiting()
        # udev brings its requests again at the next start, but for those that a writer's has displaced there; and what
        # was recovered is still written down. But whoever waits for his answer has it now.
        waiting = [each for each in dropped if each.asker and each.origin is not Origin.RECOVERY]
        writers = sorted((each for each in dropped if each.ticket is not None), key=lambda each: each.seqnum)
        last = {each.device: each.seqnum for each in writers}
        waiting += [each for each in dropped if each.ticket is None and 0 < each.seqnum < last.get(each.device, 0)]
        waiting += writers
        self._publish(list(map(_stopping, waiting)))
        for request in waiting:
            with suppress(OSError):  # at worst the next one tells again that nobody waits
                self.host.journal.take(request)
        await self.turns.all_answered()
        await self._crew.finish()
        self._waiters.close()

    # ---

    def _configuration(self) -> tuple[Flavours, Settings, frozenset[int]]:
        settings = read_settings(self._root)
        return read_flavours(self._root), settings, settings.changers()

    def _begin(self, requests: Sequence[Request], keys: Keys) -> Start | FlavourError:
        """What carries out requests whose turn has come, if somebody still waits for it. If this daemon dies before the
        answer, the next one goes on.
        """
        if any(each.ticket is not None and not self._waiters.begin(each.ticket) for each in requests):
            return _GONE
        self.host.journal.begin(requests)
        late = (requests[0].begun or since_boot()) + self.turns.deadline
        drop = self.settings.stuck.then is Then.DROP
        job = Job(tuple(requests), keys, late if drop else None)
        return partial(self._crew.send, Answerer(self.host, self.rules()), job)

    async def _inquire(self, request: Request, worker: int, step: Step) -> Stuck:
        at_work = (each for together in self.host.journal.unanswered() for each in together)
        begun = next((each.begun for each in at_work if each.device == request.device), None)
        seconds = self.turns.deadline if begun is None else since_boot() - begun
        since = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds")
        pid, usage = step.pid or worker, self.host.usage
        found = Stuck(request, pid, since, step.text, Procfs(self._root).wchan(pid))
        try:
            holders = await self.sight.at_once(lambda: usage.holders(request.device), seconds=_INQUIRY_SECONDS)
        except FlavourError:  # what we know is told all the same
            return found
        return replace(found, holders=holders)

    def _refuse(self, outcome: Outcome) -> None:
        """Of a request that is not taken on."""
        self._answer([outcome])
        self._write_down([outcome], False)

    def _answer(self, outcomes: Sequence[Outcome]) -> None:
        self._publish([outcome for outcome in outcomes if not self._aftercare.repeats(outcome)])

    def _write_down(self, outcomes: Sequence[Outcome], begun: bool) -> None:
        """That requests which were taken on together are done with. begun: they had their turn."""
        requests = [outcome.request for outcome in outcomes]
        for outcome in outcomes:  # first: as long as they are not ended, a daemon that is killed does all this again
            self.ended(outcome)
        try:
            if not begun and requests[0].origin is not Origin.RECOVERY:
                for request in requests:
                    self.host.journal.take(request)
            elif not any(outcome.kind is Kind.STUCK for outcome in outcomes):
                self.host.journal.end(requests)
            self.forget(request.device for request in requests)
            for outcome in outcomes:
                if outcome.kind is not Kind.STUCK:
                    self._aftercare.after(outcome)
        except OSError as error:  # at worst something is done or told again after a restart
            sentence = f"what became of {requests[0].device} could not be written down: {error}"
            logs.tell_trouble(FlavourError(Code.HOST, sentence, "make room in /run"), logs.WARNING)

    def _half_done(self, device: DeviceId) -> bool:
        """And it is ours to put back: who is being stopped leaves that to the next start."""
        return not self._finishing and any(record.device == device for record in self.host.journal.unfinished())

    def _put_back(self, device: DeviceId, first: bool = False) -> None:
        """first: before whoever waits for the device; else only if nobody does, for he comes by in the end, too."""
        if first or device not in self.turns.steps:
            self._queue([Request(device, DEFAULT, Origin.PUT_BACK)], first=first)

    def _publish(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self.counts[outcome.kind] += 1
            logs.tell(outcome)
            self._answered(outcome)
            if outcome.request.ticket is not None:
                self._tickets.discard(outcome.request.ticket)
                self._waiters.answer(outcome.request.ticket, errno_of(outcome.kind, outcome.code))


def _stopping(request: Request) -> Outcome:
    error = FlavourError(Code.STOPPING, f"{request.device}: flavourd is being stopped", "ask again when it is back")
    return refused(request, error)


def _nobody_hears(_outcome: Outcome) -> None:
    """Until a policy is kept."""
