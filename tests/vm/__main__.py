# SPDX-License-Identifier: LGPL-2.1-or-later
"""The test bed by hand: `python -m tests.vm prepare` builds every layer, `python -m tests.vm shell` opens one."""

import argparse
import subprocess
import sys
import time

from . import layers
from .demo import demo
from .machine import Machine
from .qemu import Qemu, State


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.vm", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("prepare", help="build what is missing of all layers, with the time of each")
    shell = verbs.add_parser("shell", help="a root shell in a fresh machine with flavourd installed")
    shell.add_argument("--booted", action="store_true", help="take the machine without flavourd")
    verbs.add_parser("demo", help="flavourd at work, live")
    options = parser.parse_args()
    if options.verb == "prepare":
        prepare()
    elif options.verb == "demo":
        show()
    else:
        open_shell(layers.booted(say) if options.booted else layers.installed(say))


def say(text: str) -> None:
    print(f"{time.monotonic() - _START:6.1f} s  {text}", file=sys.stderr, flush=True)


def prepare() -> None:
    layers.booted(say)
    say("the booted machine is there")
    layers.installed(say)
    say("the machine with flavourd is there")


def open_shell(state: State) -> None:
    with Qemu(state.image, state.disk, state) as qemu:
        Machine(qemu).run("systemctl start serial-getty@ttyS0")
        say("Ctrl-] leaves and ends the machine; press Enter for the prompt")
        terminal = "-,raw,echo=0,escape=0x1d" if sys.stdin.isatty() else "-"
        subprocess.run(["socat", terminal, f"UNIX-CONNECT:{qemu.console}"], check=False)


def show() -> None:
    state = layers.installed(say)
    with Qemu(state.image, state.disk, state) as qemu:
        demo(Machine(qemu))


_START = time.monotonic()

if __name__ == "__main__":
    main()
