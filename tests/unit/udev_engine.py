# SPDX-License-Identifier: LGPL-2.1-or-later
"""So much of udev's rules as the generated ones use, to compare what they do with what the policy says.

It is no proof of what udev does: the virtual machine is. It holds to udev(7): lines in order, a GOTO leads to the next
label of its name, all keys of a line must match, and a key whose attribute is missing matches neither way.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

_TOKEN = re.compile(r'([A-Z]+)(?:\{([^}]*)\})?(==|!=|\+=|=)"([^"]*)"(?:, |$)')


@dataclass
class Event:
    """keys: DEVPATH, KERNEL, SUBSYSTEM, DRIVER, ACTION. written: attributes that the rules wrote."""

    keys: Mapping[str, str]
    attributes: Mapping[str, str]
    files: frozenset[str]
    properties: dict[str, str] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    written: dict[str, str] = field(default_factory=dict)

    def run(self, text: str) -> "Event":
        lines = [_tokens(line) for line in text.splitlines() if line and not line.startswith("#")]
        target = None
        for line in lines:
            if target is None and all(self._matches(*token) for token in line if token[2] in ("==", "!=")):
                for key, name, operator, value in line:
                    if operator in ("=", "+="):
                        target = self._carry_out(key, name, value) or target
            elif target is not None and line[0] == ("LABEL", "", "=", target):
                target = None
        assert target is None, f"there is no label {target} further down"
        return self

    def _matches(self, key: str, name: str, operator: str, value: str) -> bool:
        if key == "TEST":
            return (value in self.files) == (operator == "==")
        if key == "ATTR" and name not in self.attributes:
            return False
        has = {"ATTR": self.attributes, "ENV": self.properties}.get(key, self.keys).get(name or key, "")
        return any(fnmatchcase(has, one) for one in value.split("|")) == (operator == "==")

    def _carry_out(self, key: str, name: str, value: str) -> str | None:
        match key:
            case "GOTO":
                return value
            case "TAG":
                self.tags.add(value)
            case "ENV":
                self.properties[name] = value
            case "ATTR":
                self.written[name] = value
            case _:
                assert key in ("LABEL", "IMPORT"), key
        return None


def _tokens(line: str) -> list[tuple[str, str, str, str]]:
    tokens = [match.groups(default="") for match in _TOKEN.finditer(line)]
    assert sum(len(match[0]) for match in _TOKEN.finditer(line)) == len(line), f"udev would not read {line}"
    assert len(line) < 16000, "udev ignores such a line"
    return [(key, name, operator, value) for key, name, operator, value in tokens]
