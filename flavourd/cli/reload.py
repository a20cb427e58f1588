# SPDX-License-Identifier: LGPL-2.1-or-later
"""`flavourctl reload`: have flavourd read its configuration and the policy anew. `systemctl reload` calls it, too."""

from __future__ import annotations

from flavourd.cli.exits import Exit
from flavourd.cli.texts import policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

    from flavourd.cli.client import Client
    from flavourd.cli.screen import Screen


def run(arguments: Namespace, client: Client, screen: Screen) -> int:
    client.call("Reload")
    if arguments.json != "off":
        screen.print_json({}, arguments.json)
    else:
        standing = client.call("Status").get("policy") or {}
        screen.print([f"flavourd has read its files anew; policy: {policy(standing)}"])
    return Exit.OK
