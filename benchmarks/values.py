# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a figure is made of: numbers beside other numbers of the same rounds; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Literal


@dataclass(frozen=True)
class Comparison:
    """What was measured, and beside what.

    values, others: one for each round, in `unit`; without others there is no ratio. goal: the largest ratio that is
    good enough. limit: the largest median of the values that is. With neither, the numbers are just told.
    ValueError if they do not fit together.
    """

    what: str
    beside: str
    values: tuple[float, ...]
    others: tuple[float, ...] = ()
    unit: str = "s"
    goal: float | None = None
    limit: float | None = None

    def __post_init__(self) -> None:
        # From JSON they come as lists.
        object.__setattr__(self, "values", tuple(self.values))
        object.__setattr__(self, "others", tuple(self.others))
        if not self.values:
            raise ValueError(f"{self.what}: nothing was measured")
        if self.others and len(self.others) != len(self.values):
            raise ValueError(f"{self.what}: {len(self.values)} rounds beside {len(self.others)} of {self.beside}")
        if any(other <= 0 for other in self.others):
            raise ValueError(f"{self.what}: {self.beside} gave nothing that a ratio could be made of")
        if self.goal is not None and not self.others:
            raise ValueError(f"{self.what}: a goal is a ratio, and there is nothing beside it")

    @property
    def ratios(self) -> tuple[float, ...]:
        """One for each round: what slows the machine down for a while slows down both."""
        return (
            tuple(value / other for value, other in zip(self.values, self.others, strict=True)) if self.others else ()
        )

    @property
    def ratio(self) -> float | None:
        return median(self.ratios) if self.others else None

    @property
    def spread(self) -> tuple[float, float] | None:
        """The lower and the upper quartile of the ratios."""
        return quartiles(self.ratios) if self.others else None

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def met(self) -> bool | None:
        """None: there was nothing to be met."""
        judged = []
        if self.goal is not None and self.ratio is not None:
            judged.append(self.ratio <= self.goal)
        if self.limit is not None:
            judged.append(self.median <= self.limit)
        return all(judged) if judged else None


@dataclass(frozen=True)
class Plot:
    """bars: for each name its values, of which the median and the quartiles are drawn. lines: for each name its points.

    x, y: what stands at the axes, with the unit. The bars lie, so their values are along x. goal: a line at this value.
    log: both axes of lines, the x axis of bars.
    """

    kind: Literal["bars", "lines"]
    title: str
    x: str
    y: str
    series: Mapping[str, Sequence[float] | Sequence[tuple[float, float]]]
    goal: float | None = None
    log: bool = False


@dataclass(frozen=True)
class Figure:
    """about: what was done and how, and what limits it, in two to four sentences."""

    name: str
    title: str
    about: str
    comparisons: tuple[Comparison, ...]
    plots: tuple[Plot, ...] = ()
    remarks: tuple[str, ...] = ()


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) == 1:
        return values[0], values[0]
    lower, _, upper = quantiles(values, n=4, method="inclusive")
    return lower, upper


def ratio_bars(title: str, beside: str, comparisons: Sequence[Comparison], goal: float | None = None) -> Plot:
    """The ratios of those comparisons that have one, which are all beside the same."""
    series = {each.what: each.ratios for each in comparisons if each.others}
    return Plot("bars", title, f"times as long as {beside}", "", series, goal)
