# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is asked for together, and what is not asked for at all."""

from collections.abc import Sequence

from flavourd.device import DeviceId
from flavourd.errors import Code
from flavourd.keeper.transactions import Limits, transactions
from flavourd.policy.language import PlacedRule, Rule
from flavourd.request import Request
from flavourd.verdict import Means, Verdict, request_of

_A, _B, _C = (DeviceId("pci", f"0000:0{number}:00.0") for number in (1, 2, 3))
_ALONE = PlacedRule(0, Rule("vfio"), "a.yaml", 1)
_GROUP = PlacedRule(1, Rule("vfio", group=True), "a.yaml", 5)
_DEFAULT = PlacedRule(2, Rule("default", group=True), "a.yaml", 9)


def verdicts(**means: tuple[DeviceId, PlacedRule | None, Means]) -> dict[DeviceId, Verdict]:
    return {
        device: Verdict(device, placed, what, what, request_of(placed, device) if what == "change" and placed else None)
        for device, placed, what in means.values()
    }


def group(_device: DeviceId) -> Sequence[DeviceId]:
    return (_A, _B)


def devices(asked: Sequence[Sequence[Request]]) -> list[list[DeviceId]]:
    return [[request.device for request in requests] for requests in asked]


def test_each_device_is_asked_for_by_itself() -> None:
    of = verdicts(a=(_A, _ALONE, Means.CHANGE), b=(_B, _ALONE, Means.CHANGE), c=(_C, _ALONE, Means.SATISFIED))
    asked, refused = transactions(of, [_B, _A], group)
    assert (devices(asked), refused) == ([[_A], [_B]], [])


def test_only_what_is_ready_is_asked_for() -> None:
    of = verdicts(a=(_A, _ALONE, Means.CHANGE), b=(_B, _ALONE, Means.CHANGE))
    assert devices(transactions(of, [_B], group)[0]) == [[_B]]


def test_a_group_is_one_transaction_whichever_member_is_ready() -> None:
    of = verdicts(a=(_A, _GROUP, Means.CHANGE), b=(_B, _GROUP, Means.CHANGE))
    for ready in ([_A], [_B], [_A, _B]):
        (asked,), refused = transactions(of, ready, group)
        assert [request.device for request in asked] == [_A, _B]
        assert [request.beside for request in asked] == [{_B}, {_A}]
        assert not refused


def test_members_that_are_there_already_stay_there() -> None:
    of = verdicts(a=(_A, _GROUP, Means.CHANGE), b=(_B, _ALONE, Means.SATISFIED))
    assert devices(transactions(of, [_A], group)[0]) == [[_A]]


def test_a_group_one_member_of_which_is_to_be_elsewhere_is_not_touched_and_that_is_told_once() -> None:
    for other, means in ((_DEFAULT, Means.SATISFIED), (None, Means.NONE), (_ALONE, Means.LEFT), (_ALONE, Means.KEPT)):
        of = verdicts(a=(_A, _GROUP, Means.CHANGE), b=(_B, other, means))
        asked, (refused,) = transactions(of, [_A], group)
        assert asked == []
        assert (refused.error.code, refused.device, refused.placed) == (Code.TOGETHER, _A, _GROUP)
        assert str(_B) in refused.error.sentence


def test_a_group_one_member_of_which_is_in_work_waits_for_it() -> None:
    assert transactions(verdicts(a=(_A, _GROUP, Means.CHANGE)), [_A], group) == ([], [])


def test_the_way_back_is_each_devices_own() -> None:
    of = verdicts(a=(_A, _DEFAULT, Means.CHANGE))
    assert devices(transactions(of, [_A], group)[0]) == [[_A]]


# --- max-changes


def limited(most: int) -> PlacedRule:
    return PlacedRule(4, Rule("vfio", max_changes=most), "b.yaml", 1)


def within(
    limits: Limits, of: dict[DeviceId, Verdict], *ready: DeviceId, now: float = 0.0
) -> tuple[list[list[DeviceId]], list[str]]:
    asked, _ = transactions(of, ready, group)
    found, refused = limits.within(asked, of, now)
    return devices(found), [each.error.code for each in refused]


def test_a_rule_that_would_change_more_than_it_may_changes_none() -> None:
    of = verdicts(a=(_A, limited(1), Means.CHANGE), b=(_B, limited(1), Means.CHANGE), c=(_C, _ALONE, Means.CHANGE))
    limits = Limits()
    assert within(limits, of, _A, _B, _C) == ([[_C]], [Code.MAX_CHANGES])
    asked, _ = transactions(of, [_A, _B], group)
    assert limits.within(asked, of, 0.0)[1] == [], "that is no news"
    limits.begin_anew()
    (refused,) = limits.within(asked, of, 0.0)[1]
    assert "2 devices" in refused.error.sentence
    assert str(_A) in refused.error.hint


def test_and_as_many_as_it_may_are_changed() -> None:
    of = verdicts(a=(_A, limited(2), Means.CHANGE), b=(_B, limited(2), Means.CHANGE))
    assert within(Limits(), of, _A, _B) == ([[_A], [_B]], [])


def test_what_was_held_back_does_not_come_through_one_by_one() -> None:
    limits = Limits()
    both = verdicts(a=(_A, limited(1), Means.CHANGE), b=(_B, limited(1), Means.CHANGE))
    assert within(limits, both, _A, _B)[0] == []
    one = verdicts(a=(_A, limited(1), Means.CHANGE))
    assert within(limits, one, _A)[0] == []
    assert within(limits, verdicts(b=(_B, limited(1), Means.SATISFIED))) == ([], [])
    assert within(limits, one, _A)[0] == [[_A]], "the other one is where it is to be by now"
    assert within(limits, both, _A, _B)[0] == []
    limits.begin_anew()
    assert within(limits, one, _A)[0] == [[_A]]


def test_who_comes_one_after_the_other_comes_at_once() -> None:
    """As the devices behind a bridge do that is plugged in, or the VFs of a PF."""
    limits = Limits()
    one, other, third = (verdicts(a=(device, limited(2), Means.CHANGE)) for device in (_A, _B, _C))
    assert within(limits, one, _A, now=0.0) == ([[_A]], [])
    assert within(limits, one, _A, now=10.0) == ([[_A]], []), "again the same one"
    assert within(limits, other, _B, now=20.0) == ([[_B]], [])
    assert within(limits, third, _C, now=30.0) == ([], [Code.MAX_CHANGES])
    limits.begin_anew()
    assert within(limits, third, _C, now=40.0) == ([], [Code.MAX_CHANGES])
    limits.begin_anew()
    assert within(limits, third, _C, now=75.0) == ([[_C]], []), "the first one was a minute ago"


def test_a_transaction_that_is_within_one_rule_and_beyond_another_is_not_made() -> None:
    tight = PlacedRule(5, Rule("vfio", group=True, max_changes=1), "c.yaml", 1)
    of = verdicts(a=(_A, tight, Means.CHANGE), b=(_B, _GROUP, Means.CHANGE))
    assert within(Limits(), of, _A) == ([[_A, _B]], [])
    of = verdicts(a=(_A, tight, Means.CHANGE), b=(_B, tight, Means.CHANGE))
    assert within(Limits(), of, _A) == ([], [Code.MAX_CHANGES])
