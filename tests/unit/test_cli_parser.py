# SPDX-License-Identifier: LGPL-2.1-or-later
"""What flavourctl understands."""

import argparse
import re
from importlib import import_module

import pytest

from flavourd.cli.options import GUARDS
from flavourd.cli.parser import parse, parser
from flavourd.cli.verbs import VERBS
from flavourd.use import Guard


def verbs() -> dict[str, argparse.ArgumentParser]:
    (found,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_help_with_examples_that_it_understands(verb: str) -> None:
    text = verbs()[verb].format_help()
    examples = re.findall(r"^  flavourctl (.*)$", text.partition("examples:\n")[2], re.MULTILINE)
    assert 1 <= len(examples) <= 4
    for example in examples:
        assert parse(example.replace("'", "").split()).verb == verb
    assert hasattr(import_module(f"flavourd.cli.{parse(examples[0].split()).file}"), "run")


def below(verb: str) -> dict[str, argparse.ArgumentParser]:
    """The verbs of a verb."""
    (found,) = (action for action in verbs()[verb]._actions if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


@pytest.mark.parametrize("words", [f"{verb} {then}" for verb in ("policy", "initramfs") for then in below(verb)])
def test_a_verb_of_a_verb_has_help_with_examples_that_it_understands(words: str) -> None:
    verb, then = words.split()
    text = below(verb)[then].format_help()
    examples = re.findall(r"^  flavourctl (.*)$", text.partition("examples:\n")[2], re.MULTILINE)
    assert 1 <= len(examples) <= 4
    for example in examples:
        found = parse(example.split())
        assert (found.verb, found.then) == (verb, then)
        assert hasattr(import_module(f"flavourd.cli.{found.file}"), "run")


@pytest.mark.parametrize(
    ("words", "key", "expected"),
    [
        ("policy check a b", "files", ["a", "b"]),
        ("policy check a --json short b", "files", ["a", "b"]),
        ("--json short policy check", "files", []),
        ("policy match a --no-legend b", "devices", ["a", "b"]),
        ("policy edit", "name", "local"),
        ("policy edit x --json short", "name", "x"),
        ("policy diff --all", "all", True),
        ("set a vfio --persist", "persist", True),
        ("set a vfio", "persist", None),
        ("reset a --persist b", "devices", ["a", "b"]),
    ],
)
def test_policies_are_asked_for(words: str, key: str, expected: object) -> None:
    assert vars(parse(words.split()))[key] == expected


def test_the_help_lists_the_verbs_but_not_the_one_for_shells() -> None:
    listed = re.findall(r"^    (\w+) ", parser().format_help(), re.MULTILINE)
    assert listed == [verb for verb in VERBS if verb != "complete"]


@pytest.mark.parametrize("width", ["20", "40", "200"])
def test_help_fits_any_terminal(width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", width)
    for each in verbs().values():
        assert each.format_help()


@pytest.mark.parametrize("words", ["-H h --json=short list", "list --json=short -H h", "-H h list --json short"])
def test_what_all_verbs_understand_may_stand_before_and_behind_the_verb(words: str) -> None:
    found = parse(words.split())
    assert (found.verb, found.host, found.json, found.legend) == ("list", "h", "short", True)


def test_what_stands_behind_the_verb_counts() -> None:
    assert parse(["--json=short", "list", "--json=off"]).json == "off"


def test_without_a_verb_it_lists() -> None:
    assert vars(parse([])) == vars(parse(["list"]))
    assert parse(["--no-legend"]).legend is False


@pytest.mark.parametrize(
    "words",
    [
        "set a b vfio --force table --dry-run",
        "set --force table --dry-run a b vfio",
        "set a --force table b --dry-run vfio",
        "set a b --dry-run --force table vfio",
    ],
)
def test_options_may_stand_anywhere(words: str) -> None:
    found = parse(words.split())
    assert (found.devices, found.into, found.force, found.dry_run) == (["a", "b"], "vfio", ["table"], True)


@pytest.mark.parametrize(
    ("words", "devices", "into"),
    [
        ("reset a --dry-run b", ["a", "b"], "default"),
        ("reset a --force held b", ["a", "b"], "default"),
        ("set a --group b vfio", ["a", "b"], "vfio"),
        ("explain a --candidate m vfio", ["a"], "vfio"),
        ("explain a", ["a"], None),
    ],
)
def test_words_after_options_belong_to_the_verb(words: str, devices: list[str], into: str | None) -> None:
    found = parse(words.split())
    assert (found.devices, found.into) == (devices, into)


@pytest.mark.parametrize(
    "words",
    [
        "set a",
        "show",
        "explain",
        "explain a b c",
        "explain a b --force table c",
        "history a --full b",
        "status x",
        "set a vfio --colour",
        "--host",
        "history -n 0",
        "history -n x",
        "list --jso=short",
        "lst",
        "complete",
        "cancel",
        "cancel a --group",
        "set a vfio --force",
        "policy",
        "policy checks",
        "policy match",
        "policy edit a b",
        "policy edit a --json short b",
        "policy cat a",
        "initramfs",
        "initramfs on x",
        "reload x",
        "list --persist",
    ],
)
def test_what_is_not_understood_ends_with_usage(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(words.split())
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: flavourctl")


def test_the_guards_of_the_help_are_those_that_there_are() -> None:
    assert [*GUARDS] == [*Guard]
    for verb in ("set", "reset", "explain"):
        assert f": {', '.join(Guard)};" in " ".join(verbs()[verb].format_help().split())


def test_a_guard_of_a_newer_daemon_is_asked_for_all_the_same() -> None:
    assert parse(["reset", "a", "--force", "held", "--force", "bluetooth"]).force == ["held", "bluetooth"]


def test_the_shell_is_told_what_completes_devices_flavours_codes_and_guards() -> None:
    def functions(verb: str) -> dict[str, set[str]]:
        completed = [action for action in verbs()[verb]._actions if hasattr(action, "complete")]
        return {action.dest: set(action.complete.values()) for action in completed}

    devices, guards = {"devices": {"_flavourctl_devices"}}, {"force": {"_flavourctl_guards"}}
    assert functions("set") == devices | guards | {"into": {"_flavourctl_flavours"}}
    assert functions("reset") == devices | guards
    assert functions("cancel") == devices
    assert functions("list") == {"devices": {"_flavourctl_devices"}, "flavour": {"_flavourctl_flavours"}}
    matched = [action for action in below("policy")["match"]._actions if hasattr(action, "complete")]
    assert [action.complete["fish"] for action in matched] == ["_flavourctl_devices"]
    assert functions("explain")["devices"] == {"_flavourctl_codes"}
