# SPDX-License-Identifier: LGPL-2.1-or-later
"""`flavourctl explain`: what setting a flavour would do, and why; or what a code or a guard means."""

from __future__ import annotations

from flavourd.cli.codes import codes, plain, section
from flavourd.cli.exits import Exit, Failure, worst
from flavourd.cli.names import Names
from flavourd.cli.plans import plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

    from flavourd.cli.client import Client
    from flavourd.cli.exits import Json
    from flavourd.cli.screen import Screen

_WIDTH = 80


def run(arguments: Namespace, client: Client, screen: Screen) -> int:
    (word,) = arguments.devices
    if arguments.into is None and (text := section(word)):
        if arguments.json != "off":
            screen.print_json({"code": word, "text": text}, arguments.json)
        else:
            screen.print([screen.bold(word), *plain(text, screen.width or _WIDTH)])
        return Exit.OK
    names = Names(client, others=codes() if arguments.into is None else ())
    plans = [each for device in names.ids([word]) for each in _plans(arguments, client, names, device)]
    if arguments.json != "off":
        screen.print_json(plans, arguments.json)
    else:
        screen.print(line for each in plans for line in plan(screen, each))
    return worst(plans) if arguments.into else Exit.OK


def _plans(arguments: Namespace, client: Client, names: Names, device: str) -> list[Json]:
    asked = {"flavour": arguments.into, "candidates": arguments.candidates, "force": arguments.force}
    try:
        return client.call("Explain", device=device, **asked).get("plans") or []
    except Failure as failure:
        raise names.nearer(failure, [device]) from None
