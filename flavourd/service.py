# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon's life: start, hear requests, tell outcomes, reload, stop."""

import asyncio
import os
import signal
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from systemd import daemon

from flavourd import logs
from flavourd.answer import Host, answer, refused
from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.flavour import DEFAULT
from flavourd.journal import Journal
from flavourd.kmod import Kmod
from flavourd.kmsg import Kmsg
from flavourd.outcome import Kind, Outcome
from flavourd.policy.flavours import read_flavours
from flavourd.request import Origin, Request
from flavourd.sysfs import Sysfs
from flavourd.turns import Turns
from flavourd.uevents import Uevents


class Service:
    """root: of the host. deadline: seconds after which a request is answered even if the kernel has not."""

    def __init__(self, root: Path, deadline: float) -> None:
        self._root = root
        self._host = Host(Sysfs(root), Kmod(root), Journal(root), partial(Kmsg, path=root / "dev/kmsg"))
        self._flavours = read_flavours(root)
        self._warned: tuple[str, ...] = ()
        self._turns = Turns(self._begin, self._tell, deadline)
        self._taken: dict[DeviceId, int] = {}
        self._counts = dict.fromkeys(Kind, 0)
        self._stop = asyncio.Event()
        self._ready = self._failed = False

    async def run(self) -> bool:
        """Serve until SIGTERM; False if something unforeseen ended it, so that it should be started anew."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_unforeseen)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        watchdog = asyncio.create_task(_watchdog())
        self._host.journal.prepare()
        uevents = Uevents(self._root)
        loop.add_reader(uevents.fileno(), self._on_uevents, uevents)
        self._recover()
        self._take_on(uevents.all())
        # Ready means: what was asked before is answered, so that a VM manager which starts after us finds its devices
        # in place.
        await self._first(self._turns.all_answered())
        self._ready = True
        _notify("READY=1")
        self._tell_status()
        await self._stop.wait()
        _notify("STOPPING=1\nSTATUS=Finishing what is begun")
        loop.remove_reader(uevents.fileno())
        self._turns.drop_waiting()  # they are not marked as taken: the next start finds them
        if not self._failed:
            await self._turns.all_answered()
        watchdog.cancel()
        return not self._failed

    async def _first(self, waiting: Any) -> None:
        """Wait for something, or to be stopped."""
        tasks = [asyncio.ensure_future(waiting), asyncio.create_task(self._stop.wait())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()

    # --- where requests come from

    def _recover(self) -> None:
        """Go on with what a daemon that died had begun."""
        begun = set()
        for request, instance in self._host.journal.unanswered():
            begun.add(request.device)
            if instance == self._host.sysfs.instance(request.device):
                self._turns.take_on(request)
            else:
                self._tell(
                    refused(request, FlavourError(Code.NO_DEVICE, f"{request.device} went away before it was done"))
                )
        for record in list(self._host.journal.unfinished()):
            if record.instance != self._host.sysfs.instance(record.device):
                self._host.journal.drop(record.device)
            elif record.device not in begun:
                self._turns.take_on(_put_back(record.device))

    def _on_uevents(self, uevents: Uevents) -> None:
        requests, lost = uevents.drain()
        self._take_on(requests)
        if lost:
            sentence = "uevents came faster than they could be read and some were lost"
            logs.tell_trouble(
                FlavourError(Code.UEVENTS_LOST, sentence, "every device is looked at again"), logs.WARNING
            )
            self._take_on(uevents.all())

    def _take_on(self, requests: Iterable[Request]) -> None:
        for request in requests:
            last = self._taken.get(request.device)
            if request.seqnum > (self._host.journal.taken(request.device) if last is None else last):
                self._taken[request.device] = request.seqnum
                self._turns.take_on(request)

    def _reload(self) -> None:
        if self._ready:
            _notify("RELOADING=1")
        try:
            self._flavours = read_flavours(self._root)
        except FlavourError as error:  # what runs goes on running
            logs.tell_trouble(error)
        if self._ready:
            _notify("READY=1")

    # --- what becomes of them

    def _begin(self, request: Request) -> Callable[[], Outcome]:
        """The work for a request whose turn has come. If this daemon dies before the answer, the next one goes on."""
        self._host.journal.begin(request, self._host.sysfs.instance(request.device))
        index = self._host.kmod.index(self._flavours.alias_prefixes, self._flavours.universal_modules)
        if index.warnings != self._warned:
            for warning in index.warnings:
                hint = "variants may be missed, universal drivers still work; run depmod, or mend the file"
                logs.tell_trouble(FlavourError(Code.INDEX_UNREADABLE, warning, hint), logs.WARNING)
            self._warned = index.warnings
        return partial(answer, request, self._host, self._flavours, index)

    def _tell(self, outcome: Outcome) -> None:
        self._counts[outcome.kind] += 1
        logs.tell(outcome)
        request = outcome.request
        if outcome.code is not Code.STUCK:
            self._host.journal.end(request.device)
        elif outcome.kind is Kind.REFUSED:  # it never began: the one that is stuck did
            self._host.journal.take(request)
        lost = outcome.kind is Kind.LOST and request.origin is not Origin.PUT_BACK
        if lost and any(record.device == request.device for record in self._host.journal.unfinished()):
            self._turns.take_on(_put_back(request.device), first=True)
        self._tell_status()

    def _tell_status(self) -> None:
        counts = ", ".join(f"{count} {kind}" for kind, count in self._counts.items() if count)
        stuck = len(self._turns.stuck)
        _notify(f"STATUS={self._turns.open} in work, {stuck} stuck; so far {counts or 'no requests'}")

    def _on_unforeseen(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """State is on disk: a fresh start is the one answer that is right for every unforeseen error."""
        self._failed = True
        self._stop.set()
        error = context.get("exception")
        story = "".join(traceback.format_exception(error)) if error else str(context.get("message"))
        logs.tell_trouble(FlavourError(Code.INTERNAL, story, "this is a bug in flavourd; it starts anew"))


def _put_back(device: DeviceId) -> Request:
    return Request(device, DEFAULT, Origin.PUT_BACK)


def _notify(state: str) -> None:
    with suppress(OSError):  # a service manager that does not listen must not stop us
        daemon.notify(state)


async def _watchdog() -> None:
    """Tell systemd that the loop turns (sd_watchdog_enabled(3))."""
    microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    while microseconds:
        _notify("WATCHDOG=1")
        await asyncio.sleep(microseconds / 2_000_000)
