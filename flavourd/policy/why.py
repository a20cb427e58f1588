# SPDX-License-Identifier: LGPL-2.1-or-later
"""Why a rule does not hold for a device, in words for people."""

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass

from flavourd.policy.language import Expect, Match, PlacedRule
from flavourd.policy.selectors import SELECTORS, classes, holds, in_class, in_ranges, ranges
from flavourd.traits import Traits


@dataclass(frozen=True)
class Why:
    """reason: which selector said no and what the device has, or that all hold, or that an earlier rule was taken."""

    rule: PlacedRule
    matches: bool
    reason: str


def refusal(match: Match, traits: Traits) -> str | None:
    """The first selector that does not hold; None if all do."""
    return next(_refusals(match, traits), None)


def _refusals(match: Match, traits: Traits) -> Iterator[str]:
    for selector in SELECTORS:
        patterns, value = selector.patterns(match), selector.value(traits)
        if patterns is not None and not (value is not None and any(holds(p, value, selector.regex) for p in patterns)):
            yield _is_not(selector.name, value, patterns)
    of_class, code = classes(match), traits.class_code
    if of_class is not None and not (code and any(in_class(code, wanted) for wanted in of_class)):
        yield _is_not("class", code, (match.class_,) if isinstance(match.class_, str) else match.class_ or ())
    if match.vf is not None and (traits.vf is None or not in_ranges(traits.vf, ranges(match.vf))):
        yield "it is no VF" if traits.vf is None else _is_not("vf", str(traits.vf), (match.vf,))
    for name, glob in (match.property or {}).items():
        value = traits.properties.get(name)
        if value is None or not holds(glob, value, fnmatch.translate):
            yield _is_not(f"property {name}", value, (glob,))
    for number, below in enumerate(match.all or (), start=1):
        if why := refusal(below, traits):
            yield f"entry {number} of all: {why}"
    if match.any is not None:
        whys = [refusal(below, traits) for below in match.any]
        if None not in whys:
            yield f"none of any holds: {'; '.join(filter(None, whys))}"
    if match.not_ is not None and refusal(match.not_, traits) is None:
        yield "what stands below `not` holds"


def _is_not(name: str, value: str | None, wanted: tuple[str, ...]) -> str:
    asked = ", ".join(wanted)
    one = f"one of {asked}" if len(wanted) > 1 else asked
    return f"{name} is {value}, not {one}" if value else f"it has no {name}, and {one} is asked for"


def unexpected(expect: Expect, traits: Traits) -> str | None:
    """None if the device has the ids that are expected, else a sentence that tells all that differ."""
    found = []
    for selector in SELECTORS:
        asked = getattr(expect, selector.key, None)
        if asked is not None and selector.value(traits) != (wanted := selector.pattern(asked)):
            found.append(f"{selector.name} is {selector.value(traits) or 'not known'}, the rule expects {wanted}")
    return "; ".join(found) or None
