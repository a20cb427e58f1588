# SPDX-License-Identifier: LGPL-2.1-or-later
"""What can be said of a rule before any driver has bound a device and before udev's rules have run.

A parked device never meets its native driver. So a rule that asks for that driver must count as one that may match, or
a later rule would win for good.
"""

from dataclasses import replace

from flavourd.policy.language import Match
from flavourd.policy.selectors import within
from flavourd.policy.why import refusal
from flavourd.traits import Traits

_NEVER: tuple[Match, ...] = ()  # as `any`: one of none holds


def may_match(match: Match, traits: Traits) -> bool:
    return refusal(_settled(match, traits, wide=True), traits) is None


def surely_matches(match: Match, traits: Traits) -> bool:
    return refusal(_settled(match, traits, wide=False), traits) is None


def asks_for_later(match: Match) -> bool:
    """Whether anything in it may only become known later."""
    return any(each.driver is not None or each.property for each in within(match))


def _settled(match: Match, traits: Traits, wide: bool) -> Match:
    """What is not known yet taken as holding (`wide`) or not; below a `not` it is the other way round."""
    no_driver = match.driver is not None and traits.driver is None
    no_property = match.property is not None and not traits.properties.keys() >= match.property.keys()
    return replace(
        match,
        driver=None if no_driver else match.driver,
        property=None if no_property else match.property,
        all=match.all and tuple(_settled(each, traits, wide) for each in match.all),
        any=_NEVER
        if (no_driver or no_property) and not wide
        else match.any and tuple(_settled(each, traits, wide) for each in match.any),
        not_=match.not_ and _settled(match.not_, traits, not wide),
    )
