# SPDX-License-Identifier: LGPL-2.1-or-later
"""flavourd.policy(5) tells the whole language, and its examples are policies."""

import re
from collections.abc import Iterator
from dataclasses import Field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from flavourd.policy.classes import CLASSES
from flavourd.policy.decode import decode
from flavourd.policy.language import DeviceNode, Expect, Match, Mode, NamedCandidate, PolicyFile, Rule, When
from flavourd.use import Severity

_PAGE = (Path(__file__).parents[2] / "man/flavourd.policy.5").read_text(encoding="utf-8")
_SECTIONS = dict(re.findall(r"(?ms)^\.Sh (.*?)\n(.*?)(?=^\.Sh |\Z)", _PAGE))


def keys(of: Any) -> list[str]:
    def key(field: Field[Any]) -> str:
        return str(field.metadata.get("key", field.name))

    return [key(field) for field in fields(of)]


def explained(section: str) -> Iterator[str]:
    """The keys that have an item of their own, or share one."""
    for item in re.findall(r"(?m)^\.It Cm (.*)$", _SECTIONS[section]):
        yield from item.split(" , ")


@pytest.mark.parametrize(
    ("section", "of"),
    [("RULES", Rule), ("SELECTORS", Match), ("EXPECT", Expect), ("DEVICE NODES", DeviceNode)],
)
def test_every_key_is_explained_and_no_other(section: str, of: Any) -> None:
    assert sorted(explained(section)) == sorted(keys(of))


def test_each_key_has_its_type() -> None:
    for section in ("RULES", "SELECTORS", "EXPECT", "DEVICE NODES"):
        items = _SECTIONS[section].split("\n.It Cm ")[1:]
        assert [item.partition("\n")[0] for item in items if not item.partition("\n")[2].startswith(".Pq ")] == []


def test_the_keys_of_a_file_and_of_a_named_candidate_are_told() -> None:
    assert [key for key in keys(PolicyFile) if f".Cm {key}" not in _SECTIONS["DESCRIPTION"]] == []
    assert {*keys(NamedCandidate), "@alias", "@softdep", "@universal"} <= {*explained("CANDIDATES")}


@pytest.mark.parametrize(("words", "section"), [(Mode, "DRIFT"), (When, "RULES"), (Severity, "RULES")])
def test_every_word_is_told(words: type[StrEnum], section: str) -> None:
    assert [word for word in words if not re.search(rf"Cm (.* )?{word}\b", _SECTIONS[section])] == []


def test_every_class_that_has_a_name_is_told() -> None:
    (names,) = re.findall(r"(?ms)or one of these names:$(.*?)^\.It", _SECTIONS["SELECTORS"])
    assert re.findall(r"[\w-]+", names.replace(".Cm", "")) == [*CLASSES]


def test_its_examples_are_policies() -> None:
    texts = re.findall(r"(?ms)^\.Bd .*?$\n(rules:.*?)^\.Ed", _PAGE)
    assert len(texts) > 5
    for text in texts:
        assert decode(text, PolicyFile, "example").rules
