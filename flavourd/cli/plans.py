# SPDX-License-Identifier: LGPL-2.1-or-later
"""What would be done for a request, in words."""

from __future__ import annotations

from flavourd.cli.groups import kept_closed
from flavourd.cli.table import columns
from flavourd.cli.texts import coded, findings, notes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from flavourd.cli.exits import Json
    from flavourd.cli.screen import Screen


def plan(screen: Screen, told: Json) -> Iterator[str]:
    yield f"{screen.bold(str(told.get('device')))} -> {told.get('flavour') or '?'}: {_what(screen, told)}"
    rows = [
        (f"  {number}.", str(candidate.get("module")), str(candidate.get("source")), _why(candidate))
        for number, candidate in enumerate(told.get("candidates") or [], 1)
    ]
    yield from columns(rows)
    yield from (f"  not tried: {skip.get('module')} {skip.get('reason')}" for skip in told.get("skips") or [])
    if group := told.get("iommu_group"):
        blockers = told.get("blockers")
        yield f"  IOMMU group {group}: {kept_closed(blockers)}" if blockers else f"  IOMMU group {group}"
    yield from findings(screen, told)
    yield from notes(screen, told)


def _what(screen: Screen, told: Json) -> str:
    message, driver = str(told.get("message") or ""), told.get("driver")
    match told.get("kind"):
        case "already":
            return f"nothing to do, it is there already, {f'driver {driver}' if driver else 'without a driver'}"
        case "switch" if told.get("flavour") == "default":
            target = told.get("target")
            return f"would be given back to {target}" if target else "would be given back, the bus chooses the driver"
        case "switch":
            return "would be switched, tried in this order:"
        case "refused":
            return f"{screen.red('would be refused:')} {coded(message, told)}"
        case kind:  # of a newer daemon
            return coded(f"{kind} {message}".strip(), told)


def _why(candidate: Json) -> str:
    detail = str(candidate.get("detail") or "")
    match candidate.get("source"):
        case "alias":
            return f"{detail}: its table lists the device"
        case "universal":
            return "takes every device"
        case _:
            return detail
