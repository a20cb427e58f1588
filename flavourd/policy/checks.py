# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is wrong with a rule although each of its values looks as it should: what needs two of them, or the host."""

import grp
import pwd
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from flavourd.flavour import DEFAULT
from flavourd.policy.classes import CLASSES, class_of
from flavourd.policy.language import DeviceNode, Expect, Match, NamedCandidate, PolicyFile, Rule
from flavourd.policy.problem import Severity, meant
from flavourd.policy.reading import Path, Reading
from flavourd.policy.shape import entries
from flavourd.use import Guard
from flavourd.use import Severity as GuardSeverity

_SPECIAL = frozenset("*?[@")
_NOT_OF_DEVICES = ("ID_NET_", "ID_FS_", "ID_PART_")


class Found(NamedTuple):
    """path: of the value that is told of, below what was looked at."""

    path: Path
    message: str
    hint: str = ""
    severity: Severity = Severity.ERROR


def of_rule(reading: Reading[PolicyFile], path: Path, flavours: Collection[str]) -> Iterator[Found]:
    """Of one rule; parts that the decoder has refused are not looked at again."""
    parts = {key: reading.parts.get((*path, key)) for key in entries(Rule) if (*path, key) in reading.places}
    broken = {key for key, part in parts.items() if part is None} | ({"flavour"} - parts.keys())
    words = {entries(Rule)[key].name: part for key, part in parts.items() if part is not None}
    rule = Rule(**{"flavour": DEFAULT, **words})
    for needed, check in _CHECKS:
        if broken.isdisjoint(needed):
            yield from check(rule, flavours)


def _flavour(rule: Rule, flavours: Collection[str]) -> Iterator[Found]:
    if rule.flavour not in flavours:
        hint = meant(rule.flavour, flavours) or f"known flavours: {', '.join(sorted(flavours))}"
        yield Found(("flavour",), f"there is no flavour {rule.flavour!r}", hint)


def _candidates(rule: Rule, _: Collection[str]) -> Iterator[Found]:
    if rule.flavour == DEFAULT and rule.candidates:
        yield Found(("candidates",), "flavour default is the native drivers: there are no candidates to try")
    for index, candidate in enumerate(rule.candidates):
        if isinstance(candidate, NamedCandidate) and candidate.force and not _SPECIAL.isdisjoint(candidate.module):
            message = "a pattern cannot be forced: an override binds any driver to any device"
            yield Found(("candidates", index), message, "name the one module that is meant")


def _deny(rule: Rule, _: Collection[str]) -> Iterator[Found]:
    if rule.flavour == DEFAULT and rule.deny:
        yield Found(("deny",), "flavour default is the native drivers: there are no candidates to deny")


def _node(rule: Rule, _: Collection[str]) -> Iterator[Found]:
    node = rule.device_node
    if node is None:
        return
    if rule.flavour == DEFAULT:
        yield Found(("device-node",), "flavour default has no device node")
    if node == DeviceNode():
        yield Found(("device-node",), "it says nothing", "owner, group, mode: at least one of them")
    for key, what, name, look in (
        ("owner", "user", node.owner, pwd.getpwnam),
        ("group", "group", node.group, grp.getgrnam),
    ):
        if name and not name.isdecimal() and not _exists(look, name):
            hint = "it must be there when udev reads the rule"
            yield Found(("device-node", key), f"this host has no {what} {name!r}", hint, Severity.WARNING)


def _exists(look: Callable[[str], object], name: str) -> bool:
    try:
        look(name)
    except KeyError:
        return False
    return True


def _vfs(rule: Rule, _: Collection[str]) -> Iterator[Found]:
    if rule.vfs is None:
        return
    if rule.flavour != DEFAULT:
        hint = (
            f'`flavour: default` here, and for the VFs a rule of their own: match: {{vf: "*"}}, flavour: {rule.flavour}'
        )
        yield Found(("vfs",), f"a PF that is in flavour {rule.flavour} has no VFs", hint)
    if _asks_for_vfs(rule.match):
        yield Found(("vfs",), "a VF has no VFs, and the rule is for VFs only (vf, pf)", "match the PF")


