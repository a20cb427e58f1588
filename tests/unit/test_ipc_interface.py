# SPDX-License-Identifier: LGPL-2.1-or-later
"""The interface file, which callers read, and the Python types, which serve them, say the same."""

import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

import pytest

from flavourd.ipc import manager
from flavourd.ipc.manager import Manager
from flavourd.outcome import Kind, Source
from flavourd.request import Origin
from flavourd.step import What
from flavourd.use import Guard

_FILE = Path(manager.__file__).with_name("io.flavourd.Manager.varlink").read_text(encoding="utf-8")
_TOKEN = re.compile(r"->|\[string\]|\[\]|[][?():,]|[A-Za-z_][A-Za-z0-9_.]*")


def members(description: str) -> dict[str, tuple[str, ...]]:
    """Each `type X`, `method X` and `error X`, and `interface`, with the tokens that follow."""
    text = re.sub(r"#.*", "", description)
    parts = re.split(r"^(type|method|error|interface)\b", text, flags=re.MULTILINE)
    assert not parts[0].strip()
    found: dict[str, tuple[str, ...]] = {}
    for keyword, rest in zip(parts[1::2], parts[2::2], strict=True):
        assert not _TOKEN.sub("", rest).strip(), f"what is this: {rest}"
        name, *tokens = _TOKEN.findall(rest)
        assert f"{keyword} {name}" not in found
        found[f"{keyword} {name}"] = tuple(tokens)
    return found


_WRITTEN = members(_FILE)
# What asyncvarlink would say of the types; Manager itself gives the file.
_RENDERED = members(super(Manager, Manager).render_interface_description(comments=False))


def test_the_file_is_what_callers_get() -> None:
    assert Manager.render_interface_description() == _FILE
    assert Manager.render_interface_description(comments=False) == _FILE


def test_the_file_and_the_types_have_the_same_members() -> None:
    assert len(_WRITTEN) > 25
    assert sorted(_WRITTEN) == sorted(_RENDERED)


@pytest.mark.parametrize("member", sorted(_WRITTEN.keys() | _RENDERED.keys()))
def test_a_member_has_the_same_fields_of_the_same_types_in_the_file_as_in_python(member: str) -> None:
    assert _WRITTEN.get(member) == _RENDERED.get(member)


def comment_of(type_name: str, field: str) -> str:
    """The comment above a field, as one line."""
    (body,) = re.findall(rf"^type {type_name} \((.*?)^\)", _FILE, flags=re.MULTILINE | re.DOTALL)
    found = re.search(rf"((?:^ *#.*\n)+) *{field}:", body, flags=re.MULTILINE)
    assert found, f"{type_name}.{field} has no comment"
    return " ".join(line.strip(" #") for line in found[1].splitlines())


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+(?:-[a-z]+)*", text))


@pytest.mark.parametrize(
    ("type_name", "field", "enum", "others"),
    [
        ("Step", "what", What, ""),
        ("Finding", "guard", Guard, ""),
        ("Candidate", "source", Source, "by who asked or tried in this order"),
        ("Outcome", "origin", Origin, "and are flavourd own s"),
        (
            "Outcome",
            "kind",
            Kind,
            "and are successes nothing was touched it is as could not be put back unplugged the kernel has "
            "answered yet",
        ),
    ],
)
def test_the_comment_of_a_field_names_the_words_that_there_are_and_no_other(
    type_name: str, field: str, enum: type[StrEnum], others: str
) -> None:
    assert words(comment_of(type_name, field)) - words(others) == set(map(str, enum))


def literals(source: Iterable[str], name: str) -> set[str]:
    return {word for line in source if re.search(name, line) for word in re.findall(r'"([a-z]+)"', line)}


def test_the_comments_of_states_and_plans_name_the_words_that_the_code_has() -> None:
    """They are no enums; each is made in one place."""
    source = Path(manager.__file__).read_text(encoding="utf-8").splitlines()
    states = literals(source, r"^\s*state = ")
    assert words(comment_of("Device", "state").partition(":")[2].partition(";")[0]) == states
    wire = Path(manager.__file__).with_name("wire.py").read_text(encoding="utf-8").splitlines()
    kinds = literals(wire, r"^\s*kind=")
    assert words(comment_of("Plan", "kind")) - {"or"} == kinds
