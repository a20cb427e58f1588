# SPDX-License-Identifier: LGPL-2.1-or-later
"""Lists and verbs of sentences, and names that may go into them."""

import shlex
from collections.abc import Iterable, Sized

_SHOWN = 3


def listed(words: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`, `a, b, c and 4 more`; each word once."""
    some = list(dict.fromkeys(words))
    shown = some if len(some) <= _SHOWN else [*some[:_SHOWN], f"{len(some) - _SHOWN} more"]
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def verb(subject: Sized, one: str, more: str) -> str:
    return one if len(subject) == 1 else more


def quoted(word: str) -> str:
    """As a shell takes it."""
    return shlex.quote(word)


def printable(text: str) -> str:
    """Names of volumes, mount points and processes may hold anything, and sentences go into logs and terminals."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
