# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reading of what may vanish at any moment: whatever the kernel answers then, it is as if nothing were there."""

import os
from functools import partial

# A file object asks the kernel for things that it need not know here, and there are many small files.
_AT_ONCE = 1 << 16


def text(path: str) -> str | None:
    """Content without newlines at its end; None if it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        parts = iter(partial(os.read, fd, _AT_ONCE), b"")
        return os.fsdecode(b"".join(parts)).rstrip("\n")
    except OSError:
        return None
    finally:
        os.close(fd)


def names(directory: str) -> tuple[str, ...]:
    """Sorted; none if it cannot be read."""
    try:
        return tuple(sorted(os.listdir(directory)))
    except OSError:
        return ()


def target(link: str) -> str | None:
    """The last part of the path that a link holds; None if it cannot be read."""
    try:
        return os.readlink(link).rpartition("/")[2]
    except OSError:
        return None


def below(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place}/")
