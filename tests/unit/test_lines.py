# SPDX-License-Identifier: LGPL-2.1-or-later
"""Lines: nobody passes whom he conflicts with, those who share a key go together, and nobody who could go waits."""

from hypothesis import given, settings
from hypothesis import strategies as st

from flavourd.keys import Keys
from flavourd.lines import Lines


def keys(alone: str = "", shared: str = "") -> Keys:
    return Keys(frozenset(alone), frozenset(shared))


def test_who_wants_a_key_alone_has_it_before_whoever_comes_later() -> None:
    lines: Lines[int] = Lines()
    assert lines.join(1, keys("a")) == [1]
    assert lines.join(2, keys("ab")) == []
    assert lines.join(3, keys("b")) == [], "it does not pass the one before"
    assert lines.join(4, keys("c")) == [4]
    assert lines.leave(1) == [2]
    assert lines.leave(2) == [3]


def test_those_who_share_a_key_have_it_together_and_pass_nobody_who_wants_it_alone() -> None:
    lines: Lines[int] = Lines()
    assert lines.join(1, keys(shared="a")) == [1]
    assert lines.join(2, keys(shared="a")) == [2]
    assert lines.join(3, keys("a")) == []
    assert lines.join(4, keys(shared="a")) == []
    assert lines.join(5, keys(shared="a")) == []
    assert lines.join(6, keys("a")) == []
    assert lines.leave(2) == []
    assert lines.leave(1) == [3]
    assert lines.leave(3) == [4, 5]
    assert lines.leave(4) == []
    assert lines.leave(5) == [6]


def test_one_who_shares_a_key_passes_one_who_waits_for_another() -> None:
    lines: Lines[int] = Lines()
    lines.join(1, keys("a"))
    assert lines.join(2, keys("a", "s")) == []
    assert lines.join(3, keys("b", "s")) == [3]
    assert lines.join(4, keys("s")) == []
    assert lines.leave(3) == [], "one stands before it who waits for another key"
    assert lines.leave(1) == [2]
    assert lines.leave(2) == [4]


def test_when_one_who_waits_leaves_those_behind_him_move_up() -> None:
    lines: Lines[int] = Lines()
    lines.join(1, keys(shared="a"))
    lines.join(2, keys("a"))
    lines.join(3, keys("b", "a"))
    lines.join(4, keys("b"))
    lines.join(5, keys(shared="a"))
    assert lines.leave(2) == [3, 5]
    assert lines.leave(3, 1) == [4]


def test_when_one_leaves_who_waits_to_share_a_key_the_one_behind_who_wants_it_alone_moves_up() -> None:
    lines: Lines[int] = Lines()
    lines.join(1, keys("a"))
    lines.join(2, keys("a", "s"))
    assert lines.join(3, keys("s")) == []
    assert lines.leave(2) == [3]


def test_the_first_ones_go_before_all_who_wait_the_last_of_them_before_the_others() -> None:
    lines: Lines[int] = Lines()
    lines.join(1, keys("ab"))
    lines.join(2, keys("a", "s"))
    lines.join(3, keys("a", "s"), first=True)
    lines.join(4, keys("ab", "s"), first=True)
    assert lines.join(5, keys("s"), first=True) == [5]
    assert lines.leave(1) == []
    assert lines.leave(5) == [4]
    assert lines.leave(4) == [3]
    assert lines.leave(3) == [2]


def test_behind_somebody_are_those_who_conflict_with_him() -> None:
    lines: Lines[int] = Lines()
    lines.join(1, keys("a", "s"))
    lines.join(2, keys("b", "s"))
    lines.join(3, keys("s"))
    lines.join(4, keys("ab"))
    lines.join(5, keys("c", "s"))
    lines.join(6, keys("d", "ab"))
    assert lines.behind(1) == [4, 3, 6]
    assert lines.behind(2) == [4, 3, 6]


# --- against a model


class Model:
    """Says the same in as few words as possible, by a look at everybody."""

    def __init__(self) -> None:
        self.having: dict[int, Keys] = {}
        self.waiting: dict[int, Keys] = {}  # in the order of their places

    def join(self, who: int, wanted: Keys, first: bool) -> set[int]:
        self.waiting = {who: wanted, **self.waiting} if first else {**self.waiting, who: wanted}
        return self._admit()

    def leave(self, leaving: list[int]) -> set[int]:
        for who in leaving:
            self.having.pop(who, None)
            self.waiting.pop(who, None)
        return self._admit()

    def behind(self, who: int) -> set[int]:
        return {each for each, wanted in self.waiting.items() if wanted.between(self.having[who])}

    def _admit(self) -> set[int]:
        admitted = set()
        before: list[Keys] = []
        for who, wanted in list(self.waiting.items()):
            if any(wanted.between(other) for other in (*self.having.values(), *before)):
                before.append(wanted)
            else:
                admitted.add(who)
                self.having[who] = self.waiting.pop(who)
        return admitted


class Pair:
    """Lines and their model, which are told the same and must answer the same."""

    def __init__(self) -> None:
        self.lines: Lines[int] = Lines()
        self.model = Model()
        self.joined = 0

    def join(self, wanted: Keys, first: bool) -> None:
        self.joined += 1
        came = self.lines.join(self.joined, wanted, first=first)
        self._same(came, self.model.join(self.joined, wanted, first))

    def leave(self, *leaving: int) -> None:
        self._same(self.lines.leave(*leaving), self.model.leave([*leaving]))

    def behind(self, who: int) -> None:
        self._same(self.lines.behind(who), self.model.behind(who))

    @staticmethod
    def _same(found: list[int], expected: set[int]) -> None:
        assert len(found) == len(set(found))
        assert set(found) == expected


_NAMES = st.frozensets(st.sampled_from("abcde"), max_size=3)
_KEYS = st.builds(Keys, _NAMES, _NAMES)
_JOIN = st.tuples(_KEYS, st.integers(0, 9))
# Each picks among those who are there, by numbers that are taken modulo how many they are.
_LEAVE = st.lists(st.integers(0, 99), min_size=1, max_size=3)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.lists(st.one_of(_JOIN, _JOIN, _LEAVE), max_size=60))
def test_whoever_comes_and_goes_they_are_as_the_model_says_and_all_have_their_keys_in_the_end(
    story: list[tuple[Keys, int] | list[int]],
) -> None:
    pair = Pair()
    model = pair.model
    for event in story:
        there = sorted([*model.having, *model.waiting])
        if isinstance(event, tuple):
            wanted, dice = event
            pair.join(wanted, first=dice == 0)
        elif there:
            pair.leave(*{there[number % len(there)] for number in event})
        for who in model.having:
            pair.behind(who)
    while model.having:
        pair.leave(next(iter(model.having)))
    assert not model.waiting, "nobody waits for nobody"
    assert (pair.lines._keys, pair.lines._lines) == ({}, {})
