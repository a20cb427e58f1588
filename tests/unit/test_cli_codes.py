# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `flavourctl explain CODE` finds in errors.md, in the repository and where it is installed."""

from pathlib import Path

import pytest

import flavourd
from flavourd.cli.codes import codes, plain, section
from flavourd.errors import Code
from flavourd.outcome import Kind
from flavourd.use import SEVERITIES, Guard


@pytest.mark.parametrize("word", [*Code, *Kind])
def test_every_code_and_every_kind_is_explained(word: str) -> None:
    text = section(word)
    assert text
    assert "#" not in text, "the text of one code only"


@pytest.mark.parametrize("guard", Guard)
def test_every_guard_is_explained_with_what_passes_over_it_and_how_severe_it_is(guard: Guard) -> None:
    text = section(guard)
    assert text
    assert f"`--force={guard}`" in text
    assert f"**{SEVERITIES[guard]}**" in text
    assert len(text.split("\n\n")) >= 2, "what is looked at and why; and how it is freed or passed over"


def test_no_word_is_a_code_and_a_guard() -> None:
    assert not {*Code, *Kind} & {*Guard}


def test_the_codes_are_those_that_have_a_heading() -> None:
    assert sorted(codes()) == sorted([*Code, *Guard])


def test_a_word_that_is_no_code_has_no_text() -> None:
    assert section("enp5s2") is None
    assert section("") is None


def test_the_installed_document_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "errors.md").write_text("# x\n\n## y\n\n### `installed`\nIt is.\n", encoding="utf-8")
    monkeypatch.setattr(flavourd, "__path__", [str(tmp_path)])
    assert (codes(), section("installed")) == (["installed"], "It is.")


def test_without_a_document_no_word_is_a_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flavourd, "__path__", [str(tmp_path / "none")])
    assert (codes(), section("busy")) == ([], None)


def test_markdown_becomes_lines_that_fit() -> None:
    assert plain("a `b` c\nd\n\ne", 6) == ["a b c", "d", "", "e"]
