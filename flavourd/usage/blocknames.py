# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a path in /dev is called in /sys/class/block."""

import os
from functools import cached_property

from flavourd.usage import peek


class BlockNames:
    def __init__(self, root: str) -> None:
        self._root = root

    def of(self, path: str) -> str | None:
        """None if it is no path in /dev."""
        if not path.startswith("/"):
            return None
        real = os.path.realpath(self._root + path).removeprefix(self._root)
        if real.startswith("/dev/mapper/"):  # its node is no link (systems without udev), or is not in our /dev
            return self._mapped.get(real.removeprefix("/dev/mapper/"))
        return real.removeprefix("/dev/").replace("/", "!") if real.startswith("/dev/") else None

    @cached_property
    def _mapped(self) -> dict[str, str]:
        blocks = f"{self._root}/sys/class/block"
        names = (name for name in peek.names(blocks) if name.startswith("dm-"))
        return {shown: name for name in names if (shown := peek.text(f"{blocks}/{name}/dm/name"))}
