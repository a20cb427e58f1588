# SPDX-License-Identifier: LGPL-2.1-or-later
"""Type flavourctl in the guest, and read what it says as its user does."""

import re
import shlex
from dataclasses import dataclass

from .machine import Machine
from .program import Done

OK, NOT_DONE, USAGE, UNKNOWN, DENIED, UNREACHABLE, BROKEN, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130

_FINDING = re.compile(r"  (?P<why>in use|although): (?P<text>.*) \[(?P<guard>[a-z]+)\](?:; (?P<hint>.*))?")


def ctl(vm: Machine, *words: str, user: str = "root", rc: int = OK, timeout: float = 60) -> Done:
    as_user = [] if user == "root" else ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
    done = vm.run([*as_user, "flavourctl", *words], check=False, timeout=timeout)
    assert done.rc == rc, f"flavourctl {shlex.join(words)}: {done}"
    return done


def lines(done: Done) -> list[str]:
    return done.out.splitlines()


@dataclass(frozen=True)
class Found:
    """What one guard has found, as flavourctl prints it. by: the processes."""

    guard: str
    why: str
    text: str
    hint: str
    by: str


def findings(done: Done) -> dict[str, Found]:
    """What the guards have found, by their names; of each the last."""
    found: dict[str, Found] = {}
    guard = ""
    for line in done.out.splitlines():
        if match := _FINDING.fullmatch(line):
            guard = match["guard"]
            found[guard] = Found(guard, match["why"], match["text"], match["hint"] or "", "")
        elif guard and line.startswith("    by "):
            last = found[guard]
            found[guard] = Found(guard, last.why, last.text, last.hint, line.strip())
        else:
            guard = ""
    return found
