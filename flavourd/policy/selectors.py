# SPDX-License-Identifier: LGPL-2.1-or-later
"""What each selector of a rule is compared with: the one place that says how a pattern and a device are read.

Patterns and values are brought into one form first (ids to four digits, PCI addresses to their whole length), so that
all that compare, one by one or a thousand at once, compare plain texts.
"""

import fnmatch
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from flavourd.device import DeviceId
from flavourd.module_index import normal_alias
from flavourd.policy.classes import class_of
from flavourd.policy.language import Match
from flavourd.traits import Trait, Traits

_SPECIAL = frozenset("*?[")
# Bus, slot and function without a domain, as people write them: `65:00.*`.
_NO_DOMAIN = re.compile(r"(?:[0-9a-f?]|\[[^]]*\]){2}:[^:]*")


@dataclass(frozen=True)
class Selector:
    """name: in a policy file; key: in Match. pattern: form of what stands in a rule; value: of what a device has, None
    if it has none. regex: from a pattern in that form to what the whole value must match. need: what has to be read
    for it.
    """

    name: str
    key: str
    pattern: Callable[[str], str]
    value: Callable[[Traits], str | None]
    regex: Callable[[str], str] = fnmatch.translate
    need: Trait | None = None

    def patterns(self, match: Match) -> tuple[str, ...] | None:
        """None if the rule does not ask."""
        asked = getattr(match, self.key)
        return None if asked is None else tuple(map(self.pattern, _several(asked)))


def within(match: Match) -> Iterator[Match]:
    """Itself and all that stand below its `all`, `any` and `not`."""
    yield match
    for below in (*(match.all or ()), *(match.any or ()), *((match.not_,) if match.not_ else ())):
        yield from within(below)


def _several(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def is_glob(pattern: str) -> bool:
    return not _SPECIAL.isdisjoint(pattern)


def hex_id(text: str) -> str:
    return f"{int(text, 16):04x}"


def address(text: str) -> str:
    """`BUS/NAME`; what names no bus is on PCI, and without a domain in domain 0000."""
    bus, slash, name = text.rpartition("/")
    if slash and bus != "pci":
        return text
    name = name.lower()
    return f"pci/0000:{name}" if _NO_DOMAIN.fullmatch(name) else f"pci/{name}"


def path(text: str) -> str:
    """With all zeros: `0:0/1.0` is `0000:00/01.0`."""
    root, *below = text.lower().split("/")
    domain, _, bus = root.partition(":")
    slots = (step.split(".") for step in below)
    return "/".join((f"{_zeros(domain, 4)}:{_zeros(bus, 2)}", *(f"{_zeros(slot, 2)}.{func}" for slot, func in slots)))


def _zeros(digits: str, width: int) -> str:
    return digits if is_glob(digits) else digits.zfill(width)


def _path_regex(pattern: str) -> str:
    """`*` and `?` stay within one number."""
    return re.escape(pattern).replace(r"\*", "[^/:.]*").replace(r"\?", "[^/:.]") + r"\Z"


def _same(text: str) -> str:
    return text


def _name(device: DeviceId | None) -> str | None:
    return str(device) if device else None


SELECTORS = (
    Selector("bus", "bus", _same, lambda traits: traits.id.bus),
    Selector("address", "address", address, lambda traits: str(traits.id)),
    Selector("vendor", "vendor", hex_id, lambda traits: traits.vendor),
    Selector("device", "device", hex_id, lambda traits: traits.device),
    Selector("subsystem-vendor", "subsystem_vendor", hex_id, lambda traits: traits.subsystem_vendor),
    Selector("subsystem-device", "subsystem_device", hex_id, lambda traits: traits.subsystem_device),
    Selector("modalias", "modalias", normal_alias, lambda traits: traits.modalias and normal_alias(traits.modalias)),
    Selector("driver", "driver", _same, lambda traits: traits.driver),
    Selector("pf", "pf", address, lambda traits: _name(traits.pf)),
    Selector("path", "path", path, lambda traits: traits.path, _path_regex),
    Selector("slot", "slot", _same, lambda traits: traits.slot, need=Trait.SLOT),
    Selector("serial", "serial", str.lower, lambda traits: traits.serial, need=Trait.SERIAL),
)


def in_class(code: str, wanted: tuple[int, int]) -> bool:
    """code: six hex digits. wanted: of class_of()."""
    return int(code, 16) & wanted[1] == wanted[0]


def classes(match: Match) -> tuple[tuple[int, int], ...] | None:
    return None if match.class_ is None else tuple(map(class_of, _several(match.class_)))


def ranges(text: str) -> tuple[tuple[int, int | None], ...]:
    """First and last, None if there is no last: `0-3,7,9-` is (0, 3), (7, 7), (9, None)."""
    return ((0, None),) if text == "*" else tuple(map(_range, text.split(",")))


def _range(text: str) -> tuple[int, int | None]:
    first, dash, last = text.partition("-")
    if not dash:
        return int(first), int(first)
    return int(first), int(last) if last else None


def in_ranges(number: int, wanted: tuple[tuple[int, int | None], ...]) -> bool:
    return any(first <= number and (last is None or number <= last) for first, last in wanted)


@lru_cache(maxsize=4096)
def _compiled(regex: Callable[[str], str], pattern: str) -> re.Pattern[str]:
    return re.compile(regex(pattern))


def holds(pattern: str, value: str, regex: Callable[[str], str] = fnmatch.translate) -> bool:
    """Whether one value matches one pattern, both in their form."""
    return bool(_compiled(regex, pattern).match(value)) if is_glob(pattern) else pattern == value
