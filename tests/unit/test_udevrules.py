# SPDX-License-Identifier: LGPL-2.1-or-later
"""The generated udev rules are whole or not there at all, and written only when they change."""

import os
from pathlib import Path

import pytest

from flavourd.errors import Code, FlavourError
from flavourd.udevrules import NODES, POLICY, UdevRules


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run/udev/rules.d"


def content(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_files_are_there_whole_and_readable_whatever_the_umask(tmp_path: Path, folder: Path) -> None:
    before = os.umask(0o077)
    try:
        assert UdevRules(tmp_path).write("one\n", "two\n")
    finally:
        os.umask(before)
    assert content(folder) == {POLICY: "one\n", NODES: "two\n"}
    assert [path.stat().st_mode & 0o777 for path in (folder, folder / POLICY)] == [0o755, 0o644]


def test_only_what_is_different_is_written(tmp_path: Path, folder: Path) -> None:
    rules = UdevRules(tmp_path)
    rules.write("one\n", "two\n")
    before = {name: (folder / name).stat().st_ino for name in (POLICY, NODES)}
    assert not rules.write("one\n", "two\n")
    assert rules.write("one\n", "three\n")
    after = {name: (folder / name).stat().st_ino for name in (POLICY, NODES)}
    assert after[POLICY] == before[POLICY]
    assert content(folder) == {POLICY: "one\n", NODES: "three\n"}


def test_without_rules_there_is_no_file_and_nothing_to_tell(tmp_path: Path, folder: Path) -> None:
    rules = UdevRules(tmp_path)
    assert not rules.write("", "")
    assert not folder.exists()
    assert not rules.exist()
    rules.write("one\n", "")
    assert rules.exist()
    rules.write("one\n", "two\n")
    assert rules.write("", "")
    assert content(folder) == {}


def test_what_is_no_text_of_ours_is_replaced(tmp_path: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / POLICY).write_bytes(b"\xff\n")
    assert UdevRules(tmp_path).write("one\n", "")
    assert content(folder) == {POLICY: "one\n"}


def test_that_it_cannot_be_written_is_told(tmp_path: Path, folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("a file, not a folder")
    with pytest.raises(FlavourError) as caught:
        UdevRules(tmp_path).write("one\n", "")
    assert caught.value.code is Code.HOST


@pytest.mark.parametrize("script", ["echo no socket >&2; exit 1", None])
def test_that_udev_does_not_read_them_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None
) -> None:
    if script:
        (tmp_path / "udevadm").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "udevadm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if script else str(tmp_path))
    with pytest.raises(FlavourError, match="no socket" if script else "udevadm") as caught:
        UdevRules(tmp_path).reload()
    assert caught.value.code is Code.HOST
