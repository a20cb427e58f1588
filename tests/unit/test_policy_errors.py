# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is told of broken policy files: golden/policy/NN-name.yaml, and beside each what `policy check` says of it."""

import os
from pathlib import Path

import pytest

from flavourd.policy.load import check
from flavourd.policy.problem import Severity

_FOLDER = Path(__file__).with_name("golden") / "policy"
_FILES = sorted(_FOLDER.glob("*.yaml"))
_REGENERATE = "FLAVOURD_REGENERATE"
# Those say something, but not what somebody will have meant.
_WARNED = {"never-reached", "unknown-account"}


def name_of(file: Path) -> str:
    return file.stem.partition("-")[2]


@pytest.mark.parametrize("file", _FILES, ids=name_of)
def test_what_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(_FOLDER)
    loaded = check([Path(file.name)], ["vfio"])
    told = "\n\n".join(problem.story() for problem in loaded.problems) + "\n"
    golden = file.with_suffix(".txt")
    if os.environ.get(_REGENERATE):
        golden.write_text(told, encoding="utf-8")
    assert told == golden.read_text(encoding="utf-8"), (
        f"if this is meant: {_REGENERATE}=1 pytest {Path(__file__).name}, and read the difference"
    )
    assert loaded.problems
    grade = Severity.WARNING if name_of(file) in _WARNED else Severity.ERROR
    assert {problem.severity for problem in loaded.problems} >= {grade}
    assert (loaded.policy is None) == (grade is Severity.ERROR)


def test_there_are_enough_of_them_and_each_is_told() -> None:
    assert len(_FILES) >= 40
    assert {file.stem for file in _FILES} == {file.stem for file in _FOLDER.glob("*.txt")}
    stories = [file.with_suffix(".txt").read_text(encoding="utf-8").replace(file.name, "") for file in _FILES]
    assert len(set(stories)) == len(stories)


def test_every_line_that_is_told_can_be_shown() -> None:
    for file in _FOLDER.glob("*.txt"):
        assert all(line.isprintable() for line in file.read_text(encoding="utf-8").split("\n"))
