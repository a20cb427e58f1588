# SPDX-License-Identifier: LGPL-2.1-or-later
"""Lines at keys: who has which, who waits, and who is next.

Nobody passes anybody whom he conflicts with. One's place is the same in all one's lines, so that no two wait for each
other. The next are found without a look at all who wait, for they may be thousands.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice, takewhile
from math import inf
from typing import Generic, TypeVar

from flavourd.keys import Keys

T = TypeVar("T")


class Lines(Generic[T]):
    def __init__(self) -> None:
        self._lines: dict[str, _Line[T]] = {}
        self._keys: dict[T, Keys] = {}
        self._front = self._back = 0

    def join(self, who: T, keys: Keys, *, first: bool = False) -> list[T]:
        """Those who have got their keys by that: he, or nobody. first: before all others that wait."""
        if first:
            place = self._front = self._front - 1
        else:
            place = self._back = self._back + 1
        self._keys[who] = keys
        for key in keys:
            line = self._lines.setdefault(key, _Line())
            waiting = line.alone if key in keys.alone else line.shared
            waiting[who] = place
            waiting.move_to_end(who, last=not first)
        return self._admit([who])

    def leave(self, *leaving: T) -> list[T]:
        """Those who have got their keys by that. leaving: whether they had theirs or not."""
        left = Keys().union(*(self._keys[who] for who in leaving))
        for who in leaving:
            for key in self._keys.pop(who):
                self._lines[key].leave(who)
        following = [who for key in left for who in self._lines[key].following(key in left.alone)]
        for key in left:
            if self._lines[key].empty:
                del self._lines[key]
        return self._admit(following)

    def behind(self, who: T) -> list[T]:
        """Those who wait and conflict with him, who has his keys."""
        keys = self._keys[who]
        lines = [self._lines[key].alone for key in keys] + [self._lines[key].shared for key in keys.alone]
        return list(dict.fromkeys(each for line in lines for each in line))

    def _admit(self, candidates: Iterable[T]) -> list[T]:
        """Give those of them their keys whom nothing is in the way of."""
        admitted = []
        for who in dict.fromkeys(candidates):
            lines = [self._lines[key] for key in self._keys[who]]
            if all(line.open_to(who) for line in lines):
                for line in lines:
                    line.admit(who)
                admitted.append(who)
        return admitted


class _Line(Generic[T]):
    """At one key. alone, shared: who waits to have it so, and his place, in their order. having: who has it. taken:
    that is one alone.
    """

    def __init__(self) -> None:
        self.alone: OrderedDict[T, int] = OrderedDict()
        self.shared: OrderedDict[T, int] = OrderedDict()
        self.having: set[T] = set()
        self.taken = False

    @property
    def empty(self) -> bool:
        return not (self.alone or self.shared or self.having)

    def open_to(self, who: T) -> bool:
        if who in self.shared:
            return not self.taken and self.shared[who] < _first(self.alone)
        return not self.having and self.alone[who] == min(_first(self.alone), _first(self.shared))

    def admit(self, who: T) -> None:
        self.taken = who in self.alone
        (self.alone if self.taken else self.shared).pop(who)
        self.having.add(who)

    def leave(self, who: T) -> None:
        if who in self.having:
            self.having.remove(who)
            self.taken = False
        else:
            (self.alone if who in self.alone else self.shared).pop(who)

    def following(self, alone: bool) -> Iterator[T]:
        """Those to whom it may be open now that somebody has left it. alone: who wanted it alone; anybody else was in
        the way of no one who shares it.
        """
        if alone and not self.taken:
            yield from takewhile(self.open_to, self.shared)
        if not self.having:
            yield from islice(self.alone, 1)


def _first(waiting: OrderedDict[T, int]) -> float:
    return next(iter(waiting.values()), inf)
