# SPDX-License-Identifier: LGPL-2.1-or-later
"""The methods of io.flavourd.Manager; the interface file beside this one says what each means."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from asyncvarlink import AnnotatedResult, VarlinkInterface, varlinkmethod

from flavourd import __version__
from flavourd.answer import explain
from flavourd.desk import Desk
from flavourd.device import DeviceId, Glance
from flavourd.errors import Code, FlavourError
from flavourd.flavour import DEFAULT, Flavours, clip
from flavourd.ipc import wire
from flavourd.ipc.call import CALL, one_reply_too
from flavourd.ipc.feed import Feed
from flavourd.ipc.history import History
from flavourd.ipc.replies import INTERFACE, Description, News, NotDone, NotPermitted, Progress, Refused, Standing
from flavourd.module_index import ModuleIndex
from flavourd.outcome import Kind
from flavourd.request import Origin, Request
from flavourd.step import What
from flavourd.survey import Survey

_SUCCESSES = (Kind.SWITCHED, Kind.ALREADY)
_LAST_OUTCOMES = 100
_LONGEST_WORD = 500  # as by a uevent; a modalias fits
_NAMES = "devices are named BUS/NAME, pci/0000:65:00.0; of a PCI device the address will do"
_KEPT_FOR_A_MONITOR = 1000  # who does not read must not cost memory without end


class Manager(VarlinkInterface, name=INTERFACE):
    """clients: tells how many are connected. ready: whether what was asked for at boot is done."""

    errors = (Refused, NotDone, NotPermitted)

    def __init__(
        self,
        desk: Desk,
        feed: Feed,
        history: History,
        survey: Survey,
        ready: Callable[[], bool],
        clients: Callable[[], int],
    ) -> None:
        self._desk, self._feed, self._history, self._survey = desk, feed, history, survey
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
        return [self._with_state(device) for device in devices]

    async def _list(self) -> list[wire.Device]:
        async with self._listing:
            self._next_list = None
            flavours, index = self._desk.flavours, self._desk.index()
            return await self._desk.look(partial(_devices, self._survey, flavours, index))

    @varlinkmethod
    async def Describe(self, *, device: str) -> Description:
        id_ = _device(device)
        look = partial(self._describe, id_, self._desk.flavours, self._desk.index())
        try:
            if id_ in self._desk.turns.steps:
                raise FlavourError(Code.STUCK, f"{id_} is being switched")
            description: Description = await self._desk.look_at(id_, partial(look, complete=True))
        except FlavourError as error:
            if error.code is not Code.STUCK:
                raise
            description = await self._desk.look(partial(look, complete=False))
        description["device"] = self._with_state(description["device"])
        description["last"] = next(iter(self._history.last(1, str(id_))), None)
        return description

    def _describe(self, id_: DeviceId, flavours: Flavours, index: ModuleIndex, *, complete: bool) -> Description:
        """In a worker. complete: also what takes the device's lock in the kernel."""
        sysfs, journal = self._desk.host.sysfs, self._desk.host.journal
        glance = self._survey.glance(id_, flavours.proofs)
        if glance is None:
            raise _no_device(id_)
        binding = sysfs.binding(id_) if complete else None
        record = None
        with suppress(FlavourError):  # it cannot be read: the device counts as never touched
            record = journal.record(id_, set_aside=False)
        group = self._survey.group(glance.iommu_group, flavours.proofs) if glance.iommu_group else ()
        return Description(
            device=wire.Device.of(glance, flavours, index),
            complete=complete,
            modalias=glance.modalias,
            module=binding.module if binding else None,
            override=binding.override if binding else None,
            members=[str(member.id) for member in group],
            record=wire.Record.of(record) if record and record.instance == sysfs.instance(id_) else None,
            last=None,
        )

    @varlinkmethod(return_parameter="plans")
    async def Explain(
        self,
        *,
        device: str,
        flavour: str | None = None,
        candidates: list[str] | None = None,
        force: list[str] | None = None,
    ) -> list[wire.Plan]:
        id_ = _device(device)
        flavours = [flavour] if flavour is not None else [*self._desk.flavours.flavours, DEFAULT]
        return [await self._plan(_request(id_, name, candidates, force)) for name in flavours]

    async def _plan(self, request: Request) -> wire.Plan:
        work = partial(explain, request, self._desk.host, self._desk.flavours, self._desk.index())
        try:
            return wire.Plan.of(await self._desk.look_at(request.device, work))
        except FlavourError as error:
            if error.code is Code.NO_DEVICE:
                raise
            return wire.Plan.refused(request, error)

    @varlinkmethod(return_parameter="outcomes")
    async def History(self, *, device: str | None = None, limit: int | None = None) -> list[wire.Outcome]:
        await self._turn()
        most = _LAST_OUTCOMES if limit is None else limit
        return self._history.last(most, str(_device(device)) if device is not None else None)

    @varlinkmethod
    def Status(self) -> Standing:
        desk = self._desk
        return Standing(
            version=__version__,
            since=self._since,
            ready=self._ready(),
            deadline_seconds=desk.turns.deadline,
            open=desk.turns.open,
            stuck=sorted(map(str, desk.turns.stuck)),
            counts={kind.value: count for kind, count in desk.counts.items()},
            clients=self._clients(),
            flavours=wire.Flavour.all(desk.flavours.flavours),
            warnings=list(desk.index().warnings),
        )

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
        dry_run: bool | None = None,
    ) -> AsyncIterator[AnnotatedResult]:
        ids = list(dict.fromkeys(map(_device, devices)))
        if not ids:
            raise FlavourError(Code.BAD_NAME, "no device was named", _NAMES)
        requests = [_request(id_, flavour, candidates, force, ids) for id_ in ids]
        if dry_run:
            yield _last(Progress(step=None, outcomes=None, plans=[await self._plan(request) for request in requests]))
            return
        self._check_may_change("switch devices")
        if missing := [id_ for id_ in ids if not self._desk.host.sysfs.exists(id_)]:
            raise _no_device(missing[0])
        async for progress in self._carry_out(requests):
            yield progress

    @one_reply_too
    @varlinkmethod(return_type=Progress)
    async def Reset(self, *, devices: list[str], dry_run: bool | None = None) -> AsyncIterator[AnnotatedResult]:
        async for progress in self.Set(devices=devices, flavour=DEFAULT, dry_run=dry_run):
            yield progress

    async def _carry_out(self, requests: list[Request]) -> AsyncIterator[AnnotatedResult]:
        uuids = {request.uuid for request in requests}
        withdraw = partial(self._desk.turns.withdraw, requests)
        outcomes: list[wire.Outcome] = []
        with self._feed.listen(lambda event: event.uuid in uuids) as listener, CALL.get().if_gone(withdraw):
            for request in requests:
                self._desk.ask(request)
            while len(outcomes) < len(requests):
                match await listener.next():
                    case wire.Outcome() as outcome:
                        outcomes.append(outcome)
                        yield _more(Progress(step=None, outcomes=[outcome], plans=None))
                    case step:
                        yield _more(Progress(step=step, outcomes=None, plans=None))
        if failed := next((outcome for outcome in outcomes if outcome.kind not in _SUCCESSES), None):
            code, sentence = failed.code or Code.INTERNAL, failed.headline
            raise NotDone(code=code, message=sentence, hint=failed.hint, outcomes=cast(Any, outcomes))
        yield _last(Progress(step=None, outcomes=outcomes, plans=None))

    @varlinkmethod
    def Reload(self) -> None:
        self._check_may_change("reload flavourd")
        self._desk.reload()

    # ---

    def _check_may_change(self, what: str) -> None:
        peer = CALL.get().peer
        if peer.uid != 0 and not peer.groups & self._desk.changers:
            raise NotPermitted(
                code=Code.NOT_PERMITTED,
                message=f"you ({peer}) may not {what}: that is for root and the groups that flavourd.yaml names",
                hint="ask as root (sudo), or have your group added: /etc/flavourd/flavourd.yaml, access, change",
            )

    def _with_state(self, device: wire.Device) -> wire.Device:
        id_, turns = DeviceId.parse(device.id), self._desk.turns
        step = turns.steps.get(id_)
        if step is None:
            return device
        state = "stuck" if id_ in turns.stuck else "waiting" if step.what is What.WAITING else "switching"
        return replace(device, state=state, step=step.text)


