# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is remembered of all devices under policy, and the verdict on each as it was last seen."""

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from flavourd.device import DeviceId
from flavourd.flavour import DEFAULT, Flavours
from flavourd.keeper import telling
from flavourd.keeper.look import BROUGHT, Sighting, brought, present
from flavourd.keeper.memory import Memory
from flavourd.policy.language import DeviceNode, Mode
from flavourd.request import Origin
from flavourd.traits import Seen
from flavourd.verdict import Means, Verdict, judge
from flavourd.verdict import Memory as Remembered
from flavourd.wishes import Wish, Wishes


class Memories:
    """instance: of a device that stands there now, 0 if there is none. now: the time, in seconds."""

    def __init__(self, root: Path, instance: Callable[[DeviceId], int], now: Callable[[], float]) -> None:
        self._root, self._instance, self._now = root, instance, now
        self._brought = Wishes(root, BROUGHT)
        self._of: dict[DeviceId, Memory] = {}
        self._there: dict[str, frozenset[int]] = {}
        self.verdicts: dict[DeviceId, Verdict] = {}
        self.seen: dict[DeviceId, Seen] = {}

    def take_stock(self, buses: Collection[str]) -> None:
        """What stands there now was there when flavourd started; what comes later was inserted."""
        for bus in set(buses) - self._there.keys():
            self._there[bus] = frozenset(map(self._instance, present(self._root, {bus})))

    def of(self, device: DeviceId) -> Memory | None:
        return self._of.get(device)

    def remembered(self, sighting: Sighting) -> Remembered:
        """What counts for a verdict, also for devices that nothing is remembered of yet."""
        seen, rule = sighting.seen, sighting.placed.rule if sighting.placed else None
        memory = self._of.get(seen.id)
        if memory is None or memory.instance != seen.instance:
            return Remembered(self._was_there(seen), sighting.wish, sighting.applied)
        return Remembered(memory.present, sighting.wish, memory.applied == rule, memory.contested)

    def judged(self, sighting: Sighting, flavours: Flavours) -> Verdict:
        """The verdict on what was seen. Who has changed the device against the policy is told of."""
        seen, placed = sighting.seen, sighting.placed
        memory = self._of.get(seen.id)
        if memory is None or memory.instance != seen.instance:
            memory = self._of[seen.id] = Memory(seen.instance, self._was_there(seen))
            if sighting.applied and placed:
                memory.follows(placed.rule)
        verdict = judge(seen, placed, self.remembered(sighting), flavours, sighting.unexpected)
        verdict = self._compared(verdict, sighting, memory)
        self._note(seen, memory)
        self.verdicts[seen.id], self.seen[seen.id] = verdict, seen
        return verdict

    def fought(self, device: DeviceId) -> None:
        """Somebody came in between while it was brought there."""
        memory, verdict = self._of.get(device), self.verdicts.get(device)
        if memory and verdict:
            count = memory.drifted(self._now())
            if memory.contested:
                telling.drift(self._root, self.seen[device], verdict, count, contested=True)

    def begin_anew(self) -> None:
        for memory in self._of.values():
            memory.begin_anew()

    def forget(self, device: DeviceId) -> None:
        self._brought.drop(device)
        for everything in (self._of, self.verdicts, self.seen):
            everything.pop(device, None)

    def devices(self) -> list[DeviceId]:
        return list(self._of)

    @property
    def contested(self) -> list[DeviceId]:
        return sorted(device for device, verdict in self.verdicts.items() if verdict.means is Means.CONTESTED)

    @property
    def nodes(self) -> dict[DeviceId, DeviceNode]:
        """Whose nodes in /dev/vfio the rules give to somebody."""
        return {
            device: node
            for device, verdict in sorted(self.verdicts.items())
            if verdict.means in (Means.SATISFIED, Means.CHANGE, Means.CONTESTED)
            and verdict.placed
            and verdict.placed.rule.flavour != DEFAULT
            and verdict.placed.rule.mode is not Mode.OBSERVE
            and (node := verdict.placed.rule.device_node)
        }

    # ---

    def _was_there(self, seen: Seen) -> bool:
        return seen.instance in self._there.get(seen.id.bus, ())

    def _note(self, seen: Seen, memory: Memory) -> None:
        """What a rule only prefers is not applied again by a daemon that starts later."""
        rule = memory.applied
        if rule is None or rule.mode is not Mode.PREFER or memory.noted == rule:
            return
        with suppress(OSError):  # no room: then it is, at worst
            since = datetime.now(UTC).isoformat(timespec="seconds")
            self._brought.save(Wish(seen.id, seen.instance, brought(rule), since, Origin.POLICY))
            memory.noted = rule

    def _compared(self, verdict: Verdict, sighting: Sighting, memory: Memory) -> Verdict:
        """With what it was when it was last looked at."""
        seen, placed = sighting.seen, verdict.placed
        # Somebody who has asked explicitly may do what he wants.
        nobody_asked = placed is not None and sighting.wish in (None, placed.rule.flavour)
        changed = verdict.means is Means.CHANGE or (verdict.means is Means.LEFT and nobody_asked)
        if placed and changed and memory.followed and memory.applied == placed.rule:
            return self._drifted(verdict, seen, memory)
        match verdict.means:
            case Means.SATISFIED if placed:
                memory.follows(placed.rule)
                return verdict
            case Means.STOPPED:
                _once(memory, verdict, partial(telling.stopped, seen, verdict))
            case Means.OBSERVED:
                _once(memory, verdict, partial(telling.observed, seen, verdict))
        memory.followed = False
        return verdict

    def _drifted(self, verdict: Verdict, seen: Seen, memory: Memory) -> Verdict:
        if verdict.means is Means.LEFT:
            memory.followed = False
            telling.drift(self._root, seen, verdict, 1, contested=False)
            return verdict
        count = memory.drifted(self._now())
        telling.drift(self._root, seen, verdict, count, contested=memory.contested)
        return replace(verdict, means=Means.CONTESTED, request=None) if memory.contested else verdict


def _once(memory: Memory, verdict: Verdict, tell: Callable[[], None]) -> None:
    words = f"{verdict.placed}: {verdict.sentence}"
    if memory.told != words:
        memory.told = words
        tell()
