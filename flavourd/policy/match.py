# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which rule holds for a device.

All rules are looked at together: their matches are laid over each other into one tree, whose nodes answer with a set of
rules, an int with a bit for each. So a device costs a few look-ups for each selector that any rule uses, however many
rules there are, and `all`, `any` and `not` are operations on such sets.
"""

import fnmatch
from collections.abc import Iterator, Mapping
from operator import attrgetter

from flavourd.policy.language import Match, PlacedRule, Policy, Rule
from flavourd.policy.selectors import SELECTORS, classes, ranges, within
from flavourd.policy.tables import Classes, Indexes, Table, Words
from flavourd.policy.why import Why, refusal, unexpected
from flavourd.traits import Trait, Traits


class Matcher:
    def __init__(self, policy: Policy) -> None:
        self.rules = policy.rules
        self._root = _Node({number: placed.rule.match for number, placed in enumerate(self.rules)})
        self.needs: frozenset[Trait] = frozenset(need for placed in self.rules for need in needs(placed.rule))

    def rule(self, traits: Traits) -> PlacedRule | None:
        """The first that matches."""
        found = self._root.at(_Values(traits))
        return self.rules[(found & -found).bit_length() - 1] if found else None

    def expected(self, placed: PlacedRule, traits: Traits) -> str | None:
        """None if the device has the ids that the rule expects, else a sentence."""
        return unexpected(placed.rule.expect, traits) if placed.rule.expect else None

    def explain(self, traits: Traits) -> tuple[Why, ...]:
        """Of every rule, in order, why it holds for the device or not."""
        found, whys = False, []
        for placed in self.rules:
            why = refusal(placed.rule.match, traits)
            if found:
                reason = f"comes later: the first match wins; {why or 'it would match, too'}"
            else:
                reason = why or "every selector holds"
            whys.append(Why(placed, matches=not found and why is None, reason=reason))
            found = found or why is None
        return tuple(whys)


def needs(rule: Rule) -> Iterator[Trait]:
    """What has to be read of devices that the rule is asked about."""
    if rule.expect and rule.expect.serial is not None:
        yield Trait.SERIAL
    for match in within(rule.match):
        yield from (each.need for each in SELECTORS if each.need and getattr(match, each.key) is not None)
        if match.property is not None:
            yield Trait.PROPERTY


class _Values(dict[str, str | None]):
    """What a device has, by selector; each looked up once and only if it is asked for."""

    def __init__(self, traits: Traits) -> None:
        super().__init__()
        self._traits = traits

    def __missing__(self, key: str) -> str | None:
        kind, _, name = key.partition(":")
        self[key] = self._traits.properties.get(name) if name else _VALUES[kind](self._traits)
        return self[key]


_VALUES = {each.key: each.value for each in SELECTORS} | {
    "class_": attrgetter("class_code"),
    "vf": lambda traits: None if traits.vf is None else str(traits.vf),
}


class _Node:
    """What stands at one place of the matches of some rules: `any: [A, …]` is one of their first branches."""

    def __init__(self, matches: Mapping[int, Match]) -> None:
        self.rules = sum(1 << number for number in matches)
        self._tables = tuple(_tables(matches, self.rules))
        self._all = _branches({number: match.all for number, match in matches.items() if match.all is not None})
        asked = {number: match.any for number, match in matches.items() if match.any is not None}
        self._any = _branches(asked)
        self._without_any = self.rules & ~sum(1 << number for number in asked)
        nots = {number: match.not_ for number, match in matches.items() if match.not_ is not None}
        self._not = _Node(nots) if nots else None

    def at(self, values: _Values) -> int:
        """Those of the rules whose match holds, as far as it stands at this place and below."""
        found = self.rules
        for key, table in self._tables:
            value = values[key]
            found &= table.others if value is None else table.at(value)
            if not found:
                return 0
        for branch in self._all:
            if found & branch.rules:
                found &= ~branch.rules | branch.at(values)
        if self._without_any != self.rules:
            some = self._without_any
            for branch in self._any:
                if found & branch.rules & ~some:
                    some |= branch.at(values)
            found &= some
        if self._not and found & self._not.rules:
            found &= ~self._not.at(values)
        return found


def _branches(lists: Mapping[int, tuple[Match, ...]]) -> tuple[_Node, ...]:
    """Of all these rules together the first branches, the second ones, …"""
    longest = max(map(len, lists.values()), default=0)
    return tuple(
        _Node({number: matches[place] for number, matches in lists.items() if len(matches) > place})
        for place in range(longest)
    )


def _tables(matches: Mapping[int, Match], everyone: int) -> Iterator[tuple[str, Table]]:
    for selector in SELECTORS:
        words = [(n, asked) for n, match in matches.items() if (asked := selector.patterns(match)) is not None]
        if words:
            yield selector.key, Words(words, everyone, selector.regex)
    if of_class := [(n, codes) for n, match in matches.items() if (codes := classes(match)) is not None]:
        yield "class_", Classes(of_class, everyone)
    if of_vfs := [(n, ranges(match.vf)) for n, match in matches.items() if match.vf is not None]:
        yield "vf", Indexes(of_vfs, everyone)
    properties = {n: match.property for n, match in matches.items() if match.property}
    for name in sorted(set().union(*properties.values())):
        globs = [(n, (wanted[name],)) for n, wanted in properties.items() if name in wanted]
        yield f"property:{name}", Words(globs, everyone, fnmatch.translate)
