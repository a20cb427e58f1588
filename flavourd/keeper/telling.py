# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is told of a device under policy where no outcome tells it."""

from pathlib import Path

from flavourd import logs
from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.policy.language import PlacedRule
from flavourd.traits import Seen
from flavourd.verdict import Means, Verdict


def drift(root: Path, seen: Seen, verdict: Verdict, count: int, *, contested: bool) -> None:
    """Somebody has changed it. count: how often, lately. contested: so often that it is left to him."""
    known = _what_is_known(root, seen)
    sentence = f"somebody has changed {seen.id}, which {verdict.placed} is for: {known}; {verdict.sentence}"
    if contested:
        sentence += f"; that was {count} times within minutes, and it is left to him now"
        hint = f"let one of the two have the device; then flavourctl set {seen.id} FLAVOUR, or flavourctl reload"
    elif verdict.means is Means.LEFT:
        hint = ""
    else:
        sentence += "; it is brought back"
        hint = "let one of the two have the device"
    _tell(
        FlavourError(Code.CONTESTED, sentence, hint), logs.ERROR if contested else logs.WARNING, seen.id, verdict.placed
    )


def stopped(seen: Seen, verdict: Verdict) -> None:
    sentence = f"{seen.id}: {verdict.sentence} ({verdict.placed}); it is left alone"
    hint = "the address has moved to other hardware, most likely: mend `expect`, or the address"
    _tell(FlavourError(Code.UNEXPECTED, sentence, hint), logs.WARNING, seen.id, verdict.placed)


def observed(seen: Seen, verdict: Verdict) -> None:
    placed = verdict.placed
    flavour = placed.rule.flavour if placed else ""
    message = f"{seen.id} would be put into flavour {flavour} by {placed}: {verdict.sentence}"
    logs.tell_of(message, logs.NOTICE, {"FLAVOURD_DEVICE": str(seen.id), "FLAVOURD_RULE": str(placed)})


def refused(error: FlavourError, placed: PlacedRule, device: DeviceId | None) -> None:
    _tell(error, logs.WARNING, device, placed)


# ---


def _what_is_known(root: Path, seen: Seen) -> str:
    holder = f"driver {seen.driver} has it now" if seen.driver else "it has no driver now"
    override = f"driver_override says {seen.override}" if seen.override else "driver_override is not set"
    found = f"{holder}, {override}"
    # What driverctl sets with `set-override` comes again at each boot.
    name = f"{seen.id.bus}-{seen.id.name}"
    if (root / "etc/driverctl.d" / name).exists():
        found += f", driverctl has a line for it (/etc/driverctl.d/{name}; driverctl unset-override {seen.id.name})"
    return found


def _tell(error: FlavourError, priority: int, device: DeviceId | None, placed: PlacedRule | None) -> None:
    fields = {"FLAVOURD_RULE": str(placed)} | ({"FLAVOURD_DEVICE": str(device)} if device else {})
    logs.tell_trouble(error, priority, fields)
