# SPDX-License-Identifier: LGPL-2.1-or-later
"""The methods of io.flavourd.Manager; the interface file beside this one says what each means."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

from asyncvarlink import AnnotatedResult, VarlinkInterface, varlinkmethod

from flavourd import __version__
from flavourd.answer import explain
from flavourd.desk import Desk
from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.flavour import DEFAULT
from flavourd.ipc import asked, looks, policies, wire
from flavourd.ipc.call import CALL, one_reply_too
from flavourd.ipc.feed import Feed
from flavourd.ipc.history import History
from flavourd.ipc.replies import (
    INTERFACE,
    Description,
    Diff,
    Matched,
    News,
    NotDone,
    NotPermitted,
    Progress,
    Refused,
    Standing,
)
from flavourd.keeper.keeper import Keeper
from flavourd.keeper.persisting import persist as write_down
from flavourd.outcome import Kind, Outcome
from flavourd.policy.persisted import is_kept
from flavourd.request import Origin, Request
from flavourd.step import What
from flavourd.survey import Survey

_SUCCESSES = (Kind.SWITCHED, Kind.ALREADY)
_LAST_OUTCOMES = 100
_KEPT_FOR_A_MONITOR = 1000  # who does not read must not cost memory without end


class Manager(VarlinkInterface, name=INTERFACE):
    """clients: tells how many are connected. ready: whether what was asked for at boot is done."""

    errors = (Refused, NotDone, NotPermitted)

    def __init__(
        self,
        desk: Desk,
        keeper: Keeper,
        feed: Feed,
        history: History,
        survey: Survey,
        ready: Callable[[], bool],
        clients: Callable[[], int],
    ) -> None:
        self._desk, self._keeper = desk, keeper
        self._feed, self._history, self._survey = feed, history, survey
        self._ready, self._clients = ready, clients
        self._since = wire.now()
        self._next_list: asyncio.Task[list[wire.Device]] | None = None
        self._listing, self._long_replies = asyncio.Lock(), asyncio.Lock()

    @classmethod
    @cache
    def render_interface_description(cls, *, comments: bool = True) -> str:
        """The file has comments for every field, which cannot be written into Python's types."""
        return Path(__file__).with_name(f"{INTERFACE}.varlink").read_text(encoding="utf-8")

    # --- looking

    @varlinkmethod(return_parameter="devices")
    async def List(self) -> list[wire.Device]:
        # Callers who come while one list is being made share the next one.
        if self._next_list is None:
            self._next_list = asyncio.create_task(self._list())
        devices = await asyncio.shield(self._next_list)
        await self._turn()
        contested = self._contested()  # once: there may be thousands of devices
        return [self._with_state(device, contested) for device in devices]

    async def _list(self) -> list[wire.Device]:
        async with self._listing:
            self._next_list = None
            flavours, index = self._desk.flavours, self._desk.index()
            return await self._desk.sight.look(
                partial(looks.all_devices, self._desk.host, self._survey, flavours, index)
            )

    @varlinkmethod
    async def Describe(self, *, device: str) -> Description:
        id_, desk = asked.device(device), self._desk
        look = partial(looks.description, id_, desk.host, self._survey, desk.flavours, desk.index())
        try:
            if id_ in desk.turns.steps:
                raise FlavourError(Code.STUCK, f"{id_} is being switched")
            description: Description = await desk.sight.look_at(id_, partial(look, complete=True))
        except FlavourError as error:
            if error.code is not Code.STUCK:
                raise
            description = await desk.sight.look(partial(look, complete=False))
        description["device"] = self._with_state(description["device"], self._contested())
        description["last"] = next(iter(self._history.last(1, str(id_))), None)
        return description

    @varlinkmethod(return_parameter="plans")
    async def Explain(
        self,
        *,
        device: str,
        flavour: str | None = None,
        candidates: list[str] | None = None,
        force: list[str] | None = None,
    ) -> list[wire.Plan]:
        id_ = asked.device(device)
        flavours = [flavour] if flavour is not None else [*self._desk.flavours.flavours, DEFAULT]
        requests = [request for name in flavours for request in asked.requests([id_], name, candidates, force)]
        return [await self._plan(request) for request in requests]

    async def _plan(self, request: Request, together: Collection[DeviceId] = ()) -> wire.Plan:
        work = partial(explain, request, self._desk.host, self._desk.rules(), together)
        try:
            return wire.Plan.of(await self._desk.sight.look_at(request.device, work))
        except FlavourError as error:
            if error.code is Code.NO_DEVICE:
                raise
            return wire.Plan.refused(request, error)

    @varlinkmethod(return_parameter="outcomes")
    async def History(self, *, device: str | None = None, limit: int | None = None) -> list[wire.Outcome]:
        await self._turn()
        most = _LAST_OUTCOMES if limit is None else limit
        return self._history.last(most, str(asked.device(device)) if device is not None else None)

    @varlinkmethod
    def Status(self) -> Standing:
        desk = self._desk
        return Standing(
            version=__version__,
            since=self._since,
            ready=self._ready(),
            deadline_seconds=desk.turns.deadline,
            open=desk.turns.open,
            waiting=desk.turns.waiting,
            stuck=[wire.Stuck.of(stuck) for stuck in dict.fromkeys(desk.turns.stuck.values())],
            counts={kind.value: count for kind, count in desk.counts.items()},
            clients=self._clients(),
            flavours=wire.Flavour.all(desk.flavours.flavours),
            warnings=list(desk.index().warnings),
            policy=policies.standing(self._keeper),
        )

    @varlinkmethod
    async def MatchPolicy(self, *, device: str) -> Matched:
        return await policies.matched(asked.device(device), self._desk, self._keeper)

    @varlinkmethod
    async def DiffPolicy(self) -> Diff:
        return await policies.diff(self._desk, self._keeper)

    @varlinkmethod(return_type=News)
    async def Monitor(self) -> AsyncIterator[AnnotatedResult]:
        with self._feed.listen(lambda _event: True, _KEPT_FOR_A_MONITOR) as listener, CALL.get().if_gone(listener.end):
            yield _more(News(step=None, outcome=None, lost=None))
            lost = 0
            while event := await listener.next():
                news = News(
                    step=event if isinstance(event, wire.Step) else None,
                    outcome=event if isinstance(event, wire.Outcome) else None,
                    lost=listener.lost - lost or None,
                )
                lost = listener.lost
                yield _more(news)

    async def _turn(self) -> None:
        """One long reply is made in each turn of the loop: meanwhile others are served."""
        async with self._long_replies:
            await asyncio.sleep(0)

    # --- changing

    @one_reply_too
    @varlinkmethod(return_type=Progress)
    async def Set(
        self,
        *,
        devices: list[str],
        flavour: str,
        candidates: list[str] | None = None,
        force: list[str] | None = None,
        group: bool | None = None,
        dry_run: bool | None = None,
        persist: bool | None = None,
        behalf: str | None = None,
    ) -> AsyncIterator[AnnotatedResult]:
        if behalf is not None:
            self._check_may_ask_for_others()
        named = asked.devices(devices)
        gone = [device for device in named if not self._desk.host.sysfs.exists(device)]
        given_up = flavour == DEFAULT and persist and not dry_run
        for device in gone:  # what was written down for hardware that is gone can be taken back all the same
            if not given_up or not is_kept(self._keeper.root, device):
                raise asked.no_device(device)
        there = [device for device in named if device not in gone]
        together = self._groups(there) if group else [[device] for device in there]
        everyone = [device for each in together for device in each]
        requests = asked.requests(everyone, flavour, candidates, force, behalf)
        if dry_run:
            members = {device: each for each in together for device in each}
            plans = [await self._plan(request, members[request.device]) for request in requests]
            yield _last(Progress(step=None, outcomes=None, plans=plans))
            return
        self._check_may_change("switch devices")
        if persist:
            await self._keeper.force.on_disk()  # else nobody could tell what would come of it
        absent = asked.requests(gone, flavour, None, None, behalf)
        async for progress in self._carry_out(requests, together, absent, persist=bool(persist)):
            yield progress

    @one_reply_too
    @varlinkmethod(return_type=Progress)
    async def Reset(
        self,
        *,
        devices: list[str],
        force: list[str] | None = None,
        group: bool | None = None,
        dry_run: bool | None = None,
        persist: bool | None = None,
    ) -> AsyncIterator[AnnotatedResult]:
        async for progress in self.Set(
            devices=devices, flavour=DEFAULT, force=force, group=group, dry_run=dry_run, persist=persist
        ):
            yield progress

    def _groups(self, devices: list[DeviceId]) -> list[list[DeviceId]]:
        """The endpoints of each device's IOMMU group. A bridge that was named goes along, and is told that it stays."""
        groups: dict[tuple[DeviceId, ...], list[DeviceId]] = {}
        for device in devices:
            members = self._desk.host.kin.group(device)
            groups.setdefault(members, [*members])
            if device not in members:
                groups[members].append(device)
        return [*groups.values()]

    async def _carry_out(
        self, requests: list[Request], together: list[list[DeviceId]], absent: list[Request], *, persist: bool
    ) -> AsyncIterator[AnnotatedResult]:
        by_device = {request.device: request for request in requests}
        uuids = {request.uuid for request in requests}

        def withdraw() -> None:
            self._desk.turns.withdraw(lambda request: request.uuid in uuids)

        told: dict[str | None, wire.Outcome] = {}  # of one that was stuck, what came of it in the end
        feed, call = self._feed, CALL.get()
        with feed.listen(lambda event: event.uuid in uuids, steps=call.more) as listener, call.if_gone(withdraw):
            for devices in together:
                self._desk.ask([by_device[device] for device in devices])
            while len(told) < len(requests):
                match await listener.next():
                    case wire.Outcome() as outcome:
                        told[outcome.uuid] = outcome
                        yield _more(Progress(step=None, outcomes=[outcome], plans=None))
                    case None:
                        raise FlavourError(Code.STOPPING, "flavourd is being stopped", "ask again when it is back")
                    case step:
                        yield _more(Progress(step=step, outcomes=None, plans=None))
        outcomes = list(told.values())
        if failures := [outcome for outcome in outcomes if outcome.kind not in _SUCCESSES]:
            # Those that were left out say nothing of why.
            failed = min(failures, key=lambda outcome: outcome.code == Code.TOGETHER)
            code, sentence = failed.code or Code.INTERNAL, failed.headline
            raise NotDone(code=code, message=sentence, hint=failed.hint, outcomes=cast(Any, outcomes))
        if persist:
            outcomes = await self._persist([*requests, *absent], [*outcomes, *map(_of_absent, absent)])
        yield _last(Progress(step=None, outcomes=outcomes, plans=None))

    async def _persist(self, requests: list[Request], outcomes: list[wire.Outcome]) -> list[wire.Outcome]:
        flavours = {outcome.uuid: outcome.flavour for outcome in outcomes}
        wanted = [(request, flavours[request.uuid]) for request in requests]
        try:
            notes = await write_down(wanted, self._desk, self._keeper)
        except FlavourError as error:
            sentence = f"all is switched, but {error.sentence}"
            told = cast(Any, outcomes)
            raise NotDone(code=error.code, message=sentence, hint=error.hint, outcomes=told) from error
        of = {request.uuid: note for request, note in zip(requests, notes, strict=True)}
        return [replace(outcome, notes=[*outcome.notes, of[outcome.uuid]]) for outcome in outcomes]

    @varlinkmethod(return_parameter="withdrawn")
    def Cancel(self, *, devices: list[str]) -> int:
        self._check_may_change("cancel requests")
        ids = set(asked.devices(devices))
        # What goes on with a crash's remains is nobody's to withdraw.
        asked_for = set(Origin) - {Origin.RECOVERY, Origin.PUT_BACK}
        return self._desk.turns.withdraw(lambda request: request.device in ids and request.origin in asked_for)

    @varlinkmethod
    async def Reload(self) -> None:
        self._check_may_change("reload flavourd")
        self._desk.reload()
        await self._keeper.reload()

    # ---

    def _check_may_change(self, what: str) -> None:
        peer = CALL.get().peer
        if peer.uid != 0 and not peer.groups & self._desk.changers:
            raise NotPermitted(
                code=Code.NOT_PERMITTED,
                message=f"you ({peer}) may not {what}: that is for root and the groups that flavourd.yaml names",
                hint="ask as root (sudo), or have your group added: /etc/flavourd/flavourd.yaml, access, change",
            )

    def _check_may_ask_for_others(self) -> None:
        if (peer := CALL.get().peer).uid != 0:
            raise NotPermitted(
                code=Code.NOT_PERMITTED,
                message=f"you ({peer}) may not ask on behalf of others: that is for root",
                hint="ask in your own name, without `behalf`",
            )

    def _contested(self) -> frozenset[DeviceId]:
        return frozenset(self._keeper.memories.contested)

    def _with_state(self, device: wire.Device, contested: Collection[DeviceId]) -> wire.Device:
        id_, turns = DeviceId.parse(device.id), self._desk.turns
        step = turns.steps.get(id_)
        if step is None and id_ in contested:
            state = "contested"
            return replace(device, state=state)
        if step is None:
            return device
        stuck = turns.stuck.get(id_)
        state = "stuck" if stuck else "waiting" if step.what is What.WAITING else "switching"
        return replace(device, state=state, step=step.text, stuck=wire.Stuck.of(stuck) if stuck else None)


def _of_absent(request: Request) -> wire.Outcome:
    """Nothing was to be switched; what is done about its file is told in a note."""
    sentence = f"there is no device {request.device}"
    told = wire.Outcome.of(Outcome(request, Kind.ALREADY, DEFAULT))
    return replace(told, headline=sentence, message=sentence)


def _more(parameters: Progress | News) -> AnnotatedResult:
    return AnnotatedResult(parameters, continues=True)


def _last(parameters: Progress) -> AnnotatedResult:
    return AnnotatedResult(parameters)
