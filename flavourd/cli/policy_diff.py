# SPDX-License-Identifier: LGPL-2.1-or-later
"""`flavourctl policy diff`: what the policy files, as they are now, would change on this host."""

from __future__ import annotations

from flavourd.cli.exits import Exit
from flavourd.cli.names import short
from flavourd.cli.table import table
from flavourd.cli.texts import counted, on_disk_only, rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from flavourd.cli.client import Client
    from flavourd.cli.exits import Json
    from flavourd.cli.screen import Screen

_HEADER = ("DEVICE", "DRIVER", "FLAVOUR", "RESULT", "RULE", "WHY")


def run(arguments: Namespace, client: Client, screen: Screen) -> int:
    told = client.call("DiffPolicy")
    if arguments.json != "off":
        screen.print_json(told, arguments.json)
    else:
        screen.print(_lines(screen, told, everything=arguments.all, legend=arguments.legend))
    return Exit.OK


def _lines(screen: Screen, told: Json, *, everything: bool, legend: bool) -> Iterator[str]:
    verdicts = told.get("verdicts") or []
    shown = [verdict for verdict in verdicts if everything or verdict.get("means") == "change"]
    if shown:
        yield from table(screen, map(_row, shown), _HEADER if legend else (), "device")
    if not legend:
        return
    unseen = told.get("unseen") or []
    if unseen:
        yield f"not looked at, for they are being switched or stuck: {', '.join(map(short, unseen))}"
    if not verdicts:
        yield "no rule is for any other device" if unseen else "no rule is for any device of this host"
    elif not any(verdict.get("means") == "change" for verdict in verdicts):
        yield "nothing else would change" if unseen else "nothing would change"
    if left := len(verdicts) - len(shown):
        yield f"{counted(left, 'device')} with a rule would be left: --all tells why"
    yield from on_disk_only(screen, told)


def _row(verdict: Json) -> list[str]:
    return [
        short(str(verdict.get("device"))),
        verdict.get("driver") or "",
        verdict.get("flavour") or "",
        verdict.get("means") or "",
        rule(verdict["rule"]) if verdict.get("rule") else "",
        verdict.get("text") or "",
    ]
