# SPDX-License-Identifier: LGPL-2.1-or-later
"""`flavourctl show`: all that is known of a device."""

from __future__ import annotations

from flavourd.cli import groups, texts
from flavourd.cli.each import ask_each
from flavourd.cli.names import short
from flavourd.cli.table import facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from flavourd.cli.client import Client
    from flavourd.cli.exits import Json
    from flavourd.cli.names import Names
    from flavourd.cli.screen import Screen


def run(arguments: Namespace, client: Client, screen: Screen) -> int:
    return ask_each(arguments, client, screen, "Describe", lambda _, known, names: _lines(screen, known, names))


def _lines(screen: Screen, known: Json, names: Names) -> Iterator[str]:
    device: Json = known.get("device") or {}
    about = texts.description(device)
    yield screen.bold(str(device.get("id"))) + (f" - {about}" if about else "")
    yield from facts(
        [
            ("Class", _with(device.get("class_name"), device.get("class_code"))),
            ("Modalias", known.get("modalias") or ""),
            ("Flavour", _with(device.get("flavour"), ", ".join(device.get("proof") or []))),
            ("State", _state(screen, device)),
            ("Driver", _with(device.get("driver") or "none", known.get("module") and f"module {known['module']}")),
            ("Override", _override(known)),
            ("Variants", [f"{flavour}: {', '.join(found)}" for flavour, found in texts.variants(device).items()]),
            ("IOMMU group", _group(known, device, names)),
            ("SR-IOV", _sriov(device)),
            ("Names", texts.names_on(device)),
            ("Record", _record(known.get("record") or {})),
            ("Last", _last(screen, known.get("last"))),
        ]
    )


def _override(known: Json) -> str:
    if known.get("complete") is False:
        return "not read, it would have to be waited for"
    return known.get("override") or "none"


def _with(name: str | None, more: str | None) -> str:
    return f"{name} ({more})" if name and more else name or more or ""


def _state(screen: Screen, device: Json) -> list[str]:
    """Of one that is stuck also where it sleeps, for whom, and where to look further."""
    state, step, stuck = str(device.get("state") or ""), device.get("step"), device.get("stuck")
    if stuck:
        pid, where = stuck.get("pid"), stuck.get("wchan") or "the kernel"
        return [
            screen.red(f"stuck since {texts.when(stuck.get('since'))}") + f" on the way to {stuck.get('flavour')}",
            f"worker {pid} sleeps in {where}: {stuck.get('step')}",
            *(f"held by {texts.process(holder)}" for holder in stuck.get("holders") or []),
            f"look: cat /proc/{pid}/stack; journalctl -k",
        ]
    told = f"{state}: {step}" if step else state
    return [screen.red(told) if state in ("stuck", "contested") else told] if told else []


def _group(known: Json, device: Json, names: Names) -> list[str]:
    """Who else is in it is told by the device's own answer; how they are by the list of all."""
    if not (group := device.get("iommu_group")):
        return ["none"]
    others = [member for member in known.get("members") or [] if member != device.get("id")]
    by_id = {each.get("id"): each for each in names.devices} if others else {}
    members = [device, *(by_id[other] for other in others if other in by_id)]
    lines = [f"{group}, {groups.told(members)}"]
    for other in others:
        member = by_id.get(other, {})
        lines.append(
            f"with {short(other)} ({member.get('driver') or 'no driver'}) {texts.description(member)}".rstrip()
        )
    return lines


def _sriov(device: Json) -> str:
    if pf := device.get("pf"):
        return f"VF of {pf}"
    count = device.get("vfs") or 0
    return f"PF with {texts.counted(count, 'VF')}" if count else ""


def _record(record: Json) -> list[str]:
    if not record:
        return []
    driver, override = record.get("driver") or "no driver", record.get("override") or "none"
    lines = [
        f"would go back to {driver}, override {override}",
        f"flavour {record.get('flavour')} since {texts.when(record.get('since'))} by {record.get('origin')}",
    ]
    if vfs := record.get("vfs"):
        drivers = ", for which no drivers are probed" if record.get("autoprobe") is False else ""
        lines.insert(1, f"with {texts.counted(vfs, 'VF')}{drivers}")
    return [*lines, "a switch is under way, or its worker died"] if record.get("unfinished") else lines


def _last(screen: Screen, last: Json | None) -> list[str]:
    return (
        [f"{texts.when(last.get('time'))}, asked by {texts.asker(last)}", *texts.outcome(screen, last)] if last else []
    )
