# SPDX-License-Identifier: LGPL-2.1-or-later
"""The one line on a terminal that tells what goes on, rewritten in place and gone in the end."""

from __future__ import annotations

import sys

from flavourd.cli.screen import Screen, cut, printable


class Progress:
    """On stderr; nothing where that is no terminal, or one that cannot erase."""

    def __init__(self) -> None:
        screen = Screen(sys.stderr)
        self._width = screen.width if screen.erases else None
        self._shown = False

    def show(self, text: str) -> None:
        if self._width:
            self._write(f"\r\x1b[K{cut(printable(text), self._width - 1)}")
            self._shown = True

    def clear(self) -> None:
        if self._shown:
            self._write("\r\x1b[K")
            self._shown = False

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
