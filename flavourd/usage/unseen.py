# SPDX-License-Identifier: LGPL-2.1-or-later
"""What cannot be looked at counts as being used, where the facts say that it may be."""

from collections.abc import Iterator

from flavourd.facts import Unseen, Use
from flavourd.usage.held import Held
from flavourd.usage.network import Network
from flavourd.usage.part import Part
from flavourd.usage.storage import Storage
from flavourd.use import Guard


def unseen(each: Part, use: Use, held: Held, storage: Storage, network: Network) -> Iterator[Unseen]:
    """use: what was seen."""
    if held.missed and each.pinned and not use.holders:
        yield Unseen(Guard.HELD, (), files_of(held))
    opened = {one.node for one in use.opened}
    nodes = tuple(node for node in sorted(each.nodes) if node not in opened)
    if held.missed and nodes:
        yield Unseen(Guard.OPEN, nodes, files_of(held))
    disks = tuple(volume.name for volume in use.volumes if not volume.stands_on and not volume.mounted)
    if storage.missed and disks:
        yield Unseen(Guard.MOUNTED, disks, mounts_of(storage))
    if network.unasked and (names := tuple(filter(network.is_up, each.found.networks))):
        yield Unseen(Guard.ROUTE, names, network.unasked)


def files_of(held: Held) -> str:
    return f"open files of {held.missed} could not be looked at"


def mounts_of(storage: Storage) -> str:
    return f"mounts of {storage.missed} could not be looked at"