def _asks_for_vfs(match: Match) -> bool:
    return match.vf is not None or match.pf is not None or any(map(_asks_for_vfs, match.all or ()))


def _expect(rule: Rule, _: Collection[str]) -> Iterator[Found]:
    if rule.expect == Expect():
        yield Found(("expect",), "it says nothing", f"at least one of: {', '.join(entries(Expect))}")


def _guards(rule: Rule, _: Collection[str]) -> Iterator[Found]:
    if rule.guards.get(Guard.TABLE, GuardSeverity.ERROR) is not GuardSeverity.ERROR:
        message = "guard table is always an error: it keeps drivers from hardware that they were not made for"
        yield Found(("guards", Guard.TABLE.value), message, "who knows better: candidates: [{module: …, force: true}]")


def of_selectors(reading: Reading[PolicyFile]) -> Iterator[tuple[Path, Found]]:
    """Of all that was understood of what stands below `match`, however deep, also if there are mistakes beside it."""
    for path, part in reading.parts.items():
        if len(path) < 4 or path[2] != "match" or "property" in path[3:-1]:
            continue
        key = path[-2] if isinstance(path[-1], int) else path[-1]
        if part in ((), {}):
            yield path, Found((), "it is empty: what shall it match?", "leave it out if it shall not matter")
        elif key == "not" and part == Match():
            yield path, Found((), "it matches no device: everything is excluded")
        elif key == "class" and isinstance(part, str):
            yield from ((path, found) for found in _class(part))
        elif key == "property" and isinstance(part, Mapping):
            yield from ((path, found) for found in _properties(part))
        elif key == "vf":
            yield from ((path, found) for found in _ranges(part))


def _class(text: str) -> Iterator[Found]:
    try:
        class_of(text)
    except ValueError:
        hint = meant(text, CLASSES) or f"known names: {', '.join(sorted(CLASSES))}"
        yield Found((), f"there is no class {text!r}", hint)
        return
    code, slash, mask = (part.lower().removeprefix("0x") for part in text.partition("/"))
    if not slash:
        return
    if not int(mask, 16):
        yield Found((), "this mask covers nothing", "ff for two digits that count, 00 for two that do not")
    elif len(mask) > len(code):
        yield Found((), "the mask is longer than the code", f'write all of the code: "{code.ljust(6, "0")}/{mask}"')
    elif int(code, 16) & ~int(mask.ljust(len(code), "0"), 16):
        yield Found((), "the mask leaves out digits of the code", "write 0 for what does not count", Severity.WARNING)


def _properties(names: Iterable[str]) -> Iterator[Found]:
    for name in names:
        if name.startswith(_NOT_OF_DEVICES):
            message = f"udev gives {name} to interfaces and disks, never to the device that they are on"
            yield Found((name,), message, "udevadm info /sys/bus/… shows which it has", Severity.WARNING)


def _ranges(text: str) -> Iterator[Found]:
    for part in text.split(","):
        first, _, last = part.partition("-")
        if last and int(last) < int(first):
            yield Found((), f"{part} goes the wrong way", f'write "{last}-{first}"')


_Check = Callable[[Rule, Collection[str]], Iterable[Found]]
# Each with the keys that it looks at.
_CHECKS: tuple[tuple[frozenset[str], _Check], ...] = (
    (frozenset({"flavour"}), _flavour),
    (frozenset({"expect"}), _expect),
    (frozenset({"flavour", "candidates"}), _candidates),
    (frozenset({"flavour", "deny"}), _deny),
    (frozenset({"guards"}), _guards),
    (frozenset({"flavour", "device-node"}), _node),
    (frozenset({"flavour", "match", "vfs"}), _vfs),
)
