# SPDX-License-Identifier: LGPL-2.1-or-later
"""List all devices with flavourctl and with driverctl, start bare interpreters beside, and print the seconds as JSON.

usage: lists ROUNDS [PF VFS]

With a PF only flavourctl and driverctl, when it has so many VFs.
"""

import json
import subprocess
import sys

from .device import settle
from .vfs import make
from .ways import timed

# What flavourctl itself would run, and then what that has brought in.
_LOOK = """
import sys
before = set(sys.modules)
sys.argv = ["flavourctl", "list"]
with open("/usr/bin/flavourctl", encoding="utf-8") as file:
    program = compile(file.read(), file.name, "exec")
try:
    exec(program)
except SystemExit as end:
    print(*sorted(set(sys.modules) - before), file=sys.stderr)
    raise
"""


def main() -> None:
    rounds, family = int(sys.argv[1]), sys.argv[2:]
    modules = _imported()
    programs = {"flavourctl": ["flavourctl", "list"], "driverctl": ["driverctl", "list-devices"]}
    if family:
        make(family[0], int(family[1]))
    else:
        programs |= {
            "imports": ["python3", "-I", "-c", f"import {', '.join(modules)}"],
            # By the same flags as flavourctl's own: without a look for what else is installed.
            "imports-only": ["python3", "-IS", "-c", f"import {', '.join(modules)}"],
            "pass": ["python3", "-c", "pass"],
        }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    lines: dict[str, int] = {}
    # The first is for what is read from the disk, and does not count.
    for number in range(-1, rounds):
        for name, words in list(programs.items())[:: -1 if number % 2 else 1]:
            settle()
            took = timed(*words)
            if not took.said.startswith("rc 0 "):
                sys.exit(f"{name}: {took.said}")
            lines[name] = took.said.count("\n")
            if number >= 0:
                seconds[name].append(took.seconds)
    print(json.dumps({"seconds": seconds, "modules": modules, "lines": lines}))


def _imported() -> list[str]:
    """Return the modules that `flavourctl list` imports and that are not flavourd's own."""
    done = subprocess.run(["python3", "-IS", "-c", _LOOK], capture_output=True, text=True, check=True)
    return [name for name in done.stderr.split() if name.partition(".")[0] not in ("flavourd", "__main__")]


main()
