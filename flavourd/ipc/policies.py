# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the policy on disk means for devices, told to callers; and what of it is in force."""

import asyncio
from dataclasses import replace
from functools import partial

from flavourd.desk import Desk
from flavourd.device import DeviceId
from flavourd.ipc import wire
from flavourd.ipc.asked import no_device
from flavourd.ipc.replies import Diff, Matched
from flavourd.keeper.keeper import Keeper
from flavourd.keeper.look import Eyes, Sighting, adopted
from flavourd.policy.language import PlacedRule
from flavourd.verdict import judge


async def matched(device: DeviceId, desk: Desk, keeper: Keeper) -> Matched:
    """FlavourError(POLICY) if the policy on disk cannot be read, (NO_DEVICE) without such a device."""
    eyes = await keeper.force.on_disk()
    found = await desk.sight.look_at(device, partial(eyes.sightings, [device], everything=True))
    others: dict[DeviceId, PlacedRule] = {}
    if found and not found[0].placed and (others := await _by_group(device, eyes, desk)):
        found = await desk.sight.look_at(device, partial(eyes.sightings, [device], others, everything=True))
    if not found:
        raise no_device(device)
    verdict = _verdict(found[0], eyes, keeper)
    if device in others:
        verdict = replace(verdict, text=f"{verdict.text}; it goes with another member of its IOMMU group (group: true)")
    return Matched(
        verdict=verdict,
        rules=wire.Why.all(eyes.matcher.explain(found[0].seen.traits)),
        loaded=_is_loaded(eyes, keeper),
    )


async def diff(desk: Desk, keeper: Keeper) -> Diff:
    """Of all devices that a rule matches. FlavourError(POLICY) if the policy on disk cannot be read."""
    eyes = await keeper.force.on_disk()
    unseen = frozenset({*desk.turns.steps, *desk.sight.asleep})
    found = await desk.sight.look_over(partial(eyes.all_sightings, unseen))
    verdicts = [_verdict(each, eyes, keeper) for each in found if each.placed]
    return Diff(
        verdicts=sorted(verdicts, key=lambda each: each.device),
        unseen=list(map(str, sorted(unseen))),
        loaded=_is_loaded(eyes, keeper),
    )


def standing(keeper: Keeper) -> wire.PolicyStanding:
    force = keeper.force
    return wire.PolicyStanding(
        rules=len(force.policy.rules),
        files=list(force.policy.files),
        since=force.since,
        error=force.error.sentence if force.error else None,
        contested=list(map(str, keeper.memories.contested)),
    )


# ---


async def _by_group(device: DeviceId, eyes: Eyes, desk: Desk) -> dict[DeviceId, PlacedRule]:
    """The rule by which a device without one goes with another member of its IOMMU group."""
    members = [member for member in desk.host.kin.group(device) if member != device]
    looks = (desk.sight.look_at(member, partial(eyes.sightings, [member])) for member in members)
    return adopted([each for found in await asyncio.gather(*looks) for each in found], desk.host.kin)


def _verdict(sighting: Sighting, eyes: Eyes, keeper: Keeper) -> wire.Verdict:
    remembered = keeper.memories.remembered(sighting)
    if not _is_loaded(eyes, keeper):  # who reads it anew begins anew
        remembered = replace(remembered, contested=False)
    verdict = judge(sighting.seen, sighting.placed, remembered, eyes.flavours, sighting.unexpected)
    return wire.Verdict.of(verdict, sighting.seen, eyes.flavours)


def _is_loaded(eyes: Eyes, keeper: Keeper) -> bool:
    return eyes.policy == keeper.force.policy
