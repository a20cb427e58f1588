# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a writer of driver_flavour gets, and that docs/errors.md says the same."""

import errno
import re
from pathlib import Path

import pytest

from flavourd.errnos import errno_of
from flavourd.errors import Code
from flavourd.outcome import Kind

_TEXT = (Path(__file__).parents[2] / "docs/errors.md").read_text(encoding="utf-8")
_ROWS: dict[str, set[str]] = {
    name: set(re.findall("`([a-z-]+)`", words)) for name, words in re.findall(r"(?m)^\| `(E\w+)` \| (.*) \|$", _TEXT)
}
_WITH_A_CODE = (Kind.REFUSED, Kind.UNDONE)


def row(word: str) -> str:
    found = [name for name, words in _ROWS.items() if word in words]
    assert len(found) <= 1, f"{word} stands in several rows"
    return found[0] if found else "EIO"


@pytest.mark.parametrize("code", Code)
@pytest.mark.parametrize("kind", [*_WITH_A_CODE, None])
def test_the_table_says_of_every_code_what_a_writer_gets(kind: Kind | None, code: Code) -> None:
    assert errno.errorcode[errno_of(kind, code)] == row(code)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (*_WITH_A_CODE, Kind.SWITCHED, Kind.ALREADY)])
@pytest.mark.parametrize("code", [None, *Code])
def test_of_the_other_kinds_the_kind_counts_whatever_the_code_is(kind: Kind, code: Code | None) -> None:
    assert errno.errorcode[errno_of(kind, code)] == row(kind)


@pytest.mark.parametrize("kind", [Kind.SWITCHED, Kind.ALREADY])
@pytest.mark.parametrize("code", [None, *Code])
def test_only_a_success_is_zero(kind: Kind, code: Code | None) -> None:
    assert errno_of(kind, code) == 0


def test_words_of_another_version_are_an_error_of_the_host() -> None:
    assert errno_of("new-kind", "new-code") == errno_of(Kind.REFUSED, None) == errno_of(None, None) == errno.EIO


def test_the_table_has_no_word_that_is_neither_code_nor_kind() -> None:
    assert len(_ROWS) >= 8
    assert set().union(*_ROWS.values()) <= {*Code, *Kind}


def test_no_error_would_be_taken_for_one_that_restarts_a_system_call_or_is_out_of_range() -> None:
    numbers = {errno_of(kind, code) for kind in (*Kind, None) for code in (*Code, None)}
    assert all(0 <= number < 512 for number in numbers), "include/linux/errno.h: ERESTARTSYS is 512"
