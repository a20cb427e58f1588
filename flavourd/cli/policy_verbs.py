# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the verbs of `flavourctl policy` understand, with examples."""

from __future__ import annotations

from flavourd.cli import options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from flavourd.cli.adding import Verbs


def _check(verbs: Verbs) -> None:
    parser = verbs.add(
        "check",
        "tell every mistake in the policy files, each at its place; it needs neither flavourd nor root",
        "flavourctl policy check",
        "flavourctl policy check ./50-nics.yaml",
        "flavourctl policy check -",
        file="policy_check",
    )
    options.files(
        parser, "only these, as if there were no others; `-` alone: standard input; without: all of this host's"
    )


def _cat(verbs: Verbs) -> None:
    verbs.add(
        "cat",
        "show the policy files of this host in the order in which their rules are asked",
        "flavourctl policy cat",
        file="policy_cat",
    )


def _match(verbs: Verbs) -> None:
    parser = verbs.add(
        "match",
        "tell which rule is for a device, why, and why not the others",
        "flavourctl policy match 65:00.0",
        "flavourctl policy match eth0 nvme1n1",
        file="policy_match",
    )
    options.devices(parser, "+")


def _diff(verbs: Verbs) -> None:
    parser = verbs.add(
        "diff",
        "tell what the policy files, as they are on disk now, would change on this host",
        "flavourctl policy diff",
        "flavourctl policy diff --all",
        file="policy_diff",
    )
    parser.add_argument("--all", action="store_true", help="also devices that have a rule and are left, and why")


def _edit(verbs: Verbs) -> None:
    parser = verbs.add(
        "edit",
        "edit a policy file; it is checked before it is saved, together with all others",
        "flavourctl policy edit",
        "flavourctl policy edit 50-nics",
        file="policy_edit",
    )
    help = "a file of /etc/flavourd/policy.d, with or without `.yaml` (local)"
    parser.add_argument("name", nargs="?", default="local", metavar="NAME", help=help)


def _schema(verbs: Verbs) -> None:
    verbs.add(
        "schema",
        "print the JSON Schema of policy files, for editors",
        "flavourctl policy schema",
        file="policy_schema",
    )


# In the order of the help
VERBS: tuple[Callable[[Verbs], None], ...] = (_check, _cat, _match, _diff, _edit, _schema)
