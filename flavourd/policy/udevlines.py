# SPDX-License-Identifier: LGPL-2.1-or-later
"""Conditions as lines of a file of udev's rules, where a line can only jump forward (udev(7), GOTO and LABEL)."""

import re
from collections.abc import Iterable, Iterator
from itertools import takewhile

from flavourd.policy.conditions import Atom, Condition, Every, Opposite, Some

_LABEL, _GOTO = re.compile('LABEL="([^"]*)"'), re.compile('GOTO="([^"]*)"')
_CONDITION = re.compile("[!=]=")
_KEY = re.compile(r"([A-Z]+(?:\{[^}]*\})?)[!=]=")
_LONGEST = 8000  # udev ignores lines of more than 16 KiB


def lines(condition: Condition, yes: str, no: str, label: str) -> Iterator[str]:
    """Lines that do what `yes` says if the condition holds, else what `no` says: both end with a GOTO, for a key whose
    attribute is missing matches neither with == nor with !=. label: what those begin with that are needed on the way.
    """
    match condition:
        case Atom():
            yield f"{condition.keys}, {yes}"
            yield no
        case Opposite():
            yield from lines(condition.part, no, yes, label)
        case Every():
            *parts, last = _joined(condition)
            for number, part in enumerate(parts):
                yield from lines(part, f'GOTO="{label}{number}"', no, f"{label}{number}_")
                yield f'LABEL="{label}{number}"'
            yield from lines(last, yes, no, f"{label}_")
        case Some():
            *parts, last = condition.parts
            for number, part in enumerate(parts):
                yield from lines(part, yes, f'GOTO="{label}{number}"', f"{label}{number}_")
                yield f'LABEL="{label}{number}"'
            yield from lines(last, yes, no, f"{label}_")
        case _:
            yield yes if condition else no


def _joined(every: Every) -> list[Condition]:
    """What can stand in one line put into one: no key twice, for udev warns of what cannot be or need not be said."""
    parts = list(dict.fromkeys(_flat(every)))
    joined: list[str] = []
    for part in parts:
        if isinstance(part, Atom):
            fits = joined and len(joined[-1]) + len(part.keys) < _LONGEST
            if fits and not {*_KEY.findall(joined[-1])} & {*_KEY.findall(part.keys)}:
                joined[-1] += f", {part.keys}"
            else:
                joined.append(part.keys)
    return [*map(Atom, joined), *(part for part in parts if not isinstance(part, Atom))]


def _flat(condition: Condition) -> Iterator[Condition]:
    if isinstance(condition, Every):
        for part in condition.parts:
            yield from _flat(part)
    else:
        yield condition


def tidy(text: Iterable[str]) -> list[str]:
    """Without lines that are never reached, jumps to the next line, and labels that nothing jumps to."""
    before: list[str] = []
    after = list(text)
    while before != after:
        before, after = after, []
        gone, targets = False, set(_GOTO.findall("\n".join(before)))
        for number, line in enumerate(before):
            label = _LABEL.fullmatch(line)
            if label and label[1] not in targets:
                continue
            gone = gone and not label
            if gone or ((jump := _GOTO.fullmatch(line)) and _is_next(jump[1], before[number + 1 :])):
                continue
            after.append(line)
            gone = "GOTO=" in line and not _CONDITION.search(line)
    return after


def _is_next(label: str, lines: list[str]) -> bool:
    return f'LABEL="{label}"' in takewhile(_LABEL.fullmatch, lines)
