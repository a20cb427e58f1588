# SPDX-License-Identifier: LGPL-2.1-or-later
"""Keeps devices as the policy wants them: looks, judges, and asks the desk for what is to be changed.

Events are hints: whenever something may have changed, the devices concerned are looked at, and what they are is
compared with what they are to be. One pass at a time.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flavourd import logs
from flavourd.desk import Desk
from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.flavour import DEFAULT
from flavourd.keeper import telling
from flavourd.keeper.generated import Generated
from flavourd.keeper.look import Sighting, adopted, buses, present, virtual_functions
from flavourd.keeper.looking import Looking
from flavourd.keeper.memories import Memories
from flavourd.keeper.parked import Parked
from flavourd.keeper.patience import patiently
from flavourd.keeper.ruling import Ruling
from flavourd.keeper.timers import Timers
from flavourd.keeper.transactions import Limits, Refused, transactions
from flavourd.keeper.wishing import Wishing
from flavourd.outcome import Kind, Outcome
from flavourd.plan import by_policy
from flavourd.policy.language import PlacedRule
from flavourd.request import Origin
from flavourd.verdict import Means, Verdict

_SUCCESSES = (Kind.SWITCHED, Kind.ALREADY)
_TOUCHED = (Kind.UNDONE, Kind.BROKEN, Kind.LOST)
# Who takes a device from its driver most often has something else in mind for it: let him come to an end.
_SETTLING_SECONDS = 0.3
# What keeps a request from being begun at all may have passed soon.
_PASSING = (Code.HOST, Code.TOO_MANY)


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
        self._timers = Timers(self._loop, self._due_now)
        self._looking = Looking(desk, self._timers)
        self._overtaken: set[DeviceId] = set()  # a request for them has ended since the pass began
        self._behind: set[DeviceId] = set()  # refused because relatives of theirs are stuck
        self._parked = Parked()
        self._adopted: dict[DeviceId, PlacedRule] = {}  # by the rule of another member of their group

    # --- the life of it

    async def start(self) -> None:
        """Read the policy and begin to keep it. One that cannot be used is told, and none is in force."""
        self.memories.take_stock(buses(self._desk.flavours))
        self._runner = asyncio.create_task(self._run())
        self._runner.add_done_callback(self._ended)
        try:
            await patiently(self._take_over, {Code.POLICY})
        except FlavourError as error:
            logs.tell_trouble(error)
            self.look()  # what was parked for it is let go

    async def reload(self) -> None:
        """Read the policy anew; FlavourError if it cannot be used, and then the one before stays in force."""
        await self._take_over()
        self._desk.turns.drop_waiting(lambda request: request.origin is Origin.POLICY)  # what still holds is asked anew
        self.memories.begin_anew()

    async def settled(self) -> None:
        """Until there is nothing to be looked at: what is to be changed has been asked for."""
        await self._idle.wait()

    @property
    def idle(self) -> bool:
        return self._idle.is_set()

    def stop(self) -> None:
        """Look at nothing any more; what was asked for goes on."""
        self._timers.stop()
        if self._runner:
            self._runner.cancel()
        self._runner = None
        self._idle.set()

    def look(self, devices: Iterable[DeviceId] | None = None, *, stirred: bool = False) -> None:
        """Look at these devices, or at all. stirred: something has happened to them."""
        if not self._runner:
            return
        if devices is None:
            self._due.everything = True
        else:
            several = set(devices)
            if not self.force.policy.rules:  # then only what is still parked is of any concern
                several &= self._looking.later | set(self.memories.devices())
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
            self._look_later(makers)
        for device, action in changed:
            memory = self.memories.of(device)
            if action == "add":
                self.look([device], stirred=True)
            elif memory is None or not memory.echoes(self._loop.time()):
                self._look_later([device])

    def after(self, outcome: Outcome) -> None:
        """A request has ended, whoever made it."""
        request, device = outcome.request, outcome.request.device
        memory = self.memories.of(device)
        self._overtaken.add(device)
        if by_policy(request):
            self._after_own(outcome)
        elif outcome.kind in _SUCCESSES and self.wishing.fulfilled(outcome) and memory:
            memory.begin_anew()
        if device in self.memories.verdicts or device in self._looking.later:
            self.look([device])
        if functions := virtual_functions(self.root, device):
            self.look(functions)
        if outcome.code not in (Code.STUCK, Code.KIN_STUCK):  # something of what was stuck may be free again
            behind, self._behind = self._behind, set()
            self.look(behind, stirred=True)

    def _after_own(self, outcome: Outcome) -> None:
        """A request by the policy has ended. What it did not bring about is tried again."""
        request, device, now = outcome.request, outcome.request.device, self._loop.time()
        memory, verdict = self.memories.of(device), self.memories.verdicts.get(device)
        placed = verdict.placed if verdict else None
        done = outcome.kind in _SUCCESSES
        if memory and done and placed and (str(placed), placed.rule.flavour) == (request.rule, request.wanted):
            memory.done(placed.rule)
        elif outcome.code is Code.CONTESTED:
            self.memories.fought(device)
        elif memory and not done:
            memory.failed(now, touched=outcome.kind in _TOUCHED)
            if request.wanted == DEFAULT:
                self._parked.failed(device, memory.not_before)
            if request.wanted == DEFAULT or outcome.code in _PASSING:
                self._timers.within(memory.not_before - now, device)
            if outcome.code in (Code.STUCK, Code.KIN_STUCK):
                self._behind.add(device)

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
        if due.everything:
            self._parked.begin_anew()
            self._limits.begin_anew()
            self._adopted.clear()
            self.wishing.forget_gone()
        devices = present(self.root, buses(eyes.flavours)) if due.everything else sorted(due.devices)
        found = await self._sightings(devices)
        others = adopted(found, self._desk.host.kin)
        self._adopted |= others
        found += await self._sightings(others)
        if eyes is not self.force.eyes:  # by another policy all will be looked at again
            return
        # A device that was in work meanwhile may have been seen half switched, which is nobody's doing against us.
        stale = {sighting.seen.id for sighting in found if self._is_taken(sighting.seen.id)}
        self._looking.later |= stale
        self.look(stale - self._desk.turns.steps.keys())
        verdicts = {
            sighting.seen.id: self.memories.judged(sighting, eyes.flavours)
            for sighting in found
            if sighting.seen.id not in stale
        }
        gone = set(self.memories.devices() if due.everything else due.devices) - verdicts.keys() - self._looking.later
        for device in gone:
            self._forget(device)
        await self._generated.have(self.memories.nodes)
        if eyes is self.force.eyes:
            self._ask(verdicts, due.stirred)

    async def _sightings(self, devices: Collection[DeviceId]) -> list[Sighting]:
        eyes, others = self.force.eyes, self._adopted
        return await self._looking.at(devices, lambda free: eyes.sightings(free, others))

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
                self._timers.within(memory.not_before - now, device)
        together, against = transactions(verdicts, ready, self._desk.host.kin.group)
        found, beyond = self._limits.within(together, verdicts, now)
        for each in (*against, *beyond):
            self._tell_refused(each)
        asked: set[DeviceId] = set()
        for requests in found:
            if not any(self._is_taken(request.device) for request in requests):
                self._desk.ask(requests)
                asked.update(request.device for request in requests)
        left = {d: each for d, each in verdicts.items() if d not in asked and not self._is_taken(d)}
        for request in self._parked.let_go(left, self.memories.seen, now):
            self._desk.ask([request])

    def _is_taken(self, device: DeviceId) -> bool:
        """Somebody else has asked for it since it was looked at."""
        return device in self._desk.turns.steps or device in self._overtaken

    def _tell_refused(self, refused: Refused) -> None:
        memory = self.memories.of(refused.device) if refused.device else None
        if memory is None or memory.told != str(refused.error):
            telling.refused(refused.error, refused.placed, refused.device)
        if memory:
            memory.told = str(refused.error)

    # ---

    async def _take_over(self) -> None:
        await self.force.read()
        eyes, self._limits = self.force.eyes, Limits()
        self.memories.take_stock(buses(eyes.flavours))
        self._desk.kept = eyes.kept if eyes.policy.rules else None
        self._generated.of(eyes)
        self.look()

    def _forget(self, device: DeviceId) -> None:
        """It is gone, or no rule is for it any more."""
        self.memories.forget(device)
        self._adopted.pop(device, None)
        self._behind.discard(device)
        self._parked.forget(device)
        self._looking.forget(device)
        self._timers.drop(device)
        self.wishing.forget_gone([device])

    def _look_later(self, devices: Iterable[DeviceId]) -> None:
        for device in devices:
            self._timers.within(_SETTLING_SECONDS, device)

    def _look_at_all_in(self, seconds: float) -> None:
        self._timers.drop(None)
        if seconds and (self.force.policy.rules or self.memories.devices()):  # without rules: what is still parked
            self._timers.within(seconds, None)

    def _due_now(self, device: DeviceId | None) -> None:
        self.look(None if device is None else [device], stirred=True)

    def _ended(self, runner: asyncio.Task[None]) -> None:
        if not runner.cancelled() and (error := runner.exception()):
            self._loop.call_exception_handler({"message": "the policy is not kept any more", "exception": error})


def _makes_vfs(verdict: Verdict) -> bool:
    return verdict.placed is not None and verdict.placed.rule.vfs is not None