def _devices(survey: Survey, flavours: Flavours, index: ModuleIndex) -> list[wire.Device]:
    buses = {bus for flavour in flavours.flavours.values() for bus in flavour.buses}
    glances: tuple[Glance, ...] = survey.glances(buses, flavours.proofs)
    return [wire.Device.of(glance, flavours, index) for glance in glances]


def _device(text: str) -> DeviceId:
    try:
        return DeviceId.parse(text)
    except ValueError as error:
        raise FlavourError(Code.BAD_NAME, f"{clip(text)!r} is no device name", _NAMES) from error


def _no_device(id_: DeviceId) -> FlavourError:
    return FlavourError(Code.NO_DEVICE, f"there is no device {id_}", "flavourctl list has those that there are")


def _request(
    id_: DeviceId,
    flavour: str,
    candidates: list[str] | None,
    force: list[str] | None,
    all_: Iterable[DeviceId] = (),
) -> Request:
    if len(flavour) > _LONGEST_WORD or not flavour.isprintable():
        raise FlavourError(
            Code.UNKNOWN_FLAVOUR, f"{clip(flavour)!r} is no flavour's name", "flavourctl status has them"
        )
    return Request(
        id_,
        flavour,
        Origin.VARLINK,
        uuid=str(uuid4()),
        candidates=tuple(candidates or ()),
        force=frozenset(force or ()),
        beside=frozenset(all_) - {id_},
        asker=str(CALL.get().peer),
    )


def _more(parameters: Progress | News) -> AnnotatedResult:
    return AnnotatedResult(parameters, continues=True)


def _last(parameters: Progress) -> AnnotatedResult:
    return AnnotatedResult(parameters)
