# SPDX-License-Identifier: LGPL-2.1-or-later
"""`flavourctl complete`, for the shell: what can stand here, a word a line. It never complains while somebody types."""

from __future__ import annotations

from contextlib import suppress

from flavourd.cli.codes import codes
from flavourd.cli.exits import Exit, Failure
from flavourd.cli.options import GUARDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from flavourd.cli.client import Client
    from flavourd.cli.screen import Screen


def run(arguments: Namespace, client: Client, screen: Screen) -> int:
    words = {"devices": _devices, "flavours": _flavours, "codes": _codes, "guards": _guards}[arguments.what]
    with suppress(Failure):
        screen.print([*words(client)])
    return Exit.OK


def _devices(client: Client) -> Iterator[str]:
    for device in client.call("List").get("devices") or []:
        yield str(device.get("id")).partition("/")[2]
        yield from device.get("interfaces") or []
        yield from device.get("interfaces_before") or []
        yield from device.get("disks") or []


def _codes(_: Client) -> Iterator[str]:
    return iter(codes())


def _guards(_: Client) -> Iterator[str]:
    return iter(GUARDS)


def _flavours(client: Client) -> Iterator[str]:
    names = [str(flavour.get("name")) for flavour in client.call("Status").get("flavours") or []]
    yield from dict.fromkeys([*names, "default"])
