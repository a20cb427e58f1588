# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ask the same of each device that was named, and tell the answers one below the other."""

from __future__ import annotations

from flavourd.cli.exits import Exit, Failure
from flavourd.cli.names import Names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterable

    from flavourd.cli.client import Client
    from flavourd.cli.exits import Json
    from flavourd.cli.screen import Screen


def ask_each(
    arguments: Namespace,
    client: Client,
    screen: Screen,
    method: str,
    lines: Callable[[str, Json, Names], Iterable[str]],
) -> int:
    """lines: of the answer about a device, for people."""
    names = Names(client)
    for number, device in enumerate(names.ids(arguments.devices)):
        try:
            told = client.call(method, device=device)
        except Failure as failure:
            raise names.nearer(failure, [device]) from None
        if arguments.json != "off":
            screen.print_json(told, arguments.json)
        else:
            screen.print([*([""] if number else []), *lines(device, told, names)])
    return Exit.OK
