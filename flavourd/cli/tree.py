# SPDX-License-Identifier: LGPL-2.1-or-later
"""`flavourctl tree`: the IOMMU groups as a picture."""

from __future__ import annotations

from flavourd.cli import groups
from flavourd.cli.exits import Exit
from flavourd.cli.names import Names, short
from flavourd.cli.table import table
from flavourd.cli.texts import description, holder, names_on

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Sequence

    from flavourd.cli.client import Client
    from flavourd.cli.exits import Json
    from flavourd.cli.screen import Screen


def run(arguments: Namespace, client: Client, screen: Screen) -> int:
    names = Names(client)
    shown = [device.get("iommu_group") or device.get("id") for device in names.chosen(arguments.devices)]
    found = {
        group: [member for member in members if (group or member.get("id")) in shown]
        for group, members in groups.by_group(names.devices).items()
        if arguments.all or arguments.devices or not all(member.get("bridge") for member in members)
    }
    found = {group: members for group, members in found.items() if members}
    if arguments.json != "off":
        screen.print_json([_as_json(group, members) for group, members in found.items()], arguments.json)
    else:
        screen.print(_lines(screen, found))
    return Exit.OK


def _as_json(group: str, members: Sequence[Json]) -> Json:
    kept_by = [member.get("id") for member in groups.blockers(members)] if group else []
    state = groups.state(members) if group else None
    return {"iommu_group": group or None, "state": state, "blockers": kept_by, "devices": members}


def _lines(screen: Screen, found: dict[str, list[Json]]) -> Iterator[str]:
    middle, last, dot = ("├─", "└─", "·") if screen.shows("├─└·") else ("|-", "`-", "-")
    rows = [_row(last if member is members[-1] else middle, member) for members in found.values() for member in members]
    leaves = table(screen, rows)
    for group, members in found.items():
        yield (
            screen.bold(f"group {group}") + f" {dot} {groups.told(members)}" if group else screen.bold("no IOMMU group")
        )
        for _ in members:
            yield next(leaves)


def _row(branch: str, device: Json) -> list[str]:
    return [
        f"{branch} {short(str(device.get('id')))}",
        device.get("driver") or "",
        holder(device),
        names_on(device),
        description(device) + (f" (VF of {short(str(device['pf']))})" if device.get("pf") else ""),
    ]
