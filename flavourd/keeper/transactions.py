# SPDX-License-Identifier: LGPL-2.1-or-later
"""From what is to be changed to what is asked for together, or not at all. Pure but for what it remembers of limits."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.flavour import DEFAULT
from flavourd.policy.language import PlacedRule
from flavourd.request import Request
from flavourd.verdict import Means, Verdict
from flavourd.wording import listed


@dataclass(frozen=True)
class Refused:
    """What is not asked for, and why; about one device, or about a rule."""

    placed: PlacedRule
    error: FlavourError
    device: DeviceId | None = None


def transactions(
    verdicts: Mapping[DeviceId, Verdict],
    ready: Collection[DeviceId],
    group_of: Callable[[DeviceId], Sequence[DeviceId]],
) -> tuple[list[list[Request]], list[Refused]]:
    """Requests that are to be carried out together, of those that are ready to be tried.

    verdicts: of these, and of all members of their IOMMU groups. group_of: its endpoints.
    """
    asked: list[list[Request]] = []
    refused: list[Refused] = []
    done: set[DeviceId] = set()
    for device in sorted(ready):
        verdict = verdicts[device]
        if device in done or not (placed := verdict.placed) or not verdict.request:
            continue
        if not placed.rule.group or placed.rule.flavour == DEFAULT:
            asked.append([verdict.request])
            continue
        members = sorted({*group_of(device), device})
        done.update(members)
        if not verdicts.keys() >= set(members):  # one is in work: they are looked at again when it is done with
            continue
        if against := _against(members, verdicts, placed.rule.flavour):
            other, why = against
            sentence = f"{device} goes to flavour {placed.rule.flavour} with its whole IOMMU group or not at all"
            hint = f"change the rules, or free {other}"
            error = FlavourError(Code.TOGETHER, f"{sentence}, and {other} does not go: {why}", hint)
            refused.append(Refused(placed, error, device))
            continue
        requests = [request for member in members if (request := verdicts[member].request)]
        everyone = frozenset(request.device for request in requests)
        asked.append([replace(request, beside=everyone - {request.device}) for request in requests])
    return asked, refused


def _against(
    members: Sequence[DeviceId], verdicts: Mapping[DeviceId, Verdict], flavour: str
) -> tuple[DeviceId, str] | None:
    for member in members:
        verdict = verdicts[member]
        if not verdict.placed or verdict.placed.rule.flavour != flavour:
            return member, f"{verdict.placed or 'no rule'} is for another flavour"
        if verdict.means not in (Means.CHANGE, Means.SATISFIED):
            return member, verdict.sentence
    return None


# Devices that come one after the other, as those behind a hot-plugged bridge do, come at once.
_AT_ONCE_SECONDS = 60.0


class Limits:
    """Rules that would change more devices at once than they may, and so change none."""

    def __init__(self) -> None:
        self._held: defaultdict[int, set[DeviceId]] = defaultdict(set)
        self._told: dict[int, frozenset[DeviceId]] = {}
        self._let_through: defaultdict[int, dict[DeviceId, float]] = defaultdict(dict)

    def begin_anew(self) -> None:
        """All devices are looked at again."""
        self._held.clear()
        self._told.clear()

    def within(
        self, asked: Sequence[Sequence[Request]], verdicts: Mapping[DeviceId, Verdict], now: float
    ) -> tuple[list[Sequence[Request]], list[Refused]]:
        """Those that may be asked for, and what is news of the others. now: in seconds.

        Devices that were held back in an earlier pass count as well, and those that were let through a moment ago: a
        rule does not come by its devices one by one.
        """
        rules: dict[int, PlacedRule] = {}
        for device, verdict in verdicts.items():
            if verdict.placed and verdict.means is not Means.CHANGE:
                self._held[verdict.placed.number].discard(device)
        for request in (request for requests in asked for request in requests):
            if placed := verdicts[request.device].placed:
                rules[placed.number] = placed
                self._held[placed.number].add(request.device)
        refused, over = [], set()
        for number, placed in rules.items():
            most, would = placed.rule.max_changes, frozenset(self._held[number] | self._lately(number, now))
            if most is None or len(would) <= most:
                self._held.pop(number)
                continue
            over.add(number)
            if self._told.get(number) != would:
                self._told[number] = would
                sentence = f"{placed} would change {len(would)} devices at once, more than its max-changes {most}"
                names = listed(map(str, sorted(would)))
                hint = (
                    f"these are {names}; no more are switched: look at flavourctl policy diff, then raise max-changes"
                )
                refused.append(Refused(placed, FlavourError(Code.MAX_CHANGES, sentence, hint)))

        def may(requests: Sequence[Request]) -> bool:
            placed = [verdicts[request.device].placed for request in requests]
            return not any(each and each.number in over for each in placed)

        found = [requests for requests in asked if may(requests)]
        for request in (request for requests in found for request in requests):
            if placed := verdicts[request.device].placed:
                self._let_through[placed.number][request.device] = now
        return found, refused

    def _lately(self, number: int, now: float) -> set[DeviceId]:
        """What the rule was let change so shortly ago that it counts as at once."""
        late = {d: at for d, at in self._let_through[number].items() if at > now - _AT_ONCE_SECONDS}
        self._let_through[number] = late
        return set(late)
