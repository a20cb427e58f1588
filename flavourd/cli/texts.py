# SPDX-License-Identifier: LGPL-2.1-or-later
"""What every verb tells in the same words: devices, outcomes, times. From an answer to lines of text."""

from __future__ import annotations

from flavourd.cli.exits import Exit, of_answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from flavourd.cli.exits import Json
    from flavourd.cli.screen import Screen


def description(device: Json) -> str:
    """The model first: by that people know their card, and a narrow terminal cuts the rest."""
    return ", ".join(filter(None, (device.get("model"), device.get("vendor"))))


def holder(device: Json) -> str:
    """The flavour, and what flavourd does with the device now: `vfio (stuck)`."""
    flavour = str(device.get("flavour") or "")
    return f"{flavour} ({device['state']})" if device.get("state") else flavour


def variants(device: Json) -> dict[str, list[str]]:
    """For each flavour that has any, the modules that would be tried before the universal one."""
    found: dict[str, list[str]] = {}
    for variant in device.get("variants") or []:
        found.setdefault(str(variant.get("flavour")), []).append(str(variant.get("module")))
    return found


def names_on(device: Json) -> str:
    """Its interfaces and disks; in brackets those that it had."""
    now = [*(device.get("interfaces") or []), *(device.get("disks") or [])]
    return ",".join([*now, *(f"({name})" for name in device.get("interfaces_before") or [] if name not in now)])


def outcome(screen: Screen, told: Json) -> Iterator[str]:
    """What became of one device: the headline, and below it who refused and why, and what to do next."""
    device = str(told.get("device"))
    headline = told.get("headline") or told.get("message") or f"{device} -> {told.get('flavour')}: {told.get('kind')}"
    paint = screen.bold if of_answer(told) is Exit.OK else screen.red
    yield coded(headline, told).replace(device, paint(device), 1)
    refusals = told.get("refusals") or []
    for refusal in refusals:
        yield f"  {refusal.get('who')} {refusal.get('reason')}"
        yield from (f"    kernel: {line}" for line in refusal.get("kernel") or [])
    if refusals and (candidate := told.get("candidate")):
        yield f"  {candidate.get('module')} took it ({candidate.get('source')})"
    yield from (
        f"  not tried: {skip.get('module')} {skip.get('reason')}"
        for skip in told.get("skips") or []
        if skip.get("missed")
    )
    yield from findings(screen, told)
    yield from notes(screen, told)


def findings(screen: Screen, told: Json) -> Iterator[str]:
    """What the host uses a device for: why it was not switched, or although it was."""
    word = "in use:" if told.get("kind") == "refused" else screen.yellow("although:")
    for finding in told.get("findings") or []:
        hint = f"; {finding['hint']}" if finding.get("hint") else ""
        yield f"  {word} {finding.get('text')} [{finding.get('guard')}]{hint}"
        yield from (f"    by {process(each)}" for each in finding.get("processes") or [])


def process(told: Json) -> str:
    """`qemu-system-x86 (pid 4242, machine-vm1.scope)`"""
    unit = f", {told['unit']}" if told.get("unit") else ""
    return f"{told.get('name')} (pid {told.get('pid')}{unit})"


def notes(screen: Screen, told: Json) -> Iterator[str]:
    yield from (f"  {screen.yellow('note:')} {note}" for note in told.get("notes") or [])
    if told.get("hint"):
        yield f"  next: {told['hint']}"


def counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def policy(standing: Json) -> str:
    """`12 rules in 3 files`"""
    files = len(standing.get("files") or [])
    return f"{counted(standing.get('rules') or 0, 'rule')} in {counted(files, 'file')}" if files else "none"


def rule(told: Json) -> str:
    """`/etc/flavourd/policy.d/50-vfs.yaml:8 (VFs of the NIC)`"""
    place, name = str(told.get("place")), told.get("name")
    return f"{place} ({name})" if name and not place.endswith(f"({name})") else place


def on_disk_only(screen: Screen, told: Json) -> Iterator[str]:
    """What is said of the files does not hold for flavourd yet."""
    if told.get("loaded") is False:
        yield f"{screen.yellow('note:')} these files are not in force yet: flavourctl reload"


def asker(told: Json) -> str:
    return told.get("asker") or told.get("origin") or ""


def coded(sentence: str, told: Json) -> str:
    """With the code in brackets, whether the daemon has put it there or not."""
    bracket = f"[{told['code']}]" if told.get("code") else ""
    return sentence if bracket in sentence else f"{sentence} {bracket}"


def when(time: str | None, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A time of the daemon's, which is UTC, in the zone of who reads it."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(time or "").astimezone().strftime(form)
    except ValueError:
        return time or ""
