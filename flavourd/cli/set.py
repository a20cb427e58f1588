# SPDX-License-Identifier: LGPL-2.1-or-later
"""`flavourctl set` and `flavourctl reset`: have devices switched, and tell of each what became of it, as it comes."""

from __future__ import annotations

from flavourd.cli.exits import ConnectionLost, Exit, Failure, worst
from flavourd.cli.names import Names, address
from flavourd.cli.plans import plan
from flavourd.cli.switching import Switching

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

    from flavourd.cli.client import Client
    from flavourd.cli.exits import Json
    from flavourd.cli.screen import Screen

_MOST = 500


def run(arguments: Namespace, client: Client, screen: Screen) -> int:
    names = Names(client)
    if address(arguments.into):
        usage = "flavourctl set DEV... FLAVOUR"
        raise Failure(Exit.USAGE, f"{arguments.into} is a device, and the flavour comes last", usage)
    devices = names.ids(arguments.devices)
    asked: Json = {"devices": devices, "force": arguments.force, "group": arguments.group, "persist": arguments.persist}
    if arguments.verb == "set":
        asked |= {"flavour": arguments.into, "candidates": arguments.candidates}
    act = _plan if arguments.dry_run else _switch
    try:
        return act(arguments, client, screen, asked)
    except Failure as failure:
        raise names.nearer(failure, devices) from None


def _history(client: Client) -> list[Json] | None:
    """What became of requests meanwhile. By a new connection, which over ssh might ask for a password."""
    try:
        outcomes: list[Json] = client.call("History", limit=_MOST).get("outcomes") or []
    except Failure:
        return None
    finally:
        client.close()
    return outcomes


def _plan(arguments: Namespace, client: Client, screen: Screen, asked: Json) -> int:
    plans = client.call(arguments.verb.capitalize(), **asked, dry_run=True).get("plans") or []
    if arguments.json != "off":
        screen.print_json(plans, arguments.json)
    else:
        screen.print(line for each in plans for line in plan(screen, each))
    return worst(plans)


def _switch(arguments: Namespace, client: Client, screen: Screen, asked: Json) -> int:
    show = f"flavourctl -H {arguments.host} show" if arguments.host else "flavourctl show"
    told_at = None if arguments.json != "off" else screen
    switching = Switching(asked["devices"], show, told_at, together=bool(arguments.group))
    failure: Failure | None
    try:
        for answer in client.stream(arguments.verb.capitalize(), **asked):
            switching.hear(answer)
        failure = switching.failure()
    except KeyboardInterrupt:
        client.close()
        failure = switching.interrupted(None if arguments.host else _history(client))
    except ConnectionLost as lost:
        failure = switching.lost(lost)
    except Failure as error:
        switching.hear(error.fields)  # NotDone repeats all outcomes; Refused has none
        failure = (switching.failure() or error) if switching.outcomes else error
    switching.be_quiet()
    if arguments.json != "off" and (switching.outcomes or not failure):
        screen.print_json(switching.outcomes, arguments.json)
    if failure:
        raise failure
    return Exit.OK
