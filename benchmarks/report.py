# SPDX-License-Identifier: LGPL-2.1-or-later
"""Results in words and tables, for RESULTS.md, README.md and a terminal; pure text."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.records import Place, Record
from benchmarks.values import Comparison, Figure, quartiles

_HEAD = """\
# How fast flavourd is, beside what else can be done

`make bench` has measured this and written this file; the numbers of every single round are in [raw](raw), and
`python -m benchmarks report` writes the file anew from them. A ratio is between two things that were measured in the
same rounds, one after the other, or, where a section says so, between the same thing before and after: the median of
the rounds' ratios, with their quartiles in brackets. 1.5 means that it takes half as long again.
"""
_MARKS = re.compile(r"(?<=<!-- headline -->\n).*?(?=<!-- /headline -->)", re.DOTALL)
# From the smallest: (largest value that is not told so, factor, name).
_SECONDS = ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"))


@dataclass(frozen=True)
class Told:
    """A figure, and what it was made of."""

    figure: Figure
    record: Record


def results(told: Sequence[Told]) -> str:
    """The whole of RESULTS.md."""
    parts = [_HEAD, _places(told), "## In one table\n", headline([each.figure for each in told])]
    for each in told:
        figure = each.figure
        parts += [f"## {figure.title}\n", f"{figure.about}\n", table(figure)]
        parts += [
            f"![{plot.title}](plots/{name})\n" for name, plot in zip(plot_names(figure), figure.plots, strict=True)
        ]
        parts += ["".join(f"- {remark}\n" for remark in figure.remarks)] if figure.remarks else []
        parts.append(f"Measured on {each.record.date}, flavourd {each.record.commit}.\n")
    return "\n".join(parts)


def plot_names(figure: Figure) -> list[str]:
    return [f"{figure.name}-{number}.svg" for number, _ in enumerate(figure.plots, 1)]


def headline(figures: Iterable[Figure]) -> str:
    """One line for everything that has a goal; the figure's title stands before its first."""
    rows = [
        ("" if number else figure.title, each.what, each.beside or "–", _result(each), _goal(each), _verdict(each))
        for figure in figures
        for number, each in enumerate(each for each in figure.comparisons if each.met is not None)
    ]
    return _table(("figure", "measured", "beside", "result", "goal", ""), rows)


def table(figure: Figure) -> str:
    """Everything that the figure compares, with what it took."""
    rows = [
        (
            each.what,
            _absolute(each.values, each.unit),
            each.beside or "–",
            _absolute(each.others, each.unit) if each.others else "–",
            _ratio(each) if each.others else "–",
            _goal(each),
            _verdict(each),
            str(len(each.values)),
        )
        for each in figure.comparisons
    ]
    return _table(("measured", "took", "beside", "took", "ratio", "goal", "", "rounds"), rows)


def with_headline(text: str, figures: Iterable[Figure]) -> str:
    """A document with the headline table between its marks; ValueError if it has none."""
    new, times = _MARKS.subn(lambda _: f"\n{headline(figures)}\n", text)
    if times != 1:
        raise ValueError("the table's place is told by <!-- headline --> and <!-- /headline -->, each on a line, once")
    return new


def quantity(value: float, unit: str) -> str:
    """Three digits are more than the spread leaves true."""
    if unit == "s" and value:
        for limit, factor, name in _SECONDS:
            if abs(value) < limit:
                return f"{_digits(value * factor)} {name}"
    return f"{_digits(value)} {unit}".rstrip()


# ---


def _digits(value: float) -> str:
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _absolute(values: Sequence[float], unit: str) -> str:
    return quantity(_middle(values), unit)


def _middle(values: Sequence[float]) -> float:
    return Comparison("", "", tuple(values)).median


def _ratio(each: Comparison) -> str:
    assert each.ratio is not None
    assert each.spread is not None
    lower, upper = each.spread
    return f"{_times(each.ratio)} [{_times(lower)}–{_times(upper)}]"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def _result(each: Comparison) -> str:
    if each.goal is not None:
        return _ratio(each)
    lower, upper = (quantity(value, each.unit) for value in quartiles(each.values))
    return f"{quantity(each.median, each.unit)} [{lower}–{upper}]"


def _goal(each: Comparison) -> str:
    goals = [f"≤ {_goal_digits(each.goal)}"] if each.goal is not None else []
    goals += [f"≤ {_goal_digits(each.limit)} {each.unit}".rstrip()] if each.limit is not None else []
    return ", ".join(goals) or "–"


def _goal_digits(value: float) -> str:
    return f"{value:g}"


def _verdict(each: Comparison) -> str:
    return {True: "met", False: "**missed**", None: ""}[each.met]


def _places(told: Sequence[Told]) -> str:
    """Where it was measured: once if it was in one place."""
    places: dict[Place, list[str]] = {}
    for each in told:
        places.setdefault(each.record.place, []).append(each.figure.name)
    if len(places) == 1:
        return f"{_place(*places)}\n"
    return "".join(f"- {', '.join(names)}: {_place(place)}\n" for place, names in places.items())


def _place(place: Place) -> str:
    return (
        f"Measured in a virtual machine, {place.emulation}: {place.processors} processors, {place.memory} of memory, "
        f"Debian {place.debian} with Linux {place.kernel}, on a host with {place.host}."
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that can be read as text, too."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    lines = [heads, ["-" * width for width in widths], *rows]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)
