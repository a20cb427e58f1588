# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reading of what may vanish at any moment: whatever the kernel answers then, it is as if nothing were there."""

import os


def text(path: str) -> str | None:
    """Content without newlines at its end; None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return os.fsdecode(file.read()).rstrip("\n")
    except OSError:
        return None


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
