# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a value in a configuration file must look like: said once, in its type, for the decoder and the JSON Schema."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """pattern: regular expression that the whole text matches, in what Python and ECMA 262 have in common.
    expected: for people, to follow `is not`.
    """

    pattern: str
    expected: str


@dataclass(frozen=True)
class Number:
    lowest: int
    highest: int


def key(name: str) -> Mapping[str, str]:
    """Metadata of a dataclass field that has another name in the file."""
    return {"key": name}
