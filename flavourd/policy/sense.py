# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is wrong with files whose values look as they should, each told at its place."""

from collections.abc import Collection, Sequence
from dataclasses import fields
from itertools import islice

from flavourd.flavour import DEFAULT
from flavourd.policy.checks import Found, of_rule, of_selectors
from flavourd.policy.decode import MOST
from flavourd.policy.language import Match, PolicyFile, Rule
from flavourd.policy.problem import Problem, Severity
from flavourd.policy.reading import Path, Reading


def judge(readings: Sequence[Reading[PolicyFile]], flavours: Collection[str]) -> list[Problem]:
    """Problems of all files, which stand in the order in which they hold; of each file not many more than MOST."""
    known = {DEFAULT, *flavours}
    problems: list[Problem] = []
    first: str | None = None  # rule that matches everything; "" when that was told
    for reading in readings:
        found: list[tuple[Path, Found]] = []
        for index in range(_count(reading)):
            path: Path = ("rules", index)
            if len(found) < MOST:
                found += [(path, each) for each in of_rule(reading, path, known)]
            if first:
                message = f"this is never reached: {first} matches every device"
                found.append((path, Found((), message, severity=Severity.WARNING)))
                first = ""
            elif first is None and _matches_everything(reading.parts.get(path)):
                first = f"the rule in {reading.file}:{reading.places[path][0]}"
        found += islice(of_selectors(reading), MOST)
        problems += [_problem(reading, path, each) for path, each in found]
    return problems


def _problem(reading: Reading[PolicyFile], path: Path, found: Found) -> Problem:
    place = reading.places.get((*path, *found.path), reading.places[path])
    return reading.problem(place, found.message, found.hint, found.severity)


def _count(reading: Reading[PolicyFile]) -> int:
    """Of its rules, also of those that were not understood."""
    return sum(len(path) == 2 and path[0] == "rules" for path in reading.places)


def _matches_everything(rule: Rule | None) -> bool:
    if rule is None:
        return False
    asked = {field.name: value for field in fields(Match) if (value := getattr(rule.match, field.name)) is not None}
    return not asked or asked == {"bus": "*"}
