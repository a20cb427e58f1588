# SPDX-License-Identifier: LGPL-2.1-or-later
"""What requests have in common with others, and so why some of them cannot be carried out at the same time."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Keys:
    """alone: nobody else may have these meanwhile. shared: others may have them too, but nobody alone."""

    alone: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()

    def __iter__(self) -> Iterator[str]:
        """All of them, in an order that is the same for everybody."""
        return iter(sorted(self.alone | self.shared))

    def union(self, *others: "Keys") -> "Keys":
        """Who wants a key alone for one thing and shares it for another wants it alone."""
        alone = self.alone.union(*(other.alone for other in others))
        return Keys(alone, self.shared.union(*(other.shared for other in others)) - alone)

    def between(self, other: "Keys") -> frozenset[str]:
        """Because of which the two cannot be at the same time."""
        return self.alone & (other.alone | other.shared) | self.shared & other.alone
