# SPDX-License-Identifier: LGPL-2.1-or-later
"""`--persist`: an explicit request becomes a small policy file, and is given up as one. Runs in a worker."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flavourd.candidates import is_pattern
from flavourd.desk import Desk
from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.flavour import DEFAULT, Flavours
from flavourd.identity import Identities
from flavourd.keeper.keeper import Keeper
from flavourd.policy import persisted
from flavourd.policy.files import PLACES
from flavourd.policy.language import Mode, PlacedRule, Rule, When
from flavourd.policy.load import FOLDER, load, read_policy
from flavourd.policy.match import Matcher
from flavourd.request import Request
from flavourd.traits import Traits
from flavourd.use import Guard


@dataclass(frozen=True)
class _Written:
    """note: what was done, in words. holds: the policy says now what was asked for explicitly."""

    note: str
    holds: bool


async def persist(wanted: Sequence[tuple[Request, str]], desk: Desk, keeper: Keeper) -> list[str]:
    """Have the policy say from now on what was asked for, and came true. What was done for each, in words.

    wanted: requests with their flavours. FlavourError if a file cannot be written, or the policy cannot be read any
    more; what was asked for explicitly holds until the next boot then.
    """
    try:
        written = await desk.sight.look(partial(_write, keeper.root, wanted, desk.flavours))
    except FlavourError as error:
        sentence = f"that could not be written down for the next boot: {error.sentence}"
        raise FlavourError(error.code, sentence, error.hint) from error
    notes = [each.note for each in written]
    try:
        await keeper.reload()
    except FlavourError as error:
        sentence = f"the policy could not be read anew ({'; '.join(notes)}): {error.sentence}"
        raise FlavourError(error.code, sentence, error.hint or "flavourctl reload") from error
    # Not before: until then the policy that was in force would take the device back.
    for (request, _), each in zip(wanted, written, strict=True):
        if each.holds:
            keeper.wishing.drop(request.device)
    return notes


def _write(root: Path, wanted: Sequence[tuple[Request, str]], flavours: Flavours) -> list[_Written]:
    identities = Identities(root, flavours.proofs)
    written = []
    for request, flavour in wanted:
        seen = identities.seen(request.device)
        if seen is None and flavour == DEFAULT:
            written.append(_taken_away(request.device, persisted.remove(root, request.device)))
        elif seen is None:
            written.append(_Written("it is gone, so nothing was written down", holds=True))
        elif flavour == DEFAULT:
            written.append(_given_up(root, seen.traits, flavours))
        else:
            written.append(_kept(root, request, flavour, seen.traits, flavours))
    return written


def _kept(root: Path, request: Request, flavour: str, traits: Traits, flavours: Flavours) -> _Written:
    before, stopped = _rule(root, request.device, flavours)
    own = before is not None and Path(before.file).name == persisted.file_name(request.device)
    if before and not own and not stopped and not request.candidates and _keeps(before.rule, flavour):
        return _Written(f"{before} keeps it so", holds=True)
    # Patterns and words like @alias stand for what a table lists: they cannot be forced.
    plain = [name for name in request.candidates if not is_pattern(name) and not name.startswith("@")]
    forced = plain if Guard.TABLE in request.force else []
    text = persisted.text(request.device, flavour, request.candidates, forced, traits)
    file = _put(root, request.device, text, flavours)
    placed, _ = _rule(root, request.device, flavours)
    if placed is None or placed.file != str(file):
        other = placed or "no rule"
        return _Written(f"{file} would keep it so, but {other} comes first; it stays so until the next boot", False)
    instead = f"; {before} is not asked for it any more" if before and not own else ""
    return _Written(f"{file} keeps it so{instead}", holds=True)


def _keeps(rule: Rule, flavour: str) -> bool:
    """Whether a file for the device alone would say no more, and perhaps less, than this rule."""
    return (rule.flavour, rule.mode, rule.present, rule.inserted) == (flavour, Mode.ENFORCE, When.APPLY, When.APPLY)


def _given_up(root: Path, traits: Traits, flavours: Flavours) -> _Written:
    device = traits.id
    removed = persisted.remove(root, device)
    placed, _ = _rule(root, device, flavours)
    if placed and placed.rule.flavour != DEFAULT:
        file = _put(root, device, persisted.text(device, DEFAULT, expect=traits), flavours)
        first, _ = _rule(root, device, flavours)
        if first and first.file != str(file):
            return _Written(f"{file} would keep it so, but {first} comes first; it stays so until the next boot", False)
        return _Written(f"{file} keeps it so: {placed} would put it into flavour {placed.rule.flavour}", holds=True)
    return _taken_away(device, removed)


def _taken_away(device: DeviceId, removed: bool) -> _Written:
    note = f"{persisted.file_name(device)} is gone" if removed else "no policy file was for it"
    return _Written(note, holds=True)


def _put(root: Path, device: DeviceId, text: str, flavours: Flavours) -> Path:
    """Only if the whole policy holds with it: else there would be none at all at the next boot."""
    file = root / PLACES[0] / FOLDER / persisted.file_name(device)
    if broken := load(root, flavours.names, (file, text)).errors:
        told = " | ".join(map(str, broken))
        raise FlavourError(Code.POLICY, told, "nothing was written; see flavourctl policy check")
    return persisted.write(root, device, text)


def _rule(root: Path, device: DeviceId, flavours: Flavours) -> tuple[PlacedRule | None, bool]:
    """The one that is for the device now, and whether it does nothing with it, for it expects other hardware."""
    matcher = Matcher(read_policy(root, flavours.names))
    seen = Identities(root).seen(device, matcher.needs)
    placed = matcher.rule(seen.traits) if seen else None
    return placed, bool(seen and placed and matcher.expected(placed, seen.traits))
