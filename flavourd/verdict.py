# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the policy means for one device as it is. Pure: from what was seen and remembered to a verdict, and to the
request that would make it true.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from flavourd.device import PARKED, DeviceId
from flavourd.flavour import DEFAULT, Flavours
from flavourd.policy.language import Mode, NamedCandidate, PlacedRule, Rule, When
from flavourd.request import Origin, Request
from flavourd.traits import Seen


class Means(StrEnum):
    NONE = "none"  # no rule, or none that could do anything with the device
    KEPT = "kept"  # the rule leaves devices alone that were there, or that come later
    SATISFIED = "satisfied"  # the device is as it shall be
    CHANGE = "change"  # it shall be changed
    OBSERVED = "observed"  # it would be, but the rule only observes
    LEFT = "left"  # somebody else has decided: an explicit request, or whoever changed what the rule only prefers
    STOPPED = "stopped"  # other hardware than the rule expects
    CONTESTED = "contested"  # somebody changes it again and again


@dataclass(frozen=True)
class Memory:
    """present: the device was there when flavourd started. wish: flavour that was asked for explicitly and came true.
    applied: the rule has once brought this instance where it is to be. contested: see Means.
    """

    present: bool = False
    wish: str | None = None
    applied: bool = False
    contested: bool = False


@dataclass(frozen=True)
class Verdict:
    """sentence: why, without the rule's place. request: that would change it, if it is to be changed."""

    device: DeviceId
    placed: PlacedRule | None
    means: Means
    sentence: str
    request: Request | None = None


def judge(
    seen: Seen, placed: PlacedRule | None, memory: Memory, flavours: Flavours, unexpected: str | None = None
) -> Verdict:
    """placed: the first rule that matches. unexpected: what its `expect` does not find as it should."""
    device = seen.id

    def verdict(means: Means, sentence: str, request: Request | None = None) -> Verdict:
        return Verdict(device, placed, means, sentence, request)

    if placed is None:
        return verdict(Means.NONE, "no rule matches it")
    rule = placed.rule
    if unexpected is not None:
        return verdict(Means.STOPPED, f"other hardware stands there than the rule expects: {unexpected}")
    if reason := _beyond(seen, rule, flavours):
        return verdict(Means.NONE, reason)
    differs = difference(seen, rule, flavours)
    if memory.wish is not None and memory.wish != rule.flavour:
        return verdict(Means.LEFT, f"flavour {memory.wish} was asked for explicitly; that holds until the next boot")
    if differs is None:
        return verdict(Means.SATISFIED, _as_it_shall_be(seen, rule))
    when, word = (rule.present, "present") if memory.present else (rule.inserted, "inserted")
    if when is When.KEEP:
        return verdict(Means.KEPT, f"{differs}; the rule keeps it so ({word}: keep)")
    if rule.mode is Mode.OBSERVE:
        return verdict(Means.OBSERVED, f"{differs}; the rule only observes (mode: observe)")
    if memory.contested:
        return verdict(Means.CONTESTED, f"{differs}; somebody has changed it again and again")
    if rule.mode is Mode.PREFER and memory.applied:
        return verdict(Means.LEFT, f"{differs}; what others change is left so (mode: prefer)")
    return verdict(Means.CHANGE, differs, replace(request_of(placed, device), instance=seen.instance))


def difference(seen: Seen, rule: Rule, flavours: Flavours) -> str | None:
    """In what the device is not as the rule says; None if it is."""
    if rule.flavour == DEFAULT:
        return _from_default(seen, flavours) or _from_vfs(seen, rule)
    holder = f"driver {seen.driver}" if seen.driver else "no driver"
    if not dict(seen.proofs).get(flavours.flavours[rule.flavour].proof):
        return f"it has {'been parked and has ' if seen.override == PARKED else ''}{holder}, not flavour {rule.flavour}"
    if seen.override != seen.driver:
        what = "is not set" if seen.override is None else f"says {seen.override}"
        return f"it is in flavour {rule.flavour} with {holder}, but its driver_override {what}"
    return None


def held_by(seen: Seen, flavours: Flavours) -> str:
    """The flavour that has the device now."""
    proofs = dict(seen.proofs)
    return next((name for name, flavour in flavours.flavours.items() if proofs.get(flavour.proof)), DEFAULT)


def keeps(seen: Seen, placed: PlacedRule | None, flavours: Flavours, unexpected: str | None = None) -> bool:
    """Whether a device that has just been made shall never have its native driver: the rule will have it soon."""
    if placed is None or placed.rule.flavour == DEFAULT:
        return False
    return judge(replace(seen, proofs=()), placed, Memory(), flavours, unexpected).means is Means.CHANGE


def request_of(placed: PlacedRule, device: DeviceId) -> Request:
    """What the rule asks for."""
    rule = placed.rule
    named = [one if isinstance(one, NamedCandidate) else NamedCandidate(one) for one in rule.candidates]
    return Request(
        device,
        rule.flavour,
        Origin.POLICY,
        candidates=tuple(one.module for one in named),
        forced=frozenset(one.module for one in named if one.force),
        deny=rule.deny,
        guards=tuple(sorted(rule.guards.items())),
        vfs=rule.vfs,
        rule=str(placed),
    )


# ---


def _beyond(seen: Seen, rule: Rule, flavours: Flavours) -> str | None:
    """Why the rule can do nothing with the device, whatever state it is in."""
    device = seen.id
    if rule.flavour == DEFAULT:
        if rule.vfs is not None and seen.sriov is None:
            return "it is no PF, so it can have no VFs"
        return None
    if rule.flavour not in flavours.flavours:
        return f"there is no flavour {rule.flavour} any more"
    if device.bus not in flavours.flavours[rule.flavour].buses:
        return f"flavour {rule.flavour} says nothing about bus {device.bus}"
    if seen.bridge:
        return "it is a bridge: bridges stay with the host"
    if not seen.overridable:
        return "it has no driver_override"
    return None


def _as_it_shall_be(seen: Seen, rule: Rule) -> str:
    """In default, what keeps a device from a native driver is not of our making, and it may have none."""
    parts = [f"it is in flavour {rule.flavour} as the rule says"]
    if rule.flavour == DEFAULT and seen.driver is None:
        parts.append("it has no driver")
    if rule.flavour == DEFAULT and seen.override is not None:
        parts.append(f"its driver_override says {seen.override}")
    return "; ".join(parts)


def _from_default(seen: Seen, flavours: Flavours) -> str | None:
    if (name := held_by(seen, flavours)) != DEFAULT:
        return f"it is in flavour {name} with driver {seen.driver}, not with its native driver"
    return "it is parked without a driver" if seen.override == PARKED else None


def _from_vfs(seen: Seen, rule: Rule) -> str | None:
    if rule.vfs is None or seen.sriov is None or seen.sriov.vfs == rule.vfs:
        return None
    return f"it has {seen.sriov.vfs} VFs, not {rule.vfs}"
