# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where verbs are added, those of flavourctl and those of a verb."""

from __future__ import annotations

from flavourd.cli import options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from typing import Any


class Verbs:
    """Where verbs are added. common: the options that all of them have. of: the verb that these are the verbs of, if
    they are not flavourctl's own.
    """

    def __init__(self, whole: ArgumentParser, common: ArgumentParser, of: str | None = None) -> None:
        # prog: to find it out, argparse would start the machinery of its help.
        self._verbs = whole.add_subparsers(
            dest="then" if of else "verb",
            metavar="VERB",
            title="verbs",
            help="one of these" if of else None,
            prog=f"flavourctl {of}" if of else "flavourctl",
            required=bool(of),
        )
        self._common = common

    def add(self, name: str, help: str | None, *examples: str, file: str | None = None) -> ArgumentParser:
        """help: None hides it. file: the module that does it, if that has another name."""
        shown: dict[str, Any] = {"help": help, "description": f"{help[:1].upper()}{help[1:]}."} if help else {}
        parser = self._verbs.add_parser(
            name,
            epilog=options.examples(*examples),
            parents=[self._common],
            formatter_class=options.Formatter,
            allow_abbrev=False,
            **shown,
        )
        parser.set_defaults(file=file or name)
        return parser

    def below(self, parser: ArgumentParser, name: str) -> Verbs:
        """The verbs of a verb."""
        return Verbs(parser, self._common, name)
