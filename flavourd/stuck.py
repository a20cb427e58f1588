# SPDX-License-Identifier: LGPL-2.1-or-later
"""A device whose worker sleeps in the kernel past its deadline."""

from dataclasses import dataclass

from flavourd.request import Request
from flavourd.use import Process


@dataclass(frozen=True)
class Stuck:
    """pid: of the worker. since: when the request was begun, ISO 8601, UTC. step: what it was about to do. wchan: the
    kernel's function in which it sleeps (proc_pid_wchan(5)), None if it cannot be told. holders: processes that hold
    the device open.
    """

    request: Request
    pid: int
    since: str
    step: str
    wchan: str | None = None
    holders: tuple[Process, ...] = ()

    def __str__(self) -> str:
        where = f" in {self.wchan}" if self.wchan else ""
        held = f"; it is held by {', '.join(map(str, self.holders))}" if self.holders else ""
        return f"worker {self.pid} sleeps in the kernel{where} since {self.since}, {self.step}{held}"
