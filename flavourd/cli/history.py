# SPDX-License-Identifier: LGPL-2.1-or-later
"""`flavourctl history`: what became of the last requests."""

from __future__ import annotations

from flavourd.cli import texts
from flavourd.cli.exits import Exit
from flavourd.cli.names import Names, short
from flavourd.cli.table import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from flavourd.cli.client import Client
    from flavourd.cli.exits import Json
    from flavourd.cli.screen import Screen

_HEADER = ("TIME", "DEVICE", "FLAVOUR", "RESULT", "DRIVER", "CODE", "BY")


def run(arguments: Namespace, client: Client, screen: Screen) -> int:
    device = None
    if arguments.devices:
        (device,) = Names(client).ids([arguments.devices])
    outcomes = client.call("History", device=device, limit=arguments.lines).get("outcomes") or []
    if arguments.json != "off":
        screen.print_json(outcomes, arguments.json)
    elif arguments.full:
        screen.print(line for outcome in outcomes for line in _whole(screen, outcome))
    else:
        header = _HEADER if arguments.legend else ()
        screen.print(table(screen, map(_row, outcomes), header, "outcome"))
    return Exit.OK


def _row(outcome: Json) -> list[str]:
    return [
        texts.when(outcome.get("time")),
        short(str(outcome.get("device"))),
        outcome.get("flavour") or "",
        outcome.get("kind") or "",
        outcome.get("driver") or "",
        outcome.get("code") or "",
        texts.asker(outcome),
    ]


def _whole(screen: Screen, outcome: Json) -> Iterator[str]:
    headline, *more = texts.outcome(screen, outcome)
    yield f"{texts.when(outcome.get('time'))} {headline}"
    yield f"  asked by {texts.asker(outcome)}"
    yield from more
