# SPDX-License-Identifier: LGPL-2.1-or-later
"""When a device under policy may be tried again, and when it is left to whoever changes it."""

from flavourd.keeper.memory import Memory
from flavourd.policy.language import Rule

_RULE = Rule("vfio")


def memory() -> Memory:
    return Memory(7, present=True)


def test_each_drift_is_mended_later_than_the_last_and_the_fifth_is_not() -> None:
    it = memory()
    pauses = []
    now = 0.0
    for count in range(1, 6):
        it.follows(_RULE)
        now += 20
        assert it.drifted(now) == count
        pauses.append(it.not_before - now)
        assert it.contested == (count == 5)
    assert pauses[:4] == [1, 2, 4, 8]


def test_who_changes_it_now_and_then_is_never_given_in_to() -> None:
    it = memory()
    for hour in range(100):
        it.follows(_RULE)
        assert it.drifted(hour * 3600.0) == 1
    assert not it.contested


def test_an_explicit_request_or_another_policy_begins_anew() -> None:
    it = memory()
    for _ in range(5):
        it.drifted(0.0)
    it.begin_anew()
    assert (it.contested, it.drifting, it.not_before) == (False, False, 0.0)
    assert it.drifted(1.0) == 1


def test_what_fails_is_tried_less_and_less_often_and_at_once_after_it_went_well() -> None:
    it = memory()
    now, pauses = 0.0, []
    for _ in range(14):
        it.failed(now, touched=False)
        pauses.append(it.not_before - now)
        now = it.not_before
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-1] == 3600
    it.done(_RULE)
    assert (it.not_before, it.applied, it.followed) == (0.0, _RULE, True)
    it.failed(now, touched=False)
    assert it.not_before == now + 1


def test_a_device_that_was_taken_from_its_driver_in_vain_is_left_in_peace_for_longer() -> None:
    it = memory()
    it.failed(0.0, touched=True)
    assert it.not_before == 300


def test_events_right_after_an_attempt_are_its_own() -> None:
    it = memory()
    assert not it.echoes(0.0)
    it.failed(10.0, touched=True)
    assert it.echoes(11.0)
    assert not it.echoes(13.0)


def test_a_pf_may_need_two_requests_before_it_is_as_the_rule_says() -> None:
    """The first brings it to its native driver, which alone can make VFs."""
    it, makes_vfs = memory(), Rule("default", vfs=4)
    it.done(makes_vfs)
    assert (it.followed, it.applied) == (False, None)
    it.done(makes_vfs)
    assert (it.followed, it.applied) == (True, makes_vfs)
    it.follows(makes_vfs)
    assert it.drifted(0.0) == 1
    it.done(makes_vfs)
    assert not it.followed
