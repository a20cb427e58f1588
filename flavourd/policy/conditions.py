# SPDX-License-Identifier: LGPL-2.1-or-later
"""A rule's match in the words of udev's rules (udev(7)), as far as it can be said there.

What udev cannot tell becomes a `Maybe`, so that what surely matches and what may match can be told apart.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flavourd.policy.language import Expect, Match
from flavourd.policy.selectors import SELECTORS, classes, ranges

# No value of a policy may end udev's quotes, or be more than one word of its own there. Groups of characters only where
# fnmatch(3) and Python's fnmatch agree on them.
_SAFE = re.compile(r"(?:[A-Za-z0-9_.:,;@+=~&()<>/ *?-]|\[!?[A-Za-z0-9_.:]+(?:-[A-Za-z0-9])?\])+")
_LONGEST = 4000  # of a key's value: udev ignores lines of more than 16 KiB
_DIGIT, _DIGITS = "[0-9a-f]", "0123456789abcdef"
_PCI_IDS = ("vendor", "device", "subsystem_vendor", "subsystem_device")
_IS_VF = 'TEST=="physfn"'


@dataclass(frozen=True)
class Atom:
    """Keys that all must match, as they stand in a line."""

    keys: str


@dataclass(frozen=True)
class Every:
    parts: "tuple[Condition, ...]"


@dataclass(frozen=True)
class Some:
    parts: "tuple[Condition, ...]"


@dataclass(frozen=True)
class Opposite:
    part: "Condition"


@dataclass(frozen=True)
class Maybe:
    """wider: holds for every device that is meant, and for others. why: a clause with what udev cannot tell."""

    wider: "Condition"
    why: str


Condition = bool | Atom | Every | Some | Opposite | Maybe


def condition(match: Match) -> Condition:
    return Every(tuple(_parts(match)))


def expectation(expect: Expect) -> Condition:
    """Whether the device has these ids."""
    asked = {each.key: each.pattern(ids) for each in SELECTORS if (ids := getattr(expect, each.key, None)) is not None}
    return Every(tuple(_IN_UDEV[key]((pattern,)) for key, pattern in asked.items()))


def bound(condition: Condition, wide: bool) -> Condition:
    """Without any Maybe: what may match (`wide`) or what surely does. What always or never holds is a bool."""
    match condition:
        case Maybe():
            return bound(condition.wider, wide) if wide else False
        case Opposite():
            part = bound(condition.part, not wide)
            return not part if isinstance(part, bool) else Opposite(part)
        case Every() | Some():
            decides = isinstance(condition, Some)  # one such part is enough
            parts = tuple(part for each in condition.parts if (part := bound(each, wide)) is not (not decides))
            if any(part is decides for part in parts):
                return decides
            return type(condition)(parts) if parts else not decides
    return condition


def doubts(condition: Condition) -> Iterator[str]:
    """What udev cannot tell, in words."""
    match condition:
        case Maybe():
            yield condition.why
        case Opposite():
            yield from doubts(condition.part)
        case Every() | Some():
            for part in condition.parts:
                yield from doubts(part)


# ---


def _parts(match: Match) -> Iterator[Condition]:
    for selector in SELECTORS:
        patterns = selector.patterns(match)
        if patterns is not None and not all(map(_SAFE.fullmatch, patterns)):
            yield Maybe(True, f"a pattern of `{selector.name}` has no place in udev's language")
        elif patterns is not None:
            yield _IN_UDEV[selector.key](patterns)
    if (of_class := classes(match)) is not None:
        yield _key("ATTR{class}", [_class(code, mask) for code, mask in of_class])
    if match.vf is not None:
        is_vf = Atom(_IS_VF)
        yield is_vf if ranges(match.vf) == ((0, None),) else Maybe(is_vf, "the index of a VF cannot be told by udev")
    for name, glob in (match.property or {}).items():
        if _SAFE.fullmatch(glob):
            yield _key(f"ENV{{{name}}}", ["?*" if set(glob) == {"*"} else glob])  # udev's * takes what is not there
        else:
            yield Maybe(True, f"the pattern of `property` {name} has no place in udev's language")
    yield from map(condition, match.all or ())
    if match.any is not None:
        yield Some(tuple(map(condition, match.any)))
    if match.not_ is not None:
        yield Opposite(condition(match.not_))


def _key(key: str, values: Sequence[str]) -> Condition:
    """One key that matches one of the values."""
    some: list[str] = []
    for value in values:
        if some and len(some[-1]) + len(value) < _LONGEST:
            some[-1] += f"|{value}"
        else:
            some.append(value)
    atoms = tuple(Atom(f'{key}=="{each}"') for each in some)
    return atoms[0] if len(atoms) == 1 else Some(atoms)


def _address(patterns: tuple[str, ...]) -> Condition:
    names: dict[str, list[str]] = {}
    for pattern in patterns:
        bus, _, name = pattern.partition("/")
        names.setdefault(bus, []).append(name)
    parts = tuple(Every((_key("SUBSYSTEM", [bus]), _key("KERNEL", some))) for bus, some in names.items())
    return parts[0] if len(parts) == 1 else Some(parts)


def _hex_id(attribute: str) -> Callable[[tuple[str, ...]], Condition]:
    return lambda patterns: _key(f"ATTR{{{attribute}}}", [f"0x{each}" for each in patterns])


def _modalias(patterns: tuple[str, ...]) -> Condition:
    if any("_" in group for each in patterns for group in re.findall(r"\[[^]]*\]", each)):
        return Maybe(True, "a pattern of `modalias` has no place in udev's language")
    return _key("ATTR{modalias}", [each.replace("_", "[_-]") for each in patterns])


def _path(patterns: tuple[str, ...]) -> Condition:
    """`…/pci0000:00/0000:[0-9a-f][0-9a-f]:10.0/…`: bus numbers below the root bus are not part of a path."""
    return Some(tuple(_one_path(pattern) for pattern in patterns))


def _one_path(pattern: str) -> Condition:
    root, *steps = pattern.split("/")
    domain, _, bus = root.partition(":")
    words = [f"*/pci{domain}:{_digits(bus, 2)}"]
    for step in steps:
        slot, _, function = step.partition(".")
        words.append(f"{domain}:{_DIGIT}{_DIGIT}:{_digits(slot, 2)}.{_digits(function, 1)}")
    if len(way := "/".join(words)) > _LONGEST:
        return Maybe(True, "a `path` over so many bridges has no place in udev's rules")
    told = Atom(f'DEVPATH=="{way}"')
    return Maybe(told, "a pattern in the domain of a `path` is told by udev only roughly") if "*" in domain else told


def _digits(glob: str, width: int) -> str:
    """udev's * would go on into what follows."""
    fill = _DIGIT * (width - len(glob.replace("*", "")))
    return glob.replace("*", "\n", 1).replace("*", "").replace("?", _DIGIT).replace("\n", fill)


def _class(code: int, mask: int) -> str:
    """Digit by digit: `0x0108??`."""
    pairs = [(code >> shift & 15, mask >> shift & 15) for shift in range(20, -4, -4)]
    return "0x" + "".join(_digit(*pair) for pair in pairs)


def _digit(code: int, mask: int) -> str:
    fitting = [digit for number, digit in enumerate(_DIGITS) if number & mask == code]
    return {1: fitting[0], 16: "?"}.get(len(fitting), f"[{''.join(fitting)}]")


_IN_UDEV: Mapping[str, Callable[[tuple[str, ...]], Condition]] = {
    "bus": lambda patterns: _key("SUBSYSTEM", patterns),
    "address": _address,
    **{attribute: _hex_id(attribute) for attribute in _PCI_IDS},
    "modalias": _modalias,
    "driver": lambda _: Maybe(True, "the native driver is known only when it has bound the device"),
    "pf": lambda _: Maybe(Atom(_IS_VF), "the PF of a VF cannot be told by udev"),
    "path": _path,
    "slot": lambda _: Maybe(True, "the physical slot cannot be told by udev"),
    "serial": lambda patterns: _key("ENV{FLAVOUR_SERIAL}", patterns),
}
