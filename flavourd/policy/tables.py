# SPDX-License-Identifier: LGPL-2.1-or-later
"""One selector of all rules at once: from a device's value to the rules that take it.

A set of rules is an int with a bit for each, so that a thousand rules are put together by one operation.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Protocol

from flavourd.policy.selectors import in_ranges, is_glob

# Devices come and go; what is remembered of them must not grow with the time that the daemon runs.
_REMEMBERED = 4096
_GROUP = 32


class Table(Protocol):
    """others: rules that do not ask; they take every device, also one that has no value."""

    others: int

    def at(self, value: str, /) -> int:
        """All rules that take a device with this value."""
        ...


class Words:
    """Exact texts are looked up; patterns are tried, many by one regular expression."""

    def __init__(self, asked: Iterable[tuple[int, Iterable[str]]], everyone: int, regex: Callable[[str], str]) -> None:
        """asked: pairs of a rule's number and its patterns. everyone: all rules there are."""
        rules: defaultdict[str, int] = defaultdict(int)
        self.others = everyone
        for number, patterns in asked:
            self.others &= ~(1 << number)
            for pattern in patterns:
                rules[pattern] |= 1 << number
        self._exact = {word: mask for word, mask in rules.items() if not is_glob(word)}
        globs = sorted((regex(word), mask) for word, mask in rules.items() if is_glob(word))
        self._globs = _Globs(globs) if globs else None
        self._matching = lru_cache(_REMEMBERED)(self._globs.matching) if self._globs else None

    def at(self, value: str, /) -> int:
        found = self.others | self._exact.get(value, 0)
        return found | self._matching(value) if self._matching else found


class _Globs:
    """In groups: only where the alternation of a whole group matches are its patterns tried one by one."""

    def __init__(self, globs: Sequence[tuple[str, int]]) -> None:
        groups = [globs[start : start + _GROUP] for start in range(0, len(globs), _GROUP)]
        self._groups = [
            (
                re.compile("|".join(regex for regex, _ in group)).match,
                [(re.compile(regex).match, rules) for regex, rules in group],
            )
            for group in groups
        ]

    def matching(self, value: str) -> int:
        found = 0
        for any_of_them, group in self._groups:
            if any_of_them(value):
                for one, rules in group:
                    if one(value):
                        found |= rules
        return found


class Classes:
    """One look-up for each of the masks that rules use; these are few."""

    def __init__(self, asked: Iterable[tuple[int, Iterable[tuple[int, int]]]], everyone: int) -> None:
        self._codes: defaultdict[int, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
        self.others = everyone
        for number, wanted in asked:
            self.others &= ~(1 << number)
            for code, mask in wanted:
                self._codes[mask][code] |= 1 << number

    def at(self, value: str, /) -> int:
        code, found = int(value, 16), self.others
        for mask, codes in self._codes.items():
            found |= codes.get(code & mask, 0)
        return found


class Indexes:
    """Of VFs: those that are asked for by the same ranges are looked at together."""

    def __init__(self, asked: Iterable[tuple[int, tuple[tuple[int, int | None], ...]]], everyone: int) -> None:
        self._ranges: defaultdict[tuple[tuple[int, int | None], ...], int] = defaultdict(int)
        self.others = everyone
        for number, wanted in asked:
            self.others &= ~(1 << number)
            self._ranges[wanted] |= 1 << number
        self.at = lru_cache(_REMEMBERED)(self._at)

    def _at(self, value: str, /) -> int:
        index, found = int(value), self.others
        for wanted, rules in self._ranges.items():
            if in_ranges(index, wanted):
                found |= rules
        return found
