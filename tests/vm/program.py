# SPDX-License-Identifier: LGPL-2.1-or-later
"""A program in the guest: it runs, it ends with what it said, or somebody learns where it hangs."""

from dataclasses import dataclass

from .agent import Agent, AgentError

# Where the guest's programs hang, for whoever reads that a command did not end.
HANGING = "ps -eo pid,ppid,stat,wchan:32,args --sort=pid | awk 'NR == 1 || $3 ~ /^D/ || !/\\[.*\\]$/'"


@dataclass(frozen=True)
class Done:
    """What a program left."""

    rc: int
    out: str
    err: str


class CommandError(AssertionError):
    """A command in the guest failed or did not end."""


class Running:
    """A program in the guest's background."""

    def __init__(self, agent: Agent, text: str, pid: int) -> None:
        self._agent, self._text, self.pid = agent, text, pid
        self._done: Done | None = None

    @property
    def running(self) -> bool:
        return self._done is None and not self._look()

    def wait(self, timeout: float = 60) -> Done:
        """Wait for its end; raise CommandError, with what hangs in the guest, when it does not come."""
        if self._done is None:
            try:
                self._keep(self._agent.wait(self.pid, timeout))
            except TimeoutError:
                raise CommandError(f"did not end within {timeout:g} s: {self._text}\n{self._hanging()}") from None
        assert self._done
        return self._done

    def _look(self) -> bool:
        if result := self._agent.ended(self.pid):
            self._keep(result)
        return result is not None

    def _keep(self, result: tuple[int, bytes, bytes]) -> None:
        rc, out, err = result
        self._done = Done(rc, out.decode(errors="replace"), err.decode(errors="replace"))

    def _hanging(self) -> str:
        try:
            pid = self._agent.execute(["sh", "-c", HANGING])
            return self._agent.wait(pid, 20)[1].decode(errors="replace")
        except (AgentError, OSError) as error:
            return f"and the guest does not answer any more: {error}"
