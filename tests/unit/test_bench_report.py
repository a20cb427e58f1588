# SPDX-License-Identifier: LGPL-2.1-or-later
"""The report of the benchmarks says plainly what was met and missed, and the documents say what was measured."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.__main__ import told
from benchmarks.records import Place, Record
from benchmarks.values import Comparison, Figure, Plot

_ROOT = Path(__file__).parents[2]
_PLACE = Place("QEMU 10 with software emulation", "2 processors (some)", 2, "1024M", "13.2", "6.12")
_FIGURE = Figure(
    "switch",
    "One switch",
    "Something was done.",
    (
        Comparison("Varlink", "the floor", (0.12, 0.13, 0.14), (0.1, 0.1, 0.1), goal=1.5),
        Comparison("flavourctl", "driverctl", (3.0,), (2.0,), goal=1.0),
        Comparison("memory", "", (24.5,), unit="MB", limit=25),
        Comparison("just told", "the floor", (5.0,), (2.0,)),
    ),
    (Plot("bars", "Ratios", "", "", {}),),
    ("A remark.",),
)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]


def test_the_headline_has_what_has_a_goal() -> None:
    lines = report.headline([_FIGURE]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [cells(line) for line in lines[2:]] == [
        ["One switch", "Varlink", "the floor", "1.30 [1.25–1.35]", "≤ 1.5", "met"],
        ["", "flavourctl", "driverctl", "1.50 [1.50–1.50]", "≤ 1", "**missed**"],
        ["", "memory", "–", "24.5 MB [24.5 MB–24.5 MB]", "≤ 25 MB", "met"],
    ]


def test_the_figures_table_has_everything_with_what_it_took() -> None:
    rows = [cells(line) for line in report.table(_FIGURE).splitlines()[2:]]
    assert rows[0] == ["Varlink", "130 ms", "the floor", "100 ms", "1.30 [1.25–1.35]", "≤ 1.5", "met", "3"]
    assert rows[2] == ["memory", "24.5 MB", "–", "–", "–", "≤ 25 MB", "met", "1"]
    assert rows[3] == ["just told", "5 s", "the floor", "2 s", "2.50 [2.50–2.50]", "–", "", "1"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0000123, "s", "12.3 µs"),
        (0.0015, "s", "1.50 ms"),
        (0.99996, "s", "1,000 ms"),
        (75.04, "s", "75.0 s"),
        (0.0, "s", "0 s"),
        (12345.6, "", "12,346"),
        (0.5, "MB", "0.50 MB"),
    ],
)
def test_quantities_have_three_digits(value: float, unit: str, text: str) -> None:
    assert report.quantity(value, unit) == text


def test_the_report_names_places_plots_and_remarks() -> None:
    here = Record("switch", _PLACE, "2026-11-23", "0123abc", {})
    text = report.results([report.Told(_FIGURE, here)])
    assert "![Ratios](plots/switch-1.svg)" in text
    assert "- A remark." in text
    assert "Measured on 2026-11-23, flavourd 0123abc." in text
    assert text.count("Linux 6.12,") == 1
    elsewhere = replace(here, place=replace(_PLACE, kernel="6.18"))
    both = report.results([report.Told(_FIGURE, here), report.Told(replace(_FIGURE, name="cold"), elsewhere)])
    assert "- switch: Measured in" in both
    assert "- cold: Measured in" in both


def test_only_what_is_between_the_marks_is_written() -> None:
    text = "a\n<!-- headline -->\nold\n<!-- /headline -->\nb\n"
    written = report.with_headline(text, [_FIGURE])
    assert written == text.replace("old\n", f"\n{report.headline([_FIGURE])}\n")
    assert report.with_headline(written, [_FIGURE]) == written
    with pytest.raises(ValueError, match="the table's place"):
        report.with_headline("no marks", [_FIGURE])


def test_the_documents_say_what_was_measured() -> None:
    every = told()
    results = _ROOT / "benchmarks" / "RESULTS.md"
    assert results.exists() == bool(every)
    if every:
        readme = (_ROOT / "README.md").read_text(encoding="utf-8")
        assert report.with_headline(readme, [each.figure for each in every]) == readme
        assert report.results(every) == results.read_text(encoding="utf-8")
