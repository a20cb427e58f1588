# SPDX-License-Identifier: LGPL-2.1-or-later
"""What docs/errors.md says about a code or a guard, for who has no browser at hand."""

from __future__ import annotations

import flavourd

# Where it is installed; where it stands in the repository.
_PLACES = ("errors.md", "../docs/errors.md")


def codes() -> list[str]:
    return [*_sections()]


def section(word: str) -> str | None:
    """The text about a code or a guard, in any case. About a kind or an origin: the introductory paragraph that names
    it.
    """
    word = word.lower()
    introduction = _document().partition("\n## ")[0]
    named = [paragraph for paragraph in introduction.split("\n\n") if f"`{word}`" in paragraph]
    return _sections().get(word) or "\n\n".join(named) or None


def plain(text: str, width: int) -> list[str]:
    """Markdown for the terminal."""
    from textwrap import wrap

    paragraphs = [wrap(paragraph.replace("`", ""), width) for paragraph in text.split("\n\n")]
    return [line for lines in paragraphs for line in (*lines, "")][:-1]


def _sections() -> dict[str, str]:
    found = {}
    for part in _document().split("\n### ")[1:]:
        heading, _, text = part.partition("\n## ")[0].partition("\n")
        found[heading.strip("` ")] = text.strip()
    return found


def _document() -> str:
    for place in _PLACES:
        try:
            with open(f"{flavourd.__path__[0]}/{place}", encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            pass
    return ""
