# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the files say, from what flavourd and sysfs have told."""

from collections.abc import Callable

from flavourd.attributes.calls import Json
from flavourd.flavour import DEFAULT, Flavours


def buses(flavours: Flavours) -> frozenset[str]:
    """That have flavours."""
    return frozenset(bus for flavour in flavours.flavours.values() for bus in flavour.buses)


def current(flavours: Flavours, bus: str, proven: Callable[[str], bool]) -> str:
    """The flavour of a device. proven: whether a directory of proof below it holds anything."""
    there = ((name, one.proof) for name, one in flavours.flavours.items() if bus in one.buses)
    return next((name for name, proof in there if proven(proof)), DEFAULT)


def choice(flavours: Flavours, bus: str, current: str) -> str:
    """All flavours of a bus in one line, the current one in brackets, as files in sysfs show what may be chosen."""
    names = (DEFAULT, *(name for name, one in flavours.flavours.items() if bus in one.buses))
    return " ".join(f"[{name}]" if name == current else name for name in names) + "\n"


def candidates(plans: list[Json]) -> str:
    """A line for each flavour, from the reply of Explain: the modules in the order in which they would be tried."""
    return "".join(f"{plan['flavour']}: {_plan(plan)}\n" for plan in plans)


def _plan(plan: Json) -> str:
    if plan["kind"] == "refused":
        return f"refused: {one_line(explained(plan))}"
    if plan["kind"] == "already":
        return f"already, {plan.get('driver') or 'no driver'}"
    if plan["flavour"] == DEFAULT:
        return plan.get("target") or "-"
    return " ".join(candidate["module"] for candidate in plan["candidates"])


def explained(said: Json) -> str:
    """`what it is [code]; what to do`"""
    code, hint = said.get("code"), said.get("hint")
    return f"{said['message']}{f' [{code}]' if code else ''}{f'; {hint}' if hint else ''}"


def one_line(text: str) -> str:
    return " ".join(text.split())
