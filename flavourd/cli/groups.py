# SPDX-License-Identifier: LGPL-2.1-or-later
"""IOMMU groups, as the devices' own facts tell them: user space opens all of a group or nothing of it."""

from __future__ import annotations

from flavourd.cli.names import short

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from flavourd.cli.exits import Json


def by_group(devices: Sequence[Json]) -> dict[str, list[Json]]:
    """Members of each group, groups by number; devices without one under ""."""
    groups: dict[str, list[Json]] = {}
    for device in devices:
        groups.setdefault(device.get("iommu_group") or "", []).append(device)
    return dict(sorted(groups.items(), key=lambda item: (not item[0], len(item[0]), item[0])))


def claimed(members: Sequence[Json]) -> list[str]:
    """The flavours, other than the native one, that hold a member."""
    return sorted({str(member.get("flavour")) for member in members} - {"default", "None"})


def blockers(members: Sequence[Json]) -> list[Json]:
    return [member for member in members if member.get("blocks_group")]


def state(members: Sequence[Json]) -> str:
    """host: nobody asks for it; viable: user space may open it; not viable: it would not be let."""
    if not claimed(members):
        return "host"
    return "not viable" if blockers(members) else "viable"


def told(members: Sequence[Json]) -> str:
    """The state in words."""
    match state(members):
        case "not viable":
            names = [f"{short(str(each.get('id')))} ({each.get('driver')})" for each in blockers(members)]
            return f"not viable for {', '.join(claimed(members))}: {kept_closed(names)}"
        case "viable":
            return f"viable for {', '.join(claimed(members))}"
        case host:
            return host


def kept_closed(names: Sequence[str]) -> str:
    return f"{', '.join(names)} {'keeps' if len(names) == 1 else 'keep'} it from being opened"
