# SPDX-License-Identifier: LGPL-2.1-or-later
"""Start the daemon as systemd would, and interpreters that import what it imports, and print as JSON how long it took.

Each way ends with a datagram to NOTIFY_SOCKET: the daemon's READY=1, and the same from an interpreter that has its
modules. Our own modules are none of the libraries: `own` is an interpreter that has those, too.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

_DAEMON = "/usr/sbin/flavourd"
# As the daemon is started: with nothing of the caller's.
_PYTHON = ["/usr/bin/python3", "-I", "-c"]
_CONTROL = "/run/bench-control"
_NOTIFY = "/run/bench-notify"
_READY = """
import os, socket
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
"""
# What the daemon has loaded when it says that it is ready, in the order in which that came.
_SPY = """
import sys
sys.path.insert(0, {path!r})
from systemd import daemon
say = daemon.notify
def notify(state, *arguments, **more):
    if state == "READY=1":
        print("\\n".join(sys.modules), flush=True)
    return say(state, *arguments, **more)
daemon.notify = notify
sys.argv = ["flavourd"]
from flavourd.__main__ import main
sys.exit(main())
"""


class Daemon:
    """What plays systemd: the sockets, and the environment that a service is given."""

    def __init__(self) -> None:
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.settimeout(120)
        self._notified.bind(_NOTIFY)
        self._control = socket.socket(socket.AF_UNIX)
        self._control.bind(_CONTROL)
        self._control.listen()

    def seconds(self, words: list[str]) -> float:
        """From the start of a program until it says that it is ready; then it is ended."""
        began = time.monotonic()
        pid = self._start(words)
        self._wait(b"READY=1")
        seconds = time.monotonic() - began
        self._end(pid)
        return seconds

    def modules(self, path: str) -> list[str]:
        """The names that the daemon has in sys.modules when it is ready, but those that any interpreter has."""
        out, given = os.pipe()
        pid = self._start([*_PYTHON, _SPY.format(path=path)], given)
        os.close(given)
        self._wait(b"READY=1")
        self._end(pid)
        with os.fdopen(out) as file:
            names = file.read().split()
        program = "import sys; print(*sys.modules)"
        bare = subprocess.run([*_PYTHON, program], capture_output=True, text=True, check=True).stdout.split()
        return [name for name in names if name not in bare]

    def _start(self, words: list[str], output: int = 2) -> int:
        """Fork, because sd_listen_fds(3) wants the child's own number."""
        pid = os.fork()
        if pid == 0:
            os.dup2(output, 1)
            os.dup2(self._control.fileno(), 3)
            os.set_inheritable(3, True)  # also if it was 3 before
            place = {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": _NOTIFY}
            os.execve(words[0], words, place | {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())})
        return pid

    def _wait(self, wanted: bytes) -> None:
        while wanted not in self._notified.recv(1 << 12).split(b"\n"):
            pass

    def _end(self, pid: int) -> None:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        # What it has said in the end must not be taken for the next one's words.
        self._notified.setblocking(False)
        try:
            while True:
                self._notified.recv(1 << 12)
        except BlockingIOError:
            self._notified.settimeout(120)


def importing(path: str, names: list[str]) -> list[str]:
    text = "".join(f"import {name}\n" for name in names)
    # Without the collector of garbage, as the daemon does it.
    return [*_PYTHON, f"import gc, sys\ngc.disable()\nsys.path.insert(0, {path!r})\n{text}{_READY}"]


def main(rounds: int) -> None:
    found = re.search(r'sys\.path\.insert\(0, "(.*)"\)', Path(_DAEMON).read_text(encoding="utf-8"))
    assert found, f"{_DAEMON} does not say where its modules are"
    path = found[1]
    daemon = Daemon()
    modules = daemon.modules(path)
    assert "flavourd.service" in modules, modules
    libraries = [name for name in modules if name.partition(".")[0] != "flavourd"]
    ways = {
        "daemon": [_DAEMON],
        "libraries": importing(path, libraries),
        "own": importing(path, modules),
        "pass": [*_PYTHON, _READY],
    }
    # Every file has just been read: none of the ways is the first to wait for the disk.
    told: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way, words in list(ways.items())[:: -1 if number % 2 else 1]:
            subprocess.run(["udevadm", "settle"], check=True)
            told[way].append(daemon.seconds(words))
    print(json.dumps({"seconds": told, "modules": len(modules), "libraries": len(libraries)}))


main(int(sys.argv[1]))
