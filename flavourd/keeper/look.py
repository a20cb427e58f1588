# SPDX-License-Identifier: LGPL-2.1-or-later
"""Looks at devices for the policy: what each is, which rule is for it, and what was asked for. Runs in workers."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flavourd.device import PARKED, DeviceId
from flavourd.flavour import DEFAULT, Flavours
from flavourd.identity import Identities
from flavourd.journal import Journal
from flavourd.kin import Kin
from flavourd.policy.language import PlacedRule, Policy, Rule
from flavourd.policy.match import Matcher
from flavourd.record import Record
from flavourd.request import Origin
from flavourd.sysfs import entries, link_name
from flavourd.traits import Seen
from flavourd.verdict import keeps
from flavourd.wishes import Wishes

# In this folder stands where rules that only prefer have brought devices (see Wishes).
BROUGHT = "brought"


@dataclass(frozen=True)
class Sighting:
    """unexpected: what the rule's `expect` does not find as it should. wish: flavour that was asked for explicitly.
    applied: the policy has brought it into the rule's flavour before, perhaps under an earlier daemon.
    """

    seen: Seen
    placed: PlacedRule | None
    unexpected: str | None = None
    wish: str | None = None
    applied: bool = False


@dataclass(frozen=True)
class Eyes:
    """root: of the host. policy: by which devices are looked at; matcher: made from it."""

    root: Path
    flavours: Flavours
    policy: Policy
    matcher: Matcher

    @classmethod
    def on(cls, root: Path, flavours: Flavours, policy: Policy) -> "Eyes":
        return cls(root, flavours, policy, Matcher(policy))

    def sightings(
        self,
        devices: Iterable[DeviceId],
        others: Mapping[DeviceId, PlacedRule] | None = None,
        *,
        everything: bool = False,
    ) -> list[Sighting]:
        """Of those for which there is a rule, and of those that are parked; or of all.

        others: rules for devices that have none of their own.
        """
        journal, wishes, noted = Journal(self.root), Wishes(self.root), Wishes(self.root, BROUGHT)
        records = {record.device: record for record in journal.records()}
        native = {device: (record.instance, record.original.driver) for device, record in records.items()}
        identities = Identities(self.root, self.flavours.proofs, native)
        found = []
        for device in devices:
            seen = identities.seen(device, self.matcher.needs)
            if seen is None:  # gone meanwhile
                continue
            own = self.matcher.rule(seen.traits)
            placed = own or (others or {}).get(device)
            if placed is None and seen.override != PARKED and not everything:
                continue
            wish, before = wishes.wish(device, seen.instance), noted.wish(device, seen.instance)
            applied = placed is not None and (
                _is_of(records.get(device), seen, placed.rule)
                or (before is not None and before.flavour == brought(placed.rule))
            )
            unexpected = self.matcher.expected(own, seen.traits) if own else None
            found.append(Sighting(seen, placed, unexpected, wish.flavour if wish else None, applied))
        return found

    def all_sightings(self, left_out: Collection[DeviceId] = ()) -> list[Sighting]:
        """Of all devices of the host for which there is a rule, but those at which nobody can look now."""
        found = self.sightings(each for each in present(self.root, buses(self.flavours)) if each not in left_out)
        others = adopted(found, Kin(self.root))
        return [*found, *self.sightings(sorted(others.keys() - set(left_out)), others)]

    def kept(self, device: DeviceId) -> bool:
        """Whether the policy keeps a device that has just been made from its native driver."""
        with suppress(OSError, ValueError):  # who asks is in the middle of a switch, and the device may be gone again
            seen = Identities(self.root, self.flavours.proofs).seen(device, self.matcher.needs)
            if seen and (placed := self.matcher.rule(seen.traits)):
                return keeps(seen, placed, self.flavours, self.matcher.expected(placed, seen.traits))
        return False


def brought(rule: Rule) -> str:
    """Where the rule brings a device, in words."""
    return rule.flavour if rule.vfs is None else f"{rule.flavour} with {rule.vfs} VFs"


def _is_of(record: Record | None, seen: Seen, rule: Rule) -> bool:
    """Whether the policy has brought the device into the rule's flavour."""
    return (
        record is not None
        and (record.instance, record.flavour, record.unfinished) == (seen.instance, rule.flavour, False)
        and record.origin in (Origin.POLICY, Origin.RECOVERY)
    )


def present(root: Path, buses: Collection[str]) -> list[DeviceId]:
    """All devices of these buses: only directories are listed, which nobody can hold up."""
    return [DeviceId(bus, name) for bus in sorted(buses) for name in entries(root / "sys/bus" / bus / "devices")]


def buses(flavours: Flavours) -> frozenset[str]:
    """Those that have a flavour: on the others the policy can do nothing."""
    return frozenset(bus for flavour in flavours.flavours.values() for bus in flavour.buses)


def virtual_functions(root: Path, device: DeviceId) -> list[DeviceId]:
    """Those that a PF has now."""
    place = f"{root}/sys/bus/{device.bus}/devices/{device.name}"
    links = (link_name(f"{place}/{name}") for name in entries(place) if name.startswith("virtfn"))
    return [DeviceId(device.bus, name) for name in links if name]


def adopted(found: Sequence[Sighting], kin: Kin) -> dict[DeviceId, PlacedRule]:
    """The other members of IOMMU groups that go together, each with the rule by which it does if it has none."""
    known = {sighting.seen.id for sighting in found}
    return {
        member: placed
        for sighting in found
        if (placed := sighting.placed) and sighting.unexpected is None
        if placed.rule.group and placed.rule.flavour != DEFAULT
        for member in kin.group(sighting.seen.id)
        if member not in known
    }
