# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the parsers of several verbs share: their options, their look, and what the shell can complete."""

from __future__ import annotations

import argparse
import os

from flavourd import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# As flavourd.use has them. Others are asked for all the same: a newer daemon may know more.
GUARDS = (
    "table",
    "mounted",
    "swap",
    "stacked",
    "open",
    "route",
    "session",
    "enslaved",
    "netns",
    "vfs",
    "display",
    "input",
    "held",
    "libvirt",
    "group",
)

_DEVICE = "an address (65:00.0), BUS/NAME, an interface, a disk, or a pattern of these"


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Knows the width by itself: argparse would import shutil for it, even where no help is printed."""

    def __init__(self, prog: str, **others: Any) -> None:
        try:
            width = int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
        except (ValueError, OSError):
            width = 80
        super().__init__(prog, **{"width": width - 2} | others)


def common() -> argparse.ArgumentParser:
    """Good before the verb and after it: nothing has a default, or the one place would undo the other."""
    parser = argparse.ArgumentParser(add_help=False, formatter_class=Formatter, argument_default=argparse.SUPPRESS)
    parser.add_argument("-H", "--host", type=host, metavar="[USER@]HOST", help="ask flavourd on this host, over ssh")
    parser.add_argument("--json", choices=("pretty", "short", "off"), help="answer in JSON")
    parser.add_argument("--no-legend", dest="legend", action="store_false", help="no header and no count")
    parser.add_argument("--version", action="version", version=f"flavourctl {__version__}")
    return parser


def devices(parser: argparse.ArgumentParser, nargs: str | int, note: str = "") -> argparse.Action:
    text = f"{_DEVICE}; {note}" if note else _DEVICE
    return completed(parser.add_argument("devices", nargs=nargs, metavar="DEV", help=text), "_flavourctl_devices")


def flavour(parser: argparse.ArgumentParser, name: str, **others: Any) -> None:
    completed(parser.add_argument(name, **others), "_flavourctl_flavours")


def candidates(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--candidate",
        dest="candidates",
        action="append",
        metavar="MODULE",
        help="try this module and no other; given again: these, in this order",
    )


def force(parser: argparse.ArgumentParser) -> None:
    text = f"pass over this guard, whatever it costs the host: {', '.join(GUARDS)}; may be given again"
    completed(parser.add_argument("--force", action="append", metavar="GUARD", help=text), "_flavourctl_guards")


def group(parser: argparse.ArgumentParser) -> None:
    text = "with each device all of its IOMMU group, or none of it"
    parser.add_argument("--group", action="store_true", default=None, help=text)


def persist(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--persist", action="store_true", default=None, help=text)


def dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done, and touch nothing")


def host(text: str) -> str:
    if not text:  # a variable that is not set in a script must not mean this host
        raise argparse.ArgumentTypeError("the name of a host is expected")
    return text


def count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("a number from 1 on is expected")
    return int(text)


def files(parser: argparse.ArgumentParser, text: str) -> None:
    action = parser.add_argument("files", nargs="*", metavar="FILE", help=text)
    # As shtab's own `FILE`.
    shells = {"bash": "_shtab_compgen_files", "zsh": "_files", "fish": "(__fish_complete_path (commandline -ct))"}
    vars(action).update(complete=shells)


def completed(action: argparse.Action, function: str) -> argparse.Action:
    """Name the shell function that completes an action, where shtab looks for it."""
    vars(action).update(complete=dict.fromkeys(("bash", "zsh", "fish"), function))
    return action


def examples(*lines: str) -> str:
    return "\n  ".join(("examples:", *lines))
