# SPDX-License-Identifier: LGPL-2.1-or-later
"""The system calls of a process and of its children, as `strace -ff -y` has written them down.

A file for each process, so that no call is told in two halves; of each descriptor the path.
"""

import posixpath
import re
from dataclasses import dataclass

# What has not come back (exit_group(), or what a signal has interrupted and begins anew) has `?` for a value.
_CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+)\b.*")
_DESCRIPTOR = re.compile(r"\d+<([^>]*)>")
_NAMED = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
# Of these, what is named lies below the descriptor; of others it is what they write there.
_AT = re.compile(r"\w*at2?|statx")
_ADDRESS = re.compile(r'sun_path=@?"([^"]*)"')


@dataclass(frozen=True)
class Call:
    """arguments: as strace shows them. value: what came back; -1 for an error."""

    name: str
    arguments: str
    value: int

    @property
    def file(self) -> str:
        """The file that is named (of two, the first); empty if none is."""
        match = _NAMED.match(self.arguments)
        if not match or (match[1] is not None and not _AT.fullmatch(self.name)):
            return ""
        return posixpath.normpath(posixpath.join(match[1] or "", match[2]))

    @property
    def descriptor(self) -> str:
        """The path behind the descriptor that is the first argument; empty if that is none."""
        match = _DESCRIPTOR.match(self.arguments)
        return match[1] if match else ""

    @property
    def address(self) -> str:
        """The path of the socket that is named; empty if none is."""
        match = _ADDRESS.search(self.arguments)
        return match[1] if match else ""


def calls(text: str) -> list[Call]:
    """Those that have come back."""
    found = map(_CALL.fullmatch, text.splitlines())
    return [Call(match[1], match[2], int(match[3])) for match in found if match]
