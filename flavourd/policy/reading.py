# SPDX-License-Identifier: LGPL-2.1-or-later
"""What was understood of a file, and where in it each value stands."""

from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from flavourd.policy.problem import Problem, Severity

T = TypeVar("T")
Path: TypeAlias = tuple[str | int, ...]  # of a value: keys as the file has them, and indexes


@dataclass
class Reading(Generic[T]):
    """A file as it was understood. value: None if there are problems.

    places: of every value its line and column, from 1. parts: every value that was understood, also of a file that
    has problems; a record is among them only if all of it was.
    """

    file: str
    text: str
    value: T | None = None
    problems: list[Problem] = field(default_factory=list)
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)
    parts: dict[Path, Any] = field(default_factory=dict)
    _lines: list[str] | None = None

    def problem(
        self, place: tuple[int, int], message: str, hint: str = "", severity: Severity = Severity.ERROR
    ) -> Problem:
        """One of this file, with its line. What libyaml finds behind the end is moved to the end."""
        if self._lines is None:
            self._lines = self.text.splitlines() or [""]
        line, column = place
        if line > len(self._lines):
            line, column = len(self._lines), len(self._lines[-1]) + 1
        source = self._lines[line - 1]
        return Problem(self.file, line, min(column, len(source) + 1), message, hint, source, severity)
