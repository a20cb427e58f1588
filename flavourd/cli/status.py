# SPDX-License-Identifier: LGPL-2.1-or-later
"""`flavourctl status`: how flavourd itself is doing."""

from __future__ import annotations

from flavourd import __version__
from flavourd.cli.exits import Exit
from flavourd.cli.table import facts
from flavourd.cli.texts import policy, process, when

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from flavourd.cli.client import Client
    from flavourd.cli.exits import Json
    from flavourd.cli.screen import Screen


def run(arguments: Namespace, client: Client, screen: Screen) -> int:
    told = client.call("Status")
    if arguments.json != "off":
        screen.print_json(told, arguments.json)
    else:
        screen.print(_lines(screen, told))
    return Exit.OK


def _lines(screen: Screen, told: Json) -> Iterator[str]:
    version = str(told.get("version"))
    other = "" if version == __version__ else f" (this flavourctl is {__version__})"
    yield screen.bold(f"flavourd {version}") + other
    ready = "yes" if told.get("ready") else "not yet: what was asked for at boot is being done"
    yield from facts(
        [
            ("Since", when(told.get("since"))),
            ("Ready", ready),
            ("Open requests", str(told.get("open") or 0)),
            ("Waiting", str(told.get("waiting") or 0)),
            ("Deadline", f"{told.get('deadline_seconds') or 0:g} s"),
            ("Outcomes", ", ".join(f"{count} {kind}" for kind, count in (told.get("counts") or {}).items() if count)),
            ("Policy", _policy(screen, told.get("policy") or {})),
            ("Contested", [screen.red(device) for device in (told.get("policy") or {}).get("contested") or []]),
            ("Stuck", [_stuck(screen, stuck) for stuck in told.get("stuck") or []]),
            ("Clients", str(told.get("clients") or 0)),
            ("Flavours", [_flavour(flavour) for flavour in told.get("flavours") or []]),
            ("Warnings", [screen.yellow(warning) for warning in told.get("warnings") or []]),
        ]
    )


def _policy(screen: Screen, standing: Json) -> list[str]:
    """What is in force, and why it is not what stands in the files."""
    if not standing:  # of an older daemon
        return []
    files, error = standing.get("files") or [], standing.get("error")
    lines = [policy(standing) + (f", since {when(standing.get('since'))}" if standing.get("since") else "")]
    lines += [f"  {file}" for file in files]
    if error:
        lines += [f"{screen.red('not what stands on disk:')} {error}", "next: flavourctl policy check"]
    return lines


def _stuck(screen: Screen, stuck: Json) -> str:
    told = f"{screen.red(str(stuck.get('device')))} since {when(stuck.get('since'))}, worker {stuck.get('pid')}"
    holders = ", ".join(map(process, stuck.get("holders") or []))
    return f"{told}, held by {holders}" if holders else told


def _flavour(flavour: Json) -> str:
    buses = ", ".join(f"{bus}: {module}" for bus, module in (flavour.get("buses") or {}).items())
    text = f"{flavour.get('name')}: {flavour.get('description') or ''}".rstrip(": ")
    return f"{text} ({buses})" if buses else text
