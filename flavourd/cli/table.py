# SPDX-License-Identifier: LGPL-2.1-or-later
"""Columns that stand below each other, and facts with their names before them."""

from __future__ import annotations

from flavourd.cli.screen import cut
from flavourd.cli.texts import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from flavourd.cli.screen import Screen

_NOTHING = "-"


def table(screen: Screen, rows: Iterable[Sequence[str]], header: Sequence[str] = (), what: str = "") -> Iterator[str]:
    """Columns that fit the terminal, where empty ones are left out. With a header, the rows are counted in the end."""
    ellipsis = "…" if screen.shows("…") else "..."
    shown = [header, *rows] if header else [*rows]
    if screen.tty and (cells := shown[bool(header) :]):
        full = [any(column) for column in zip(*cells, strict=True)]
        shown = [[cell for cell, keep in zip(row, full, strict=True) if keep] for row in shown]
    lines = [cut(line, screen.width, ellipsis) for line in columns(shown)]
    if not header:
        return iter(lines)
    return iter([screen.bold(lines[0]), *lines[1:], "", f"{counted(len(lines) - 1, what)} listed."])


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Empty cells show as `-`."""
    filled = [[cell or _NOTHING for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*filled, strict=True)]
    for *cells, last in filled:
        yield " ".join([*map(str.ljust, cells, widths), last])


def facts(known: Sequence[tuple[str, str | Sequence[str]]]) -> Iterator[str]:
    """`  Driver: e1000e`, names to the right; of several values each has its line. What is not known is left out."""
    told = [(name, [value] if isinstance(value, str) else value) for name, value in known if value]
    margin = max((len(name) for name, _ in told), default=0) + 2
    for name, values in told:
        for number, value in enumerate(values):
            yield f"{f'{name}:' if number == 0 else '':>{margin}} {value}"
