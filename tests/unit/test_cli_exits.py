# SPDX-License-Identifier: LGPL-2.1-or-later
"""Exit codes are interface."""

import pytest

from flavourd.cli.exits import Exit, Failure, of_answer, of_code, worst
from flavourd.errors import Code
from flavourd.outcome import Kind

_OF_KIND = {
    Kind.SWITCHED: 0,
    Kind.ALREADY: 0,
    Kind.REFUSED: 1,
    Kind.UNDONE: 1,
    Kind.GONE: 1,
    Kind.BROKEN: 6,
    Kind.LOST: 6,
    Kind.STUCK: 6,
}


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_outcome_has_its_exit_code(kind: Kind) -> None:
    assert of_answer({"kind": kind.value, "code": Code.HOST.value}) == _OF_KIND[kind]


@pytest.mark.parametrize(
    ("code", "exit"),
    [
        (Code.NO_DEVICE, 3),
        (Code.BAD_NAME, 3),
        (Code.UNKNOWN_FLAVOUR, 3),
        (Code.STUCK, 6),  # this request touched nothing, but the device is out of hand
        (Code.KIN_STUCK, 6),  # so is another one of its family
        (Code.IN_USE, 1),
        (Code.TOGETHER, 1),
        (Code.CONTESTED, 1),
        (Code.BUSY, 1),
        (Code.BRIDGE, 1),
        ("of a newer daemon", 1),
        (None, 1),
    ],
)
def test_what_was_refused_exits_by_its_code(code: str | None, exit: int) -> None:
    assert of_answer({"kind": "refused", "code": code}) == of_code(code) == exit


def test_a_device_that_went_away_was_known() -> None:
    assert of_answer({"kind": "gone", "code": "no-device"}) == Exit.NOT_DONE


@pytest.mark.parametrize("answer", [{"kind": "half"}, {}])
def test_what_is_not_known_is_no_success(answer: dict[str, str]) -> None:
    assert of_answer(answer) == Exit.NOT_DONE


def test_the_worst_wins() -> None:
    kinds = ({"kind": kind} for kind in ("switched", "broken", "undone"))
    assert worst(kinds) == Exit.BROKEN
    assert worst([]) == Exit.OK


def test_an_error_is_told_with_its_code_once_and_every_line_of_its_hint() -> None:
    assert str(Failure(Exit.NOT_DONE, "it is busy", "mend it\nask again", "busy")) == (
        "it is busy [busy]\n  mend it\n  ask again"
    )
    assert str(Failure(Exit.NOT_DONE, "it is busy [busy]", code="busy")) == "it is busy [busy]"
