# SPDX-License-Identifier: LGPL-2.1-or-later
"""`flavourctl monitor`: what flavourd does, as it does it."""

from __future__ import annotations

from flavourd.cli import texts
from flavourd.cli.exits import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from flavourd.cli.client import Client
    from flavourd.cli.exits import Json
    from flavourd.cli.screen import Screen


def run(arguments: Namespace, client: Client, screen: Screen) -> int:
    for event in client.stream("Monitor"):
        if arguments.json == "off":
            screen.print(_lines(screen, event))
        elif any(event.values()):  # the first one is empty
            screen.print_json(event, arguments.json)
    return Exit.OK


def _lines(screen: Screen, event: Json) -> Iterator[str]:
    if lost := event.get("lost"):
        yield screen.yellow(f"left out here, for they came faster than they were read: {texts.counted(lost, 'event')}")
    if step := event.get("step"):
        yield f"{texts.when(step.get('time'), '%H:%M:%S')} {screen.bold(str(step.get('device')))}  {step.get('text')}"
    if outcome := event.get("outcome"):
        headline, *more = texts.outcome(screen, outcome)
        yield f"{texts.when(outcome.get('time'), '%H:%M:%S')} {headline}"
        yield from more
