# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon's own settings."""

import grp
import json
import pwd
from pathlib import Path

import pytest

from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.policy.attributes import AttributeOf, Attributes, FileOwner
from flavourd.policy.settings import Access, Settings, Then, WhenStuck, read_settings
from flavourd.use import SEVERITIES, Guard, Severity

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


def test_a_guard_is_as_severe_as_it_comes_unless_the_file_says_otherwise(tree: Tree) -> None:
    assert Settings().severities() == SEVERITIES
    settings = read_settings(tree({_FILE: "guards: {session: warning, group: error, input: off, table: error}"}))
    changed = {Guard.SESSION: Severity.WARNING, Guard.GROUP: Severity.ERROR, Guard.INPUT: Severity.OFF}
    assert settings.severities() == SEVERITIES | changed
    assert settings.severities().keys() == set(Guard)


def test_what_was_stuck_is_finished_unless_the_file_says_to_drop_it(tree: Tree) -> None:
    assert Settings().stuck.then is Then.FINISH
    assert read_settings(tree({_FILE: "stuck: {then: drop}"})) == Settings(stuck=WhenStuck(Then.DROP))


def test_the_file_says_which_drivers_bear_only_one_switch_at_a_time(tree: Tree) -> None:
    assert read_settings(tree({_FILE: "serial_drivers: [a, b-c]"})).serial_drivers == ("a", "b-c")
    assert read_settings(tree({_FILE: "serial_drivers: []"})).serial_drivers == ()


def test_the_file_says_how_often_all_is_looked_at(tree: Tree) -> None:
    assert read_settings(tree({_FILE: "reconcile_seconds: 0"})).reconcile_seconds == 0


_SOMEBODY = pwd.getpwall()[1]


def test_the_files_are_roots_and_may_be_looked_at_by_the_group_flavourd() -> None:
    access = Attributes().access()
    try:
        group = grp.getgrnam("flavourd").gr_gid
    except KeyError:  # as on a host where nobody has made it
        group = 0
    assert access.of(DeviceId("pci", "0000:01:00.0")) == FileOwner(0, group, 0o644)


def test_the_first_pattern_that_matches_a_device_says_whose_its_files_are(tree: Tree) -> None:
    name, group = _SOMEBODY.pw_name, _GROUPS[1].gr_name
    text = f"""
attributes:
  owner: {name}
  group: "7"
  devices:
    "0000:65:00.*": {{group: {group}, mode: "0664"}}
    pci/0000:65:*: {{owner: "12"}}
    platform/*: {{mode: "600"}}
"""
    access = read_settings(tree({_FILE: text})).attributes.access()
    others = FileOwner(_SOMEBODY.pw_uid, 7, 0o644)
    for device, owner in {
        "pci/0000:65:00.1": FileOwner(_SOMEBODY.pw_uid, _GROUPS[1].gr_gid, 0o664),
        "pci/0000:65:01.0": FileOwner(12, 7, 0o644),
        "pci/0000:66:00.0": others,
        "platform/a.b": FileOwner(_SOMEBODY.pw_uid, 7, 0o600),
    }.items():
        assert access.of(DeviceId.parse(device)) == owner, device


@pytest.mark.parametrize(
    ("attributes", "place"),
    [
        (Attributes(owner="nobody-here"), "attributes, owner: "),
        (Attributes(group="nobody-here"), "attributes, group: "),
        (Attributes(group="4294967295"), "attributes, group: there is no account 4294967295"),
        (Attributes(devices={"*": AttributeOf(owner="nobody-here")}), "attributes, devices, *, owner: "),
        (Attributes(devices={"a": AttributeOf(), "b": AttributeOf(group="x")}), "attributes, devices, b, group: "),
    ],
)
def test_an_account_that_does_not_exist_is_a_config_error(attributes: Attributes, place: str) -> None:
    with pytest.raises(FlavourError) as caught:
        attributes.access()
    assert caught.value.code is Code.CONFIG
    assert caught.value.sentence.startswith(f"flavourd.yaml, {place}")
    assert "systemctl reload flavourd" in caught.value.hint


def test_the_example_names_every_guard_there_is() -> None:
    text = " ".join(line.strip("# ") for line in _SHIPPED.read_text(encoding="utf-8").splitlines())
    listed = text.partition("explains a guard: ")[2].partition(". ")[0].split(", ")
    assert sorted([*listed, Guard.TABLE]) == sorted(Guard)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("accessd: {}", ":1:1: 'accessd' is not known here; did you mean 'access'?"),
        (
            "access: {}\nmore: 1",
            ":2:1: 'more' is not known here; known here: access, guards, stuck, serial_drivers, reconcile_seconds, "
            "attributes",
        ),
        ("reconcile_seconds: 86401", ":1:20: "),
        ("reconcile_seconds: -1", ":1:20: "),
        ("reconcile_seconds: often", ":1:20: "),
        ("access: {changes: []}", "did you mean 'change'?"),
        ("access: {change: wheel}", ":1:18: a list is expected here"),
        ("access:", "a mapping (key: value) is expected here"),
        ("access: {change: [[a]]}", "a text is expected here"),
        ("guards: {sessions: warning}", ":1:10: 'sessions' is not known here; did you mean 'session'?"),
        ("guards: {zzz: warning}", f":1:10: 'zzz' is not known here; known here: {', '.join(Guard)}"),
        ("guards: {session: warn}", ":1:19: one of error, warning, off is expected here; did you mean 'warning'?"),
        ("guards: {session: false}", ":1:19: one of error, warning, off is expected here"),
        ("guards: [session]", ":1:9: a mapping (key: value) is expected here"),
        ("guards: {table: warning}", "guards, table: it is always an error"),
        ("guards: {table: off}", "--force=table"),
        ("stuck: {then: finnish}", ":1:15: one of finish, drop is expected here; did you mean 'finish'?"),
        ("stuck: drop", ":1:8: a mapping (key: value) is expected here"),
        ("serial_drivers: ioatdma", ":1:17: a list is expected here"),
        ("serial_drivers: [../x]", "'../x' is no driver name"),
        ("serial_drivers: [[x]]", ":1:18: a text is expected here"),
        ("attributes: {ownr: root}", ":1:14: 'ownr' is not known here; did you mean 'owner'?"),
        ("attributes: {group: no group}", ":1:21: 'no group' is not a user or group: its name or number"),
        ("attributes: {mode: 0664}", ':1:20: 0664 without quotes is a number in YAML; write it in quotes: "0664"'),
        ('attributes: {mode: "0755"}', ":1:20: '0755' is not a mode of three octal digits for reading and writing"),
        ("attributes: {devices: [a]}", ":1:23: a mapping (key: value) is expected here"),
        ("attributes: {devices: {a: gpu}}", ":1:27: a mapping (key: value) is expected here"),
        ("attributes: {devices: {a: {modes: x}}}", ":1:28: 'modes' is not known here; did you mean 'mode'?"),
        ("attributes: {devices: {01: {}}}", ':1:24: 01 without quotes is a number in YAML; write it in quotes: "01"'),
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
