# SPDX-License-Identifier: LGPL-2.1-or-later
"""From the words of the command line to what is asked for. Shell completion and the man page are made from it."""

from __future__ import annotations

import argparse
import sys

from flavourd.cli import options
from flavourd.cli.adding import Verbs
from flavourd.cli.verbs import VERBS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_DEFAULTS = {"host": None, "json": "off", "legend": True}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """What is asked for; `file` is the module of the verb. Ends the program with status 2 if it is not understood."""
    words = sys.argv[1:] if argv is None else argv
    # Making the parsers of all verbs takes longer than all else that is done here.
    first = words[0] if words else "list"
    whole = parser([first] if first in VERBS else () if first == "--version" else None)
    found, left = whole.parse_known_args(words, argparse.Namespace(**_DEFAULTS))
    # argparse hands words out when it meets the first of them: what stands after a later option is left over.
    if left and (any(word.startswith("-") for word in left) or not _take(found, left)):
        whole.error(f"unrecognized arguments: {' '.join(left)}")
    if found.verb is None:
        whole.parse_args(["list"], found)
    return found


def parser(verbs: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """verbs: those that it shall know, if not all."""
    common = options.common()
    whole = argparse.ArgumentParser(
        prog="flavourctl",
        description="Put devices into driver flavours and bring them back. Without a verb: list them.",
        epilog=options.examples(
            "flavourctl list                which devices there are, and who holds them",
            "flavourctl set 65:00.0 vfio    give a device to user space",
            "flavourctl reset 65:00.0       give it back to its own driver",
            "flavourctl -H node7 tree       look at another host",
        ),
        parents=[common],
        formatter_class=options.Formatter,
        allow_abbrev=False,
    )
    known = Verbs(whole, common)
    for name in VERBS if verbs is None else verbs:
        VERBS[name](known)
    return whole


def _take(found: argparse.Namespace, left: list[str]) -> bool:
    """Hand out the words again, with those that are left over; False if the verb does not take so many."""
    match found.verb:
        case "set":
            found.devices += [found.into, *left[:-1]]
            found.into = left[-1]
        case "list" | "tree" | "show" | "reset" | "cancel":
            found.devices += left
        case "policy" if found.then == "match":
            found.devices += left
        case "policy" if found.then == "check":
            found.files += left
        case "explain" if found.into is None and len(left) == 1:
            (found.into,) = left
        case _:
            return False
    return True
