# SPDX-License-Identifier: LGPL-2.1-or-later
"""Keys: what two requests have in common, and when that keeps them apart."""

from itertools import pairwise

from flavourd.keys import Keys


def keys(alone: str = "", shared: str = "") -> Keys:
    return Keys(frozenset(alone), frozenset(shared))


def test_two_who_share_a_key_are_not_in_each_others_way_and_who_wants_it_alone_is() -> None:
    assert not keys(shared="ab").between(keys("c", "ab"))
    assert keys("ab", "c").between(keys("b", "acd")) == {"a", "b"}
    assert keys("b", "acd").between(keys("ab", "c")) == {"a", "b"}
    assert keys("ab").between(keys("bc")) == {"b"}
    assert not keys("a", "b").between(keys("c", "d"))


def test_in_a_union_alone_wins_whichever_comes_first() -> None:
    assert keys("a", "bc").union(keys("b", "ad")) == keys("ab", "cd")
    assert keys("b", "ad").union(keys("a", "bc")) == keys("ab", "cd")
    assert keys().union(keys(shared="a"), keys(shared="b"), keys("b")) == keys("b", "a")
    assert keys("a").union() == keys("a")


def test_all_of_them_come_once_and_in_one_order_for_everybody() -> None:
    assert list(keys("ca", "dba")) == ["a", "b", "c", "d"]
    names = list(Keys(frozenset({"PF pci/b", "pci/a"}), frozenset({"IOMMU group 9"})))
    assert all(one < next_one for one, next_one in pairwise(names))
