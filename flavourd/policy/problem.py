# SPDX-License-Identifier: LGPL-2.1-or-later
"""A mistake in a configuration file, told so that it can be found and mended."""

import difflib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from flavourd.flavour import clip
from flavourd.wording import printable

_WIDEST = 100  # columns of a line that are shown


class Severity(StrEnum):
    ERROR = "error"  # the file cannot be used
    WARNING = "warning"  # it can, but hardly means what it says


@dataclass(frozen=True)
class Problem:
    """One mistake; line and column count from 1, line 0 stands for the file as a whole.

    hint: what to write instead, "" if nothing better is known. source: the line, None if there is none to show.
    """

    file: str
    line: int
    column: int
    message: str
    hint: str = ""
    source: str | None = None
    severity: Severity = Severity.ERROR

    @property
    def place(self) -> str:
        file = printable(self.file)
        return f"{file}:{self.line}:{self.column}" if self.line else file

    @property
    def sentence(self) -> str:
        """The message behind its place."""
        grade = "" if self.severity is Severity.ERROR else f"{self.severity}: "
        return f"{self.place}: {grade}{printable(self.message)}"

    def __str__(self) -> str:
        """In one line."""
        return f"{self.sentence}; {printable(self.hint)}" if self.hint else self.sentence

    def story(self) -> str:
        """In several: the sentence, the line with a caret below the column, the hint."""
        told = [self.sentence]
        if self.source is not None and self.line:
            line, column = _window(self.source, self.column - 1)
            told += [f"{self.line:>5} | {line}".rstrip(), f"{'':>5} | {' ' * column}^"]
        if self.hint:
            told.append(f"hint: {printable(self.hint)}")
        return "\n".join(told)


def _window(line: str, column: int) -> tuple[str, int]:
    """The part of a line that has this character, and how many columns of a terminal stand before it there."""
    start = max(0, column - _WIDEST * 3 // 4) if len(line) > _WIDEST else 0
    shown = printable(line[start : start + _WIDEST].replace("\t", " "))
    before = shown[: column - start]
    if start:
        shown, before = f"…{shown}", f"…{before}"
    if len(line) > start + _WIDEST:
        shown += "…"
    return shown, sum(map(_width, before))


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def meant(word: str, known: Iterable[str]) -> str:
    """A hint: which of the known words may have been meant; "" if none is close."""
    close = difflib.get_close_matches(word[:64].lower(), list(known), n=1)
    return f"did you mean {str(close[0])!r}?" if close else ""


def shown(text: str) -> str:
    """A value for a message: quoted, of one line, and not too long."""
    return repr(clip(text))
