# SPDX-License-Identifier: LGPL-2.1-or-later
"""Call the flavourd in the guest as other programs do: with systemd's own varlinkctl."""

import json
from dataclasses import dataclass
from typing import Any

from .machine import Machine
from .program import Done

SOCKET = "/run/flavourd/io.flavourd"
INTERFACE = "io.flavourd.Manager"


@dataclass(frozen=True)
class Reply:
    """The parameters of all replies, and the name of the error that ended them, without the interface."""

    replies: tuple[dict[str, Any], ...]
    error: str | None

    @property
    def last(self) -> dict[str, Any]:
        return self.replies[-1]

    @classmethod
    def of(cls, done: Done) -> "Reply":
        # Several replies come as a JSON text sequence (RFC 7464).
        replies = tuple(json.loads(line.removeprefix("\x1e")) for line in done.out.split("\n") if line)
        if done.rc == 0:
            return cls(replies, None)
        (said,) = [line for line in done.err.splitlines() if "failed: " in line]
        return cls(replies, said.rpartition("failed: ")[2].removeprefix(f"{INTERFACE}."))


def words(method: str, user: str, more: bool, parameters: dict[str, Any]) -> list[str]:
    as_user = [] if user == "root" else ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
    return [
        *as_user,
        *("varlinkctl", "--json=short", "call", *(["--more"] if more else []), SOCKET, f"{INTERFACE}.{method}"),
        json.dumps(parameters),
    ]


def call(vm: Machine, method: str, user: str = "root", more: bool = False, **parameters: Any) -> Reply:
    return Reply.of(vm.run(words(method, user, more, parameters), check=False, timeout=120))


def member(vm: Machine, name: str = "member", group: str = "flavourd") -> str:
    """A user of this group, who is not root."""
    vm.run(f"getent group {group} > /dev/null || groupadd {group}; useradd -G {group} {name}")
    return name
