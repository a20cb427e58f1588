# SPDX-License-Identifier: LGPL-2.1-or-later
"""`flavourctl cancel`: withdraw what has not begun."""

from __future__ import annotations

from flavourd.cli.exits import Exit, Failure
from flavourd.cli.names import Names
from flavourd.cli.texts import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

    from flavourd.cli.client import Client
    from flavourd.cli.screen import Screen


def run(arguments: Namespace, client: Client, screen: Screen) -> int:
    """That nothing was waiting is no error, as with `systemctl cancel`: nothing waits now."""
    names = Names(client)
    devices = names.ids(arguments.devices)
    try:
        told = client.call("Cancel", devices=devices)
    except Failure as failure:
        raise names.nearer(failure, devices) from None
    if arguments.json != "off":
        screen.print_json(told, arguments.json)
    elif count := told.get("withdrawn"):
        screen.print([f"{counted(count, 'request')} withdrawn; what has begun goes on"])
    else:
        whom = devices[0] if len(devices) == 1 else f"these {len(devices)} devices"
        screen.print([f"nothing of {whom} was waiting; what has begun goes on"])
    return Exit.OK
