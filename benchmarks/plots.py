# SPDX-License-Identifier: LGPL-2.1-or-later
"""Plots as SVG files that are the same whenever the numbers are."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any, cast

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from benchmarks.values import Plot, quartiles

# Okabe and Ito's colours, which the colour-blind can tell apart: blue, vermilion, green, orange, purple, sky, black.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
# Nor need anybody rely on colours.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_WITHIN, _BEYOND, _GOAL, _TEXT = _COLOURS[0], _COLOURS[1], "#555555", "#222222"

_STYLE = {
    "svg.hashsalt": "flavourd",  # else each run gives the parts other names
    "font.family": "DejaVu Sans",  # which comes with matplotlib
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 18,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": _TEXT,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#dddddd",
    "text.color": _TEXT,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def draw(plot: Plot, file: Path) -> None:
    with mpl.rc_context(_STYLE):
        figure = _bars(plot) if plot.kind == "bars" else _lines(plot)
        figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})


def _bars(plot: Plot) -> Any:
    figure = Figure(figsize=(8, 1.3 + 0.42 * len(plot.series)))
    axes = figure.add_subplot()
    furthest = plot.goal or 0.0
    for place, given in enumerate(plot.series.values()):
        values = cast(Sequence[float], given)
        middle, (lower, upper) = median(values), quartiles(values)
        colour = _BEYOND if plot.goal is not None and middle > plot.goal else _WITHIN
        axes.barh(place, middle, height=0.62, color=colour)
        axes.plot([lower, upper], [place, place], color=_TEXT, linewidth=1.4, solid_capstyle="butt")
        axes.annotate(
            f"{middle:.3g}",
            (upper, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},  # where the goal's line would cross it
        )
        furthest = max(furthest, upper)
    axes.set_yticks(range(len(plot.series)), list(plot.series))
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    if plot.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
    else:
        axes.set_xlim(0, furthest * 1.1 or 1)
    axes.grid(axis="x")
    if plot.goal is not None:
        axes.axvline(plot.goal, color=_GOAL, linestyle="--", linewidth=1.4)
        axes.annotate(
            f"goal {plot.goal:g}",
            (plot.goal, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, 2),
            textcoords="offset points",
            color=_GOAL,
            fontsize=9,
        )
    _label(axes, plot)
    return figure


def _lines(plot: Plot) -> Any:
    figure = Figure(figsize=(8, 4.5))
    axes = figure.add_subplot()
    for (name, given), colour, marker in zip(plot.series.items(), cycle(_COLOURS), cycle(_MARKERS), strict=False):
        points = cast(Sequence[tuple[float, float]], given)
        # Of many points the markers would hide the line.
        every = max(1, len(points) // 20)
        across, up = [x for x, _ in points], [y for _, y in points]
        axes.plot(across, up, label=name, color=colour, marker=marker, markersize=5, markevery=every, linewidth=1.6)
    if plot.log:
        axes.set_xscale("log")
        axes.set_yscale("log")
        measured = sorted({x for given in plot.series.values() for x, _ in cast(Sequence[tuple[float, float]], given)})
        if len(measured) <= 12:
            axes.set_xticks(measured)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(ScalarFormatter())
            axis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    if plot.goal is not None:
        axes.axhline(plot.goal, color=_GOAL, linestyle="--", linewidth=1.4, label=f"goal {plot.goal:g}")
    axes.grid()
    axes.legend()
    _label(axes, plot)
    return figure


def _label(axes: Any, plot: Plot) -> None:
    axes.set_title(plot.title)
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.y)
