# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine's process: its start (cold or from a saved state), its monitor, its saving and its end."""

import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qemu.qmp.legacy import QEMUMonitorProtocol

from .agent import Agent
from .hardware import MEMORY, arguments
from .image import Image


class MachineError(Exception):
    """QEMU did not do what it was told; the text has its own words."""


@dataclass(frozen=True)
class State:
    """A machine at rest: its disk, its memory and its devices' state, in a directory that nobody changes."""

    image: Image
    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / "disk.qcow2"

    @property
    def memory(self) -> Path:
        return self.folder / "memory"

    @property
    def devices(self) -> Path:
        return self.folder / "devices"


class Qemu:
    """One running machine with its own disk overlay and sockets, all in a directory that goes when it ends."""

    def __init__(self, image: Image, disk: Path, start: State | None = None, keep_memory: Path | None = None) -> None:
        """Start on an overlay of `disk`, cold or from `start`.

        The guest's memory is a file. With `keep_memory` the guest works in that very file, so that save() need not
        copy it; otherwise a restored guest has a private view of the state's own file, which costs nothing to make.
        """
        # Under /tmp and not in the cache: a unix socket's path has room for 108 characters only.
        self._directory = tempfile.TemporaryDirectory(prefix="flavourd-vm-", ignore_cleanup_errors=True)
        self.folder = Path(self._directory.name)
        self.overlay = self.folder / "disk.qcow2"
        _run("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(disk), "-F", "qcow2", str(self.overlay))
        memory = keep_memory or (start.memory if start else self.folder / "memory")
        share = "on" if keep_memory or not start else "off"
        # Sockets that QEMU inherits: nothing to wait for, and its end is seen at once.
        monitor, monitor_end = socket.socketpair()
        agent, agent_end = socket.socketpair()
        command = [
            # However this process ends, no machine is left behind.
            *("setpriv", "--pdeathsig", "KILL"),
            *arguments(image),
            *("-object", f"memory-backend-file,id=memory,size={MEMORY},mem-path={memory},share={share}"),
            # The overlay dies with the machine: nothing need reach the host's disk.
            *("-drive", f"if=none,id=root,format=qcow2,cache=unsafe,file={self.overlay}"),
            *("-chardev", f"socket,id=agent,fd={agent_end.fileno()}"),
            *("-chardev", f"socket,id=console,path={self.console},server=on,wait=off,logfile={self.console_log}"),
            *("-chardev", f"socket,id=monitor,fd={monitor_end.fileno()}", "-mon", "chardev=monitor,mode=control"),
            *(("-incoming", "defer") if start else ()),
        ]
        self._log = self.folder / "qemu.log"
        with self._log.open("wb") as log, monitor_end, agent_end:
            inherited = (monitor_end.fileno(), agent_end.fileno())
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=inherited
            )
        self.agent = Agent(agent)
        self._monitor = QEMUMonitorProtocol(monitor)
        self._monitor.settimeout(60)
        try:
            self._begin(start)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def console(self) -> Path:
        """The unix socket of the serial console."""
        return self.folder / "console"

    @property
    def console_log(self) -> Path:
        return self.folder / "console.log"

    def qmp(self, command: str, **arguments: Any) -> Any:
        """Carry out one QMP command and return its answer; raise MachineError with QEMU's words."""
        answer = self._monitor.cmd_raw(command, arguments or None)
        if "error" in answer:
            raise MachineError(f"{command}: {answer['error']['desc']}")
        return answer["return"]

    def wait_event(self, name: str, timeout: float = 30, **data: Any) -> None:
        """Wait for a QMP event whose data has these items. Events that came before are looked at too."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            try:
                event = self._monitor.pull_event(wait=left)
            except TimeoutError:
                break
            if event and event["event"] == name and data.items() <= event["data"].items():
                return
        raise MachineError(f"no event {name} with {data} within {timeout:.0f} s")

    def save(self, folder: Path) -> None:
        """Stop the machine and put its disk and devices in `folder`, where its memory (keep_memory) is already."""
        self.qmp("stop")
        self.qmp("migrate", uri=f"exec:cat > {shlex.quote(str(folder / 'devices'))}")
        self._migrated("query-migrate", "completed")
        shutil.copy(self.overlay, folder / "disk.qcow2")
        self.stop()

    def ended(self, timeout: float) -> None:
        """Wait until the guest has turned itself off; the disk stays until `stop`."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise MachineError(f"the machine is still on after {timeout:.0f} s") from error

    def stop(self) -> None:
        """End the process now; the guest is not asked."""
        self.agent.close()
        with suppress(EOFError):  # the guest has turned itself off
            self._monitor.close()
        self._process.kill()
        self._process.wait()
        self._directory.cleanup()

    def _begin(self, start: State | None) -> None:
        try:
            self._monitor.connect()
        except Exception as error:
            self._process.kill()
            self._process.wait()
            raise MachineError(f"QEMU did not start: {self._words()}") from error
        # The memory's content is in its file already and stays out of the stream of state.
        self.qmp("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])
        if start:
            self.qmp("migrate-incoming", uri=f"exec:cat {shlex.quote(str(start.devices))}")
            self._migrated("query-status", "paused")
            self.qmp("cont")

    def _migrated(self, query: str, wanted: str) -> None:
        deadline = time.monotonic() + 60
        while (status := self.qmp(query).get("status")) != wanted:
            if status == "failed" or time.monotonic() > deadline:
                raise MachineError(f"{query} says {status}, not {wanted}: {self._words()}")
            time.sleep(0.01)

    def _words(self) -> str:
        return self._log.read_text(errors="replace")[-2000:].strip()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MachineError(f"{' '.join(command)}: {done.stderr.strip()}")
