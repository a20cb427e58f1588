# SPDX-License-Identifier: LGPL-2.1-or-later
"""`flavourctl list`: a line a device."""

from __future__ import annotations

from flavourd.cli.exits import Exit
from flavourd.cli.names import Names, short
from flavourd.cli.table import table
from flavourd.cli.texts import description, holder, names_on, variants

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

    from flavourd.cli.client import Client
    from flavourd.cli.exits import Json
    from flavourd.cli.screen import Screen

_HEADER = ("DEVICE", "FLAVOUR", "DRIVER", "GROUP", "VARIANT", "NAMES", "DESCRIPTION")


def run(arguments: Namespace, client: Client, screen: Screen) -> int:
    found = [device for device in Names(client).chosen(arguments.devices) if _wanted(device, arguments)]
    if arguments.json != "off":
        screen.print_json(found, arguments.json)
    else:
        screen.print(table(screen, map(_row, found), _HEADER if arguments.legend else (), "device"))
    return Exit.OK


def _row(device: Json) -> list[str]:
    return [
        short(str(device.get("id"))),
        holder(device),
        device.get("driver") or "",
        device.get("iommu_group") or "",
        ",".join(closest[0] for closest in variants(device).values()),
        names_on(device),
        description(device),
    ]


def _wanted(device: Json, arguments: Namespace) -> bool:
    return (
        (arguments.of_class is None or _of_class(device, arguments.of_class.lower()))
        and arguments.flavour in (None, device.get("flavour"))
        and arguments.driver in (None, device.get("driver") or "-")
        and arguments.group in (None, device.get("iommu_group"))
    )


def _of_class(device: Json, text: str) -> bool:
    code, name = device.get("class_code") or "", device.get("class_name") or ""
    return code.startswith(text.removeprefix("0x")) or text in name.lower()
