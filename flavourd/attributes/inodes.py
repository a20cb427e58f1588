# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which nodes the kernel knows, by the numbers under which it knows them.

The kernel holds an inode's lock while it is written to, and who waits for such a lock cannot be killed. So
driver_flavour gets another number each time that it is looked up, that is whenever it is opened: no writer waits for
another one. What stat(2) shows is Node.number all the same, for that is asked for anew.
"""

from itertools import count

from flavourd.attributes.tree import FLAVOUR, ROOT, Node

_FRESH = 1 << 63  # sysfs never comes near


class Inodes:
    def __init__(self) -> None:
        self._nodes: dict[int, Node] = {ROOT.number: ROOT}
        self._looked_up: dict[int, int] = {}
        self._fresh = count(_FRESH)

    def __getitem__(self, number: int) -> Node:
        return self._nodes[number]

    def __len__(self) -> int:
        return len(self._nodes)

    def looked_up(self, node: Node) -> int:
        """The number to be told to the kernel."""
        return self._count(next(self._fresh) if node.file == FLAVOUR else node.number, node)

    def listed(self, node: Node) -> int:
        """The same of what a directory is listed with: nobody opens that before he has looked it up."""
        return self._count(node.number, node)

    def forget(self, number: int, times: int) -> None:
        """The kernel has let go of it, so often."""
        left = self._looked_up.get(number, 0) - times
        if left > 0:
            self._looked_up[number] = left
        elif number != ROOT.number:
            self._looked_up.pop(number, None)
            self._nodes.pop(number, None)

    def _count(self, number: int, node: Node) -> int:
        self._nodes[number] = node
        self._looked_up[number] = self._looked_up.get(number, 0) + 1
        return number
