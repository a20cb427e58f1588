# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where all requests come together, whoever made them: taken on, carried out in their turn, told, and remembered."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from flavourd import logs
from flavourd.aftercare import Aftercare
from flavourd.answer import Rules, answer
from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.flavour import DEFAULT, Flavours
from flavourd.host import Host
from flavourd.journal import since_boot
from flavourd.module_index import ModuleIndex
from flavourd.outcome import Kind, Outcome, refused
from flavourd.policy.flavours import read_flavours
from flavourd.policy.settings import Settings, Then, read_settings
from flavourd.request import OWN, Origin, Request
from flavourd.sight import Sight
from flavourd.step import Step
from flavourd.stuck import Stuck
from flavourd.together import TellOf
from flavourd.turns import Turns
from flavourd.usage.procfs import Procfs

# The time in which a new worker surely finds the old one's lock and tells whom it waits for.
_SUCCESSOR_SECONDS = 2.0
# An answer is due: what cannot be found out until then is left out.
_INQUIRY_SECONDS = 5.0


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
        self.turns = Turns(self._begin, self._tell, told, self._inquire, deadline)
        self.counts = dict.fromkeys(Kind, 0)
        self._warned: tuple[str, ...] = ()
        self._taken: dict[DeviceId, int] = {}
        self._finishing = False
        self.ended: Callable[[Outcome], None] = _nobody_hears
        self.kept: Callable[[DeviceId], bool] | None = None
        self.sight = Sight(self.turns.stuck)
        self._aftercare = Aftercare(self._half_done, self._put_back)
        self.flavours, self.settings, self.changers = self._configuration()

    def reload(self) -> None:
        """FlavourError(CONFIG) if the configuration is wrong; what was read before goes on to be used then."""
        self.flavours, self.settings, self.changers = self._configuration()

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
        keys = frozenset(key for request in meant for key in self._keys(request.device))
        self.turns.take_on(meant, keys, first=first, deadline=deadline)

    def _meant(self, request: Request) -> Request:
        """The device that stands there now is the one that is meant."""
        return request if request.instance else replace(request, instance=self.host.sysfs.instance(request.device))

    def _keys(self, device: DeviceId) -> frozenset[str]:
        serial = self.settings.serial_drivers
        keys = self.host.kin.keys(device, serial)
        with suppress(FlavourError):  # it cannot be read: the device counts as never touched
            record = self.host.journal.record(device, set_aside=False)
            if record and record.original.driver in serial:  # on the way back
                keys |= {f"driver {record.original.driver}"}
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
        dropped = self.turns.drop_waiting()
        # udev brings its requests again at the next start, and what was recovered is still written down.
        self._publish([_stopping(request) for request in dropped if request.origin is Origin.VARLINK])
        await self.turns.all_answered()

    # ---

    def _configuration(self) -> tuple[Flavours, Settings, frozenset[int]]:
        settings = read_settings(self._root)
        return read_flavours(self._root), settings, settings.changers()

    def _begin(self, requests: Sequence[Request], keys: frozenset[str]) -> Callable[[TellOf], list[Outcome]]:
        """The work for requests whose turn has come. If this daemon dies before the answer, the next one goes on."""
        self.host.journal.begin(requests)
        late = (requests[0].begun or since_boot()) + self.turns.deadline
        drop = self.settings.stuck.then is Then.DROP

        def wanted() -> bool:
            return not (drop and since_boot() > late)

        return partial(answer, requests, keys, self.host, self.rules(), wanted=wanted)

    async def _inquire(self, request: Request, worker: int, step: Step) -> Stuck:
        seconds = since_boot() - request.begun if request.begun else self.turns.deadline
        since = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds")
        found = Stuck(request, step.pid or worker, since, step.text)
        usage, procfs = self.host.usage, Procfs(self._root)
        try:
            return await self.sight.at_once(
                lambda: replace(found, wchan=procfs.wchan(found.pid), holders=usage.holders(request.device)),
                seconds=_INQUIRY_SECONDS,
            )
        except FlavourError:  # what we know is told all the same
            return found

    def _tell(self, outcomes: Sequence[Outcome], begun: bool) -> None:
        """Of requests that were taken on together. begun: they had their turn."""
        self._publish([outcome for outcome in outcomes if not self._aftercare.repeats(outcome)])
        requests = [outcome.request for outcome in outcomes]
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
        for outcome in outcomes:
            self.ended(outcome)

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


def _stopping(request: Request) -> Outcome:
    error = FlavourError(Code.STOPPING, f"{request.device}: flavourd is being stopped", "ask again when it is back")
    return refused(request, error)


def _nobody_hears(_outcome: Outcome) -> None:
    """Until a policy is kept."""
