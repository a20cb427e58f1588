# SPDX-License-Identifier: LGPL-2.1-or-later
"""`flavourctl policy match`: which rule is for a device, why, and why not the others."""

from __future__ import annotations

from flavourd.cli.each import ask_each
from flavourd.cli.table import columns
from flavourd.cli.texts import on_disk_only, rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from flavourd.cli.client import Client
    from flavourd.cli.exits import Json
    from flavourd.cli.screen import Screen


def run(arguments: Namespace, client: Client, screen: Screen) -> int:
    return ask_each(arguments, client, screen, "MatchPolicy", lambda device, told, _: _lines(screen, device, told))


def _lines(screen: Screen, device: str, told: Json) -> Iterator[str]:
    verdict: Json = told.get("verdict") or {}
    found: Json = verdict.get("rule") or {}
    who = screen.bold(str(verdict.get("device") or device))
    if found:
        yield f"{who}: flavour {found.get('flavour')}, mode {found.get('mode')}, says {rule(found)}"
        yield f"  {verdict.get('means')}: {verdict.get('text')}"
    else:
        yield f"{who}: no rule is for it, so it is left alone"
    rows = [_row(why, found) for why in told.get("rules") or []]
    yield from columns(rows) if rows else ()
    yield from on_disk_only(screen, told)


def _row(why: Json, found: Json) -> tuple[str, ...]:
    of: Json = why.get("rule") or {}
    is_it = bool(found) and of.get("number") == found.get("number")
    mark = "=>" if is_it else "  "
    return f"{mark} {int(of.get('number') or 0) + 1}.", rule(of), str(why.get("reason"))
