# SPDX-License-Identifier: LGPL-2.1-or-later
"""`flavourctl policy cat`: the policy files of this host, one after the other, as `systemd-analyze cat-config` does."""

from __future__ import annotations

from flavourd.cli import here
from flavourd.cli.exits import Exit
from flavourd.cli.screen import printable, talk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from flavourd.cli.client import Client
    from flavourd.cli.screen import Screen
    from flavourd.policy.load import Source


def run(arguments: Namespace, client: Client, screen: Screen) -> int:
    here.stay(arguments, "policy cat")
    loaded = here.policy()
    if arguments.json != "off":
        told = [{"path": each.path, "text": each.text, "masked_by": each.masked_by} for each in loaded.sources]
        screen.print_json(told, arguments.json)
    else:
        screen.print(line for number, each in enumerate(loaded.sources) for line in _lines(screen, each, number > 0))
    if loaded.policy:
        return Exit.OK
    talk("flavourctl: there are mistakes in these files\n  flavourctl policy check")
    return Exit.NOT_DONE


def _lines(screen: Screen, source: Source, more: bool) -> Iterator[str]:
    if more:
        yield ""
    if source.text is None:
        why = f"masked by {source.masked_by}" if source.masked_by else "masks others" if source.masks else "not read"
        yield screen.yellow(f"# {source.path} ({why})")
        return
    yield screen.bold(f"# {source.path}")
    for line in source.text.splitlines():
        # A terminal would obey what stands there; who reads from a pipe wants the file.
        yield printable(line.expandtabs()) if screen.tty else line
