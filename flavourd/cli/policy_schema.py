# SPDX-License-Identifier: LGPL-2.1-or-later
"""`flavourctl policy schema`: the JSON Schema of policy files."""

from __future__ import annotations

from flavourd.cli import here
from flavourd.cli.exits import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

    from flavourd.cli.client import Client
    from flavourd.cli.screen import Screen


def run(arguments: Namespace, client: Client, screen: Screen) -> int:
    here.stay(arguments, "policy schema")
    here.libraries()
    from flavourd.policy.schema import schema_text

    screen.print(schema_text().splitlines())
    return Exit.OK
