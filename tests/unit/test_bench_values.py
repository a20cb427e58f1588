# SPDX-License-Identifier: LGPL-2.1-or-later
"""Numbers of the benchmarks: ratios are made within a round, and what cannot be judged is not."""

import pytest

from benchmarks.values import Comparison, Plot, quartiles, ratio_bars


def test_the_ratio_is_that_of_the_rounds_and_not_of_the_medians() -> None:
    # Both slow down and speed up together.
    measured = Comparison("a", "b", (1.0, 20.0, 3.0, 60.0), (1.0, 10.0, 1.0, 30.0))
    assert measured.ratios == (1.0, 2.0, 3.0, 2.0)
    assert measured.ratio == 2.0
    assert measured.spread == (1.75, 2.25)


@pytest.mark.parametrize(
    ("goal", "limit", "met"),
    [
        (2.0, None, True),
        (1.9, None, False),
        (None, 4.0, True),
        (None, 3.9, False),
        (2.0, 3.9, False),
        (None, None, None),
    ],
)
def test_what_is_told_without_a_goal_is_neither_met_nor_missed(
    goal: float | None, limit: float | None, met: bool | None
) -> None:
    assert Comparison("a", "b", (4.0,), (2.0,), goal=goal, limit=limit).met is met


def test_alone_there_is_no_ratio() -> None:
    alone = Comparison("a", "", (1.0, 3.0))
    assert (alone.ratio, alone.spread, alone.median) == (None, None, 2.0)
    with pytest.raises(ValueError, match="nothing beside it"):
        Comparison("a", "", (1.0,), goal=1.5)


@pytest.mark.parametrize("values, others", [((), ()), ((1.0, 2.0), (1.0,)), ((1.0,), (0.0,))])
def test_numbers_that_do_not_fit_together_are_no_comparison(
    values: tuple[float, ...], others: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="a: "):
        Comparison("a", "b", values, others)


def test_one_value_has_no_spread() -> None:
    assert quartiles([7.0]) == (7.0, 7.0)


def test_bars_show_what_has_a_ratio() -> None:
    some = [Comparison("a", "c", (2.0,), (1.0,)), Comparison("b", "", (2.0,))]
    assert ratio_bars("t", "c", some, 1.5) == Plot("bars", "t", "times as long as c", "", {"a": (2.0,)}, 1.5)
