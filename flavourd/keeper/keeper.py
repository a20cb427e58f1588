# SPDX-License-Identifier: LGPL-2.1-or-later
"""Keeps devices as the policy wants them: looks, judges, and asks the desk for what is to be changed.

Events are hints: whenever something may have changed, the devices concerned are looked at, and what they are is
compared with what they are to be. One pass at a time.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from flavourd import logs
from flavourd.desk import Desk
from flavourd.device import PARKED, DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.flavour import DEFAULT
from flavourd.keeper import telling
from flavourd.keeper.generated import Generated
from flavourd.keeper.look import Sighting, adopted, buses, present, virtual_functions
from flavourd.keeper.memories import Memories
from flavourd.keeper.ruling import Ruling
from flavourd.keeper.transactions import Limits, Refused, transactions
from flavourd.keeper.wishing import Wishing
from flavourd.outcome import Kind, Outcome
from flavourd.policy.language import PlacedRule
from flavourd.request import Origin, Request
from flavourd.verdict import Means, Verdict

_SUCCESSES = (Kind.SWITCHED, Kind.ALREADY)
_TOUCHED = (Kind.UNDONE, Kind.BROKEN, Kind.LOST)
# Who takes a device from its driver most often has something else in mind for it: let him come to an end.
_SETTLING_SECONDS = 0.3


@dataclass
class _Due:
    """What the next pass looks at. stirred: something has happened there, so that it is tried as soon as it may be."""

    everything: bool = False
    devices: set[DeviceId] = field(default_factory=set)
    stirred: set[DeviceId] = field(default_factory=set)


class Keeper:
    """root: of the host. `force`: the policy. `memories`: what is known of the devices that it is for."""

    def __init__(self, root: Path, desk: Desk) -> None:
        self.root, self._desk = root, desk
        self._loop = asyncio.get_running_loop()
        self.force = Ruling(root, desk)
        self.memories = Memories(root, desk.host.sysfs.instance, self._loop.time)
        self.wishing = Wishing(root, desk.host.sysfs.instance)
        self._generated = Generated(root, desk.sight.look)
        self._limits = Limits()
        self._due, self._wake, self._idle = _Due(), asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._runner: asyncio.Task[None] | None = None
        self._timers: dict[DeviceId | None, asyncio.TimerHandle] = {}
        self._later: set[DeviceId] = set()  # in work when they were to be looked at
        self._overtaken: set[DeviceId] = set()  # asked for explicitly since the pass began
        self._let_go: set[DeviceId] = set()  # that were parked, since all was looked at
        self._adopted: dict[DeviceId, PlacedRule] = {}  # by the rule of another member of their group

    # --- the life of it

    async def start(self) -> None:
        """Read the policy and begin to keep it. One that cannot be used is told, and none is in force."""
        self.memories.take_stock(buses(self._desk.flavours))
        self._runner = asyncio.create_task(self._run())
        self._runner.add_done_callback(self._ended)
        try:
            await self._take_over()
        except FlavourError as error:
            logs.tell_trouble(error)

    async def reload(self) -> None:
        """Read the policy anew; FlavourError if it cannot be used, and then the one before stays in force."""
        await self._take_over()
        self.memories.begin_anew()

    async def settled(self) -> None:
        """Until there is nothing to be looked at: what is to be changed has been asked for."""
        await self._idle.wait()

    @property
    def idle(self) -> bool:
        return self._idle.is_set()

    def stop(self) -> None:
        """Look at nothing any more; what was asked for goes on."""
        for timer in self._timers.values():
            timer.cancel()
        if self._runner:
            self._runner.cancel()
        self._runner = None
        self._idle.set()

    def look(self, devices: Iterable[DeviceId] | None = None, *, stirred: bool = False) -> None:
        """Look at these devices, or at all. stirred: something has happened to them."""
        if not self._runner or (not self.force.policy.rules and devices is not None):
            return
        if devices is None:
            self._due.everything = True
        else:
            several = set(devices)
            self._due.devices |= several
            self._due.stirred |= several if stirred else set()
        if self._due.everything or self._due.devices:
            self._idle.clear()
            self._wake.set()

    # --- what comes in

    def heard(self, changed: Iterable[tuple[DeviceId, str]], removed: Iterable[DeviceId]) -> None:
        """Events of devices for which there may be a rule: what has happened to which of them."""
        for device in removed:
            self._forget(device)
            makers = [id_ for id_, verdict in self.memories.verdicts.items() if _makes_vfs(verdict)]
            self._look_later(makers, _SETTLING_SECONDS)
        for device, action in changed:
            memory = self.memories.of(device)
            if action == "add":
                self.look([device], stirred=True)
            elif memory is None or not memory.echoes(self._loop.time()):
                self._look_later([device], _SETTLING_SECONDS)

    def after(self, outcome: Outcome) -> None:
        """A request has ended, whoever made it."""
        request, device = outcome.request, outcome.request.device
        memory, verdict = self.memories.of(device), self.memories.verdicts.get(device)
        done = outcome.kind in _SUCCESSES
        if request.rule is not None or request.origin is Origin.POLICY:
            placed = verdict.placed if verdict else None
            if memory and done and placed and (str(placed), placed.rule.flavour) == (request.rule, request.wanted):
                memory.done(placed.rule)
            elif outcome.code is Code.CONTESTED:
                self.memories.fought(device)
            elif memory and not done:
                memory.failed(self._loop.time(), touched=outcome.kind in _TOUCHED)
        elif done and self.wishing.fulfilled(outcome):
            self._overtaken.add(device)
            if memory:
                memory.begin_anew()
        if device in self.memories.verdicts or device in self._later:
            self.look([device])
        if functions := virtual_functions(self.root, device):
            self.look(functions)

    # --- one pass after the other

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            due, self._due = self._due, _Due()
            await self._pass(due)
            if due.everything:
                self._look_at_all_in(self._desk.settings.reconcile_seconds)
            if not self._wake.is_set():
                self._idle.set()

    async def _pass(self, due: _Due) -> None:
        eyes, self._overtaken = self.force.eyes, set()
        if not eyes.policy.rules:
            for device in self.memories.devices():
                self._forget(device)
            await self._generated.have({})
            return
        if due.everything:
            self._let_go.clear()
            self._limits.begin_anew()
            self._adopted.clear()
        devices = present(self.root, buses(eyes.flavours)) if due.everything else sorted(due.devices)
        found = await self._sightings(devices)
        others = adopted(found, self._desk.host.kin)
        self._adopted |= others
        found += await self._sightings(sorted(others))
        if eyes is not self.force.eyes:  # by another policy all will be looked at again
            return
        verdicts = {sighting.seen.id: self.memories.judged(sighting, eyes.flavours) for sighting in found}
        gone = set(self.memories.devices() if due.everything else due.devices) - verdicts.keys() - self._later
        for device in gone:
            self._forget(device)
        await self._generated.have(self.memories.nodes)
        if eyes is self.force.eyes:
            self._ask(verdicts, due.stirred)

    async def _sightings(self, devices: Sequence[DeviceId]) -> list[Sighting]:
        """Of those that are not in work; the others are looked at when they are done with."""
        free = [device for device in devices if device not in self._desk.turns.steps]
        self._later.difference_update(free)
        self._later.update(set(devices) - set(free))
        look = partial(self.force.eyes.sightings, free, self._adopted)
        try:
            if len(free) > 1:
                return await self._desk.sight.look(look)
            return await self._desk.sight.look_at(free[0], look) if free else []
        except FlavourError as error:
            if error.code is not Code.STUCK or len(free) == 1:
                if error.code is not Code.STUCK:
                    logs.tell_trouble(error, logs.WARNING)
                self._later.update(free)
                return []
        # One of them sleeps in the kernel: the others can be looked at without it.
        alone = await asyncio.gather(*(self._sightings([device]) for device in free))
        return [sighting for one in alone for sighting in one]

    # --- what follows

    def _ask(self, verdicts: Mapping[DeviceId, Verdict], stirred: Collection[DeviceId]) -> None:
        now, ready = self._loop.time(), []
        for device, verdict in verdicts.items():
            memory = self.memories.of(device)
            if verdict.means is not Means.CHANGE or not memory or self._is_taken(device):
                continue
            if memory.not_before <= now:
                ready.append(device)
            elif device in stirred or memory.drifting:
                self._look_later([device], memory.not_before - now)
        together, against = transactions(verdicts, ready, self._desk.host.kin.group)
        found, beyond = self._limits.within(together, verdicts)
        for each in (*against, *beyond):
            self._tell_refused(each)
        asked: set[DeviceId] = set()
        for requests in found:
            if not any(self._is_taken(request.device) for request in requests):
                self._desk.ask(requests)
                asked.update(request.device for request in requests)
        self._unpark(verdicts, asked)

    def _is_taken(self, device: DeviceId) -> bool:
        """Somebody else has asked for it since it was looked at."""
        return device in self._desk.turns.steps or device in self._overtaken

    def _unpark(self, verdicts: Mapping[DeviceId, Verdict], asked: Collection[DeviceId]) -> None:
        """What waits for a driver that it does not get, or not now, must not be kept from its native one."""
        for device, verdict in verdicts.items():
            seen = self.memories.seen.get(device)
            waits = seen is not None and seen.override == PARKED and device not in self._let_go
            if waits and device not in asked and not self._is_taken(device):
                self._let_go.add(device)
                rule = str(verdict.placed) if verdict.placed else None
                self._desk.ask([Request(device, DEFAULT, Origin.POLICY, rule=rule)])

    def _tell_refused(self, refused: Refused) -> None:
        memory = self.memories.of(refused.device) if refused.device else None
        if memory is None or memory.told != str(refused.error):
            telling.refused(refused.error, refused.placed, refused.device)
        if memory:
            memory.told = str(refused.error)

    # ---

    async def _take_over(self) -> None:
        await self.force.read()
        eyes = self.force.eyes
        self.memories.take_stock(buses(eyes.flavours))
        self._desk.kept = eyes.kept if eyes.policy.rules else None
        self._generated.of(eyes)
        self.look()

    def _forget(self, device: DeviceId) -> None:
        """It is gone, or no rule is for it any more."""
        self.memories.forget(device)
        self._adopted.pop(device, None)
        self._let_go.discard(device)
        self._later.discard(device)
        if timer := self._timers.pop(device, None):
            timer.cancel()
        self.wishing.forget_gone(device)

    def _look_later(self, devices: Iterable[DeviceId], seconds: float) -> None:
        """In so many seconds at the latest of all that was said."""
        for device in devices:
            if timer := self._timers.pop(device, None):
                timer.cancel()
            self._timers[device] = self._loop.call_later(seconds, self._due_now, device)

    def _look_at_all_in(self, seconds: float) -> None:
        if timer := self._timers.pop(None, None):
            timer.cancel()
        if seconds and self.force.policy.rules:
            self._timers[None] = self._loop.call_later(seconds, self._due_now, None)

    def _due_now(self, device: DeviceId | None) -> None:
        del self._timers[device]
        self.look(None if device is None else [device], stirred=True)

    def _ended(self, runner: asyncio.Task[None]) -> None:
        if not runner.cancelled() and (error := runner.exception()):
            self._loop.call_exception_handler({"message": "the policy is not kept any more", "exception": error})


def _makes_vfs(verdict: Verdict) -> bool:
    return verdict.placed is not None and verdict.placed.rule.vfs is not None
