# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon: takes requests, gives each to a worker, and answers within the deadline, whatever the kernel does.

Requests of one device are carried out in their order, those of different devices side by side.
"""

import asyncio
import os
import signal
import traceback
from collections import deque
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from systemd import daemon

from flavourd import logs
from flavourd.answer import Host, answer, refused
from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.journal import Journal
from flavourd.kmod import Kmod, ModuleIndex
from flavourd.kmsg import Kmsg
from flavourd.outcome import Kind, Outcome
from flavourd.policy.flavours import read_flavours
from flavourd.request import Origin, Request
from flavourd.sysfs import Sysfs
from flavourd.uevents import MarkedRequest, Uevents
from flavourd.worker import Worker, WorkerDied

# Enough to keep every lock of the kernel's driver core busy; more would only wait there and cost memory.
_WORKERS_AT_ONCE = 16


class Service:
    """root: of the host. deadline: seconds after which a request is answered even if the kernel has not."""

    def __init__(self, root: Path, deadline: float) -> None:
        self._root, self._deadline = root, deadline
        self._host = Host(Sysfs(root), Kmod(root), Journal(root), partial(Kmsg, path=root / "dev/kmsg"))
        self._flavours = read_flavours(root)
        self._warned: tuple[str, ...] = ()
        # What waits for each device that somebody serves; a device in `_stuck` is held by a worker past its deadline.
        self._queues: dict[DeviceId, deque[MarkedRequest]] = {}
        self._stuck: set[DeviceId] = set()
        self._seen: dict[DeviceId, int] = {}
        self._servers: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(_WORKERS_AT_ONCE)
        self._open = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._counts = dict.fromkeys(Kind, 0)
        self._stop = asyncio.Event()
        self._failed = False

    async def run(self) -> bool:
        """Serve until SIGTERM; False if something unforeseen ended it, so that it should be started anew."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_unforeseen)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        watchdog = asyncio.create_task(_watchdog())
        self._host.journal.prepare()
        uevents = Uevents()
        loop.add_reader(uevents.fileno(), self._on_uevents, uevents)
        self._recover()
        self._take_on(uevents.all())
        # Ready means: what was asked before is answered, so that a VM manager which starts after us finds its devices
        # in place.
        await self._quiet.wait()
        daemon.notify("READY=1")
        self._tell_status()
        await self._stop.wait()
        daemon.notify("STOPPING=1\nSTATUS=Finishing what is begun")
        loop.remove_reader(uevents.fileno())
        for queue in self._queues.values():  # not begun, so not marked as taken: found again at the next start
            self._settle(len(queue))
            queue.clear()
        await self._quiet.wait()
        watchdog.cancel()
        return not self._failed

    # --- where requests come from

    def _recover(self) -> None:
        """Go on with what a daemon that died had begun."""
        for device in self._host.journal.recorded():
            try:
                record = self._host.journal.record(device)
            except FlavourError as error:
                logs.tell_trouble(error)
                continue
            if not self._host.sysfs.exists(device):
                self._host.journal.drop(device)
            elif record and record.unfinished:
                self._submit(MarkedRequest(Request(device, record.flavour, Origin.RECOVERY), 0))

    def _on_uevents(self, uevents: Uevents) -> None:
        requests, lost = uevents.drain()
        self._take_on(requests)
        if lost:
            error = FlavourError(
                Code.UEVENTS_LOST, "uevents came faster than they could be read", "every device is looked at again"
            )
            logs.tell_trouble(error, logs.WARNING)
            self._take_on(uevents.all())

    def _take_on(self, requests: Iterable[MarkedRequest]) -> None:
        for marked in requests:
            device = marked.request.device
            last = self._seen.get(device)
            if marked.seqnum > (self._host.journal.taken(device) if last is None else last):
                self._seen[device] = marked.seqnum
                self._submit(marked)

    def _reload(self) -> None:
        daemon.notify("RELOADING=1")
        try:
            self._flavours = read_flavours(self._root)
        except FlavourError as error:  # what runs goes on running
            logs.tell_trouble(error)
        daemon.notify("READY=1")

    # --- what becomes of them

    def _submit(self, marked: MarkedRequest) -> None:
        """Take a request on: whatever happens, its outcome will be told."""
        self._open += 1
        self._quiet.clear()
        device = marked.request.device
        if device in self._stuck:
            self._refuse_stuck(marked)
        elif device in self._queues:
            self._queues[device].append(marked)
        else:
            self._queues[device] = deque([marked])
            server = asyncio.create_task(self._serve(device))
            self._servers.add(server)  # the loop itself keeps only a weak reference
            server.add_done_callback(self._servers.discard)

    async def _serve(self, device: DeviceId) -> None:
        """Carry out the requests of one device, one after the other, until none is left."""
        queue = self._queues[device]
        while queue:
            async with self._slots:
                if not queue:  # the service is stopping
                    break
                request, worker = self._begin(queue.popleft())
                if worker:
                    await asyncio.wait((worker.done,), timeout=self._deadline)
            if not worker:
                continue
            if not worker.done.done():
                self._stuck.add(device)
                self._answer(self._stuck_outcome(request, worker.pid))
                while queue:
                    self._refuse_stuck(queue.popleft())
                await asyncio.wait((worker.done,))
                self._stuck.discard(device)
                self._open += 1
            self._answer(_outcome(request, worker))
        del self._queues[device]

    def _begin(self, marked: MarkedRequest) -> tuple[Request, Worker[Outcome] | None]:
        request = marked.request
        try:
            if marked.seqnum:
                self._host.journal.take(request.device, marked.seqnum)
            work = partial(answer, request, self._host, self._flavours, self._index())
            return request, Worker(work)
        except OSError as error:  # no memory, no processes, a full /run
            sentence = f"no worker could be started: {error}"
            self._answer(
                refused(
                    request,
                    FlavourError(Code.HOST, sentence, "free some of what it names, then ask again", error.errno),
                )
            )
            return request, None

    def _index(self) -> ModuleIndex:
        index = self._host.kmod.index(self._flavours.alias_prefixes, self._flavours.universal_modules)
        if index.warnings != self._warned:
            for warning in index.warnings:
                hint = "variants may be missed, universal drivers still work; run depmod, or mend the file"
                logs.tell_trouble(FlavourError(Code.INDEX_UNREADABLE, warning, hint), logs.WARNING)
            self._warned = index.warnings
        return index

    def _stuck_outcome(self, request: Request, pid: int) -> Outcome:
        sentence = f"the kernel has not answered for {self._deadline:g} s; worker {pid} waits for it"
        hint = f"see what it waits for: cat /proc/{pid}/stack, journalctl -k; whoever holds the device open must let go"
        return Outcome(request, Kind.STUCK, request.wanted, code=Code.STUCK, sentence=sentence, hint=hint)

    def _refuse_stuck(self, marked: MarkedRequest) -> None:
        self._host.journal.take(marked.request.device, marked.seqnum)
        hint = "it heals by itself when the kernel lets go; ask again then"
        error = FlavourError(Code.STUCK, "an earlier switch of it is still stuck in the kernel", hint)
        self._answer(refused(marked.request, error))

    def _answer(self, outcome: Outcome) -> None:
        self._counts[outcome.kind] += 1
        logs.tell(outcome)
        self._settle(1)
        self._tell_status()

    def _settle(self, count: int) -> None:
        self._open -= count
        if not self._open:
            self._quiet.set()

    def _tell_status(self) -> None:
        counts = ", ".join(f"{count} {kind}" for kind, count in self._counts.items() if count)
        daemon.notify(f"STATUS={self._open} in work, {len(self._stuck)} stuck; so far {counts or 'no requests'}")

    def _on_unforeseen(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """State is on disk: a fresh start is the one answer that is right for every unforeseen error."""
        error = context.get("exception")
        story = "".join(traceback.format_exception(error)) if error else str(context.get("message"))
        logs.tell_trouble(FlavourError(Code.INTERNAL, story, "this is a bug in flavourd; it starts anew"))
        self._failed = True
        self._stop.set()


def _outcome(request: Request, worker: Worker[Outcome]) -> Outcome:
    try:
        return worker.done.result()
    except WorkerDied as died:
        return refused(
            request,
            FlavourError(Code.INTERNAL, str(died), "this is a bug in flavourd; `default` may bring the device back"),
        )


async def _watchdog() -> None:
    """Tell systemd that the loop turns (sd_watchdog_enabled(3))."""
    microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    while microseconds:
        daemon.notify("WATCHDOG=1")
        await asyncio.sleep(microseconds / 2_000_000)
