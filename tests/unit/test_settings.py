# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon's own settings."""

import grp
import json
from pathlib import Path

import pytest

from flavourd.errors import Code, FlavourError
from flavourd.policy.settings import Access, Settings, read_settings

from .conftest import Tree

_SHIPPED = Path(__file__).parents[2] / "config/flavourd.yaml"
_FILE = "etc/flavourd/flavourd.yaml"
_GROUPS = grp.getgrall()[:2]


def test_without_a_file_the_defaults_hold(tree: Tree) -> None:
    assert read_settings(tree({})) == Settings()
    assert Settings().changers() == frozenset()


def test_the_shipped_file_says_the_defaults(tree: Tree) -> None:
    assert read_settings(tree({_FILE: _SHIPPED.read_text(encoding="utf-8")})) == Settings()


@pytest.mark.parametrize("text", ["", "# all of it is commented out\n"])
def test_a_file_that_says_nothing_leaves_the_defaults(tree: Tree, text: str) -> None:
    assert read_settings(tree({_FILE: text})) == Settings()


def test_the_admins_file_wins_and_its_groups_are_looked_up(tree: Tree) -> None:
    names = [group.gr_name for group in _GROUPS]
    root = tree(
        {
            _FILE: f"access: {{change: {json.dumps(names)}}}",
            "usr/lib/flavourd/flavourd.yaml": "access: {change: [no-such-group]}",
        }
    )
    settings = read_settings(root)
    assert settings == Settings(Access(tuple(names)))
    assert settings.changers() == {group.gr_gid for group in _GROUPS}


@pytest.mark.parametrize("name", ["no-such-group", "", "a\0b", "\ud800", "0", "a" * 10_000])
def test_a_group_that_does_not_exist_is_a_config_error(name: str) -> None:
    with pytest.raises(FlavourError) as caught:
        Settings(Access((_GROUPS[0].gr_name, name))).changers()
    assert caught.value.code is Code.CONFIG
    assert "flavourd.yaml" in caught.value.sentence
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("accessd: {}", ":1:1: 'accessd' is not known here; did you mean 'access'?"),
        ("access: {}\nmore: 1", ":2:1: 'more' is not known here; known here: access"),
        ("access: {changes: []}", "did you mean 'change'?"),
        ("access: {change: wheel}", ":1:18: a list is expected here"),
        ("access:", "a mapping (key: value) is expected here"),
        ("access: {change: [[a]]}", "a text is expected here"),
        ("{", ":1:2: "),
        ("\udcff", "flavourd.yaml"),
    ],
)
def test_a_broken_file_is_told_with_its_place(tree: Tree, text: str, problem: str) -> None:
    root = tree({_FILE: text})
    with pytest.raises(FlavourError) as caught:
        read_settings(root)
    assert caught.value.code is Code.CONFIG
    assert str(root / _FILE) in caught.value.sentence
    assert problem in caught.value.sentence
    assert "reload" in caught.value.hint
