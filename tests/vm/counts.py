# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is counted, and the counts that are written down in counts.json.

A count is a number or a list, and holds exactly: one that has become smaller is to be written down, lest it grow again
unseen. Where others decide as well (`at most` in its name) it may be smaller.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from .strace import Call

Counts = Mapping[str, int | list[str]]

_FILE = Path(__file__).with_name("counts.json")
_REGENERATE = "FLAVOURD_REGENERATE"
_AT_MOST = "at most"

_FORKS = ("fork", "vfork", "clone", "clone3")
_EXECS = ("execve", "execveat")
_OPENS = ("open", "openat", "openat2", "creat")
_RENAMES = ("rename", "renameat", "renameat2")
_SENDS = ("sendto", "sendmsg", "sendmmsg")
_WRITES = ("write", "pwrite64", "writev")
_SYNCS = ("fsync", "fdatasync")
SWITCH_CALLS = ("%process", "%file", *_SENDS, *_WRITES, *_SYNCS, "connect")
"""For strace: what `of_switch` looks at."""
WAKE_UP_CALLS = ("epoll_wait", "epoll_pwait", "epoll_pwait2")
"""And `wake_ups`."""


def of_switch(calls: Sequence[Call]) -> Counts:
    """What a switch does, what failed included. Signs of life for the watchdog are left out: they come by the clock."""
    mine = [call for call in calls if '"WATCHDOG=1"' not in call.arguments]
    opened = [call for call in mine if call.name in _OPENS]
    in_sys = [call for call in mine if _below(call.file, "/sys")]
    sent_to = [call.address for call in mine if call.name in _SENDS]
    return {
        "processes and threads begun": sum(call.name in _FORKS for call in mine),
        "programs executed": sum(call.name in _EXECS for call in mine),
        "opened to read in /sys": sum("O_RDONLY" in call.arguments for call in in_sys if call.name in _OPENS),
        "looked at otherwise in /sys": sum(call.name not in _OPENS for call in in_sys),
        "written in /sys": [
            call.descriptor for call in mine if call.name in _WRITES and _below(call.descriptor, "/sys")
        ],
        "opened in /run/flavourd": sum(_below(call.file, "/run/flavourd") for call in opened),
        "files renamed": sum(call.name in _RENAMES for call in mine),
        "files synced": sum(call.name in _SYNCS for call in mine),
        "connections": sum(call.name == "connect" for call in mine),
        "messages to journald": sent_to.count("/run/systemd/journal/socket"),
        "messages to systemd": sent_to.count("/run/systemd/notify"),
    }


def wake_ups(calls: Sequence[Call]) -> int:
    """How often somebody who waits for events was given any. The clock wakes him with none."""
    return sum(call.name in WAKE_UP_CALLS and call.value > 0 for call in calls)


def modules(told: str) -> set[str]:
    """The names of what `python3 -X importtime` says it has imported, or tried to."""
    lines = (line for line in told.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip() for line in lines} - {"imported package"}


def differences(known: Counts, found: Counts) -> list[str]:
    """A sentence for each count that is not what it should be."""
    told = []
    for name in dict.fromkeys((*known, *found)):
        was, now = known.get(name), found.get(name)
        smaller = isinstance(was, int) and isinstance(now, int) and now < was
        if was == now or (smaller and _AT_MOST in name):
            continue
        advice = f"fewer are good: write that down, {_REGENERATE}=1" if smaller else "that is not what is written down"
        told.append(f"{name}: {now}, and was {was}; {advice}")
    return told


def compare(what: str, found: Counts) -> None:
    """AssertionError if that is not what is written down."""
    known: dict[str, Counts] = json.loads(_FILE.read_text(encoding="utf-8"))
    if os.environ.get(_REGENERATE):
        known[what] = found
        _FILE.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    told = differences(known.get(what, {}), found)
    assert not told, "\n".join([f"{what}, beside {_FILE.name}:", *told])


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
