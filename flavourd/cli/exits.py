# SPDX-License-Identifier: LGPL-2.1-or-later
"""How flavourctl ends: the exit codes, which are interface, and the error that carries one."""

from __future__ import annotations

from enum import IntEnum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Json = dict[str, Any]


class Exit(IntEnum):
    """Of several the greatest wins."""

    OK = 0
    NOT_DONE = 1  # a device was not switched as asked, or would not be; nothing is broken
    USAGE = 2  # the command line is wrong (argparse's own)
    UNKNOWN = 3  # no such device, flavour or code, or a name that means several
    DENIED = 4  # you may not
    UNREACHABLE = 5  # flavourd does not run, the host cannot be reached, or the connection was lost
    BROKEN = 6  # a device is broken, lost or stuck
    INTERRUPTED = 130  # by Ctrl-C, as shells count it


# What is not named here is a plain failure: kinds and codes that a newer daemon has, too.
_OF_KIND = {
    **dict.fromkeys(("switch", "switched", "already"), Exit.OK),
    **dict.fromkeys(("broken", "lost", "stuck"), Exit.BROKEN),
}
_OF_CODE = {
    **dict.fromkeys(("no-device", "bad-name", "unknown-flavour"), Exit.UNKNOWN),
    **dict.fromkeys(("stuck", "kin-stuck"), Exit.BROKEN),
}


def of_answer(answer: Json) -> Exit:
    """Of an outcome or a plan."""
    kind = answer.get("kind")
    return of_code(answer.get("code")) if kind == "refused" else _OF_KIND.get(str(kind), Exit.NOT_DONE)


def of_code(code: str | None) -> Exit:
    return _OF_CODE.get(str(code), Exit.NOT_DONE)


def worst(answers: Iterable[Json]) -> Exit:
    return max(map(of_answer, answers), default=Exit.OK)


class Failure(Exception):
    """Ends the program. sentence: what happened; hint: what to do next, in lines; code: as in docs/errors.md.

    fields: what else the daemon said, as a Varlink error has it.
    """

    def __init__(
        self, exit: Exit, sentence: str, hint: str = "", code: str | None = None, fields: Json | None = None
    ) -> None:
        super().__init__(sentence)
        self.exit, self.sentence, self.hint, self.code, self.fields = exit, sentence, hint, code, fields or {}

    def __str__(self) -> str:
        bracket = f" [{self.code}]" if self.code and f"[{self.code}]" not in self.sentence else ""
        return "\n  ".join((f"{self.sentence}{bracket}", *self.hint.splitlines()))

    def to_json(self) -> str:
        """For who asked for JSON, and has to know why there is none."""
        import json

        return json.dumps({"code": self.code, "message": self.sentence, "hint": self.hint})


class ConnectionLost(Failure):
    """The daemon went away before it had answered."""

    def __init__(self, sentence: str, hint: str) -> None:
        super().__init__(Exit.UNREACHABLE, sentence, hint)
