# SPDX-License-Identifier: LGPL-2.1-or-later
"""`--persist`: an explicit request becomes a small policy file, and is given up as one. Runs in a worker."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from flavourd.desk import Desk
from flavourd.device import DeviceId
from flavourd.flavour import DEFAULT, Flavours
from flavourd.identity import Identities
from flavourd.keeper.keeper import Keeper
from flavourd.policy import persisted
from flavourd.policy.language import PlacedRule
from flavourd.policy.load import read_policy
from flavourd.policy.match import Matcher
from flavourd.request import Request
from flavourd.traits import Traits
from flavourd.use import Guard


async def persist(wanted: Sequence[tuple[Request, str]], desk: Desk, keeper: Keeper) -> list[str]:
    """Have the policy say from now on what was asked for, and came true. What was done for each, in words.

    wanted: requests with their flavours. FlavourError(POLICY) if a file cannot be written, or the policy cannot be read
    any more.
    """
    notes = await desk.sight.look(partial(_write, keeper.root, wanted, desk.flavours))
    for request, _ in wanted:
        keeper.wishing.drop(request.device)
    await keeper.reload()
    return notes


def _write(root: Path, wanted: Sequence[tuple[Request, str]], flavours: Flavours) -> list[str]:
    identities = Identities(root, flavours.proofs)
    notes = []
    for request, flavour in wanted:
        seen = identities.seen(request.device)
        if seen is None:
            notes.append("it is gone, so nothing was written down")
        elif flavour == DEFAULT:
            notes.append(_given_up(root, seen.traits, flavours))
        else:
            notes.append(_kept(root, request, flavour, seen.traits, flavours))
    return notes


def _kept(root: Path, request: Request, flavour: str, traits: Traits, flavours: Flavours) -> str:
    forced = request.candidates if Guard.TABLE in request.force else ()
    text = persisted.text(request.device, flavour, request.candidates, forced, traits)
    file = persisted.write(root, request.device, text)
    placed = _rule(root, request.device, flavours)
    if placed is None or placed.file != str(file):
        return f"{file} would keep it so, but {placed or 'no rule'} comes first"
    return f"{file} keeps it so"


def _given_up(root: Path, traits: Traits, flavours: Flavours) -> str:
    device = traits.id
    removed = persisted.remove(root, device)
    placed = _rule(root, device, flavours)
    if placed and placed.rule.flavour != DEFAULT:
        file = persisted.write(root, device, persisted.text(device, DEFAULT, expect=traits))
        return f"{file} keeps it so: {placed} would put it into flavour {placed.rule.flavour}"
    return f"{persisted.file_name(device)} is gone" if removed else "no policy file was for it"


def _rule(root: Path, device: DeviceId, flavours: Flavours) -> PlacedRule | None:
    """The one that is for the device now."""
    matcher = Matcher(read_policy(root, flavours.names))
    seen = Identities(root).seen(device, matcher.needs)
    return matcher.rule(seen.traits) if seen else None
