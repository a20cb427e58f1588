# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the other side of stdout and stderr can show, and what may reach it."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TextIO

    from flavourd.cli.exits import Json


class Screen:
    """A stream for text. erases: it understands escape sequences. width: columns, None where nothing must be cut."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self.tty = self._stream.isatty()
        self.erases = self.tty and os.environ.get("TERM") != "dumb"
        self.colour = self.erases and not os.environ.get("NO_COLOR")
        self.width = _columns(self._stream) if self.tty else None

    def print(self, lines: Iterable[str]) -> None:
        """All at once and now: what is told of one device is not torn apart by what stderr tells."""
        self._stream.write("".join(f"{line}\n" for line in lines))
        self._stream.flush()

    def print_json(self, value: Json | list[Any], mode: str) -> None:
        """ASCII, so that nothing in it moves a terminal."""
        import json

        self.print([json.dumps(value, indent=4) if mode == "pretty" else json.dumps(value, separators=(",", ":"))])

    def shows(self, text: str) -> bool:
        try:
            text.encode(self._stream.encoding or "ascii")
        except UnicodeEncodeError:
            return False
        return True

    def bold(self, text: str) -> str:
        return self._painted("1", text)

    def red(self, text: str) -> str:
        return self._painted("1;31", text)

    def yellow(self, text: str) -> str:
        return self._painted("33", text)

    def _painted(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text


def talk(text: str) -> None:
    """To people, beside the answer."""
    print(*map(printable, text.split("\n")), sep="\n", file=sys.stderr, flush=True)


def printable(value: Any) -> Any:
    """The same without what a terminal obeys or cannot show, in all strings of a JSON value."""
    if isinstance(value, str):
        if value.isprintable():
            return value
        return "".join(char if char.isprintable() else "?" for char in value.strip().replace("\n", " | "))
    if isinstance(value, list):
        return [printable(each) for each in value]
    if isinstance(value, dict):
        return {name: printable(each) for name, each in value.items()}
    return value


def cut(text: str, width: int | None, ellipsis: str = "…") -> str:
    return text if width is None or len(text) <= width else text[: max(width - len(ellipsis), 0)] + ellipsis


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80
