# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon's life: start, hear uevents and callers, reload, stop."""

import asyncio
import signal
import socket
import traceback
from pathlib import Path
from typing import Any

from asyncvarlink import VarlinkInterfaceRegistry
from asyncvarlink.serviceinterface import VarlinkServiceInterface
from systemd import daemon

from flavourd import __version__, logs
from flavourd.desk import Desk
from flavourd.errors import Code, FlavourError
from flavourd.ipc import wire
from flavourd.ipc.door import Door
from flavourd.ipc.feed import Feed
from flavourd.ipc.history import History
from flavourd.ipc.manager import Manager
from flavourd.keeper.keeper import Keeper
from flavourd.outcome import Outcome
from flavourd.request import Request
from flavourd.step import Step
from flavourd.supervisor import notify, watchdog
from flavourd.survey import Survey
from flavourd.udevdb import UdevDatabase
from flavourd.uevents import Uevents

# The answer goes out before, and what came of requests that end together is told and written down at once.
_AFTERWARDS_SECONDS = 0.02


class Service:
    """root: of the host. deadline: seconds after which a request is answered even if the kernel has not."""

    def __init__(self, root: Path, deadline: float) -> None:
        self._root = root
        self._desk = Desk(root, deadline, self._told, self._answered)
        self._keeper = Keeper(root, self._desk)
        self._desk.ended = self._keeper.after
        self._feed = Feed()
        self._history = History(root)
        self._stop = asyncio.Event()
        self._reloading: asyncio.Task[None] | None = None
        self._ready = self._failed = False
        self._afterwards: asyncio.TimerHandle | None = None

    async def run(self) -> bool:
        """Serve until SIGTERM; False if something unforeseen ended it, so that it should be started anew."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_unforeseen)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        alive = asyncio.create_task(watchdog())
        desk = self._desk
        for trouble in desk.host.journal.prepare():
            logs.tell_trouble(trouble, logs.WARNING)
        uevents = Uevents(UdevDatabase(self._root))
        loop.add_reader(uevents.fileno(), self._on_uevents, uevents)
        found = list(uevents.all())
        desk.listen()
        desk.recover()
        desk.take_on(found, from_before=True)
        door = self._open_door()
        # Ready means: what was asked before is answered, and what the policy wants is done, so that a VM manager which
        # starts after us finds its devices in place.
        await self._first(self._begun())
        if not self._stop.is_set():
            self._ready = True
            notify("READY=1")
            self._tell_status()
        await self._stop.wait()
        notify("STOPPING=1\nSTATUS=Finishing what is begun")
        # Who writes to `driver_flavour` now is told so at once.
        loop.add_reader(uevents.fileno(), self._on_late_uevents, uevents)
        if door:
            door.close()
        self._keeper.stop()
        if not self._failed:
            await desk.finish()
            loop.remove_reader(uevents.fileno())
            self._feed.end()
            if door:
                await door.settled()
        self._write_history()
        alive.cancel()
        loop.set_exception_handler(
            lambda _loop, _context: None
        )  # what is cut off now, a caller who does not read, is no fault
        return not self._failed

    async def _begun(self) -> None:
        """What is made by an answer, the VFs of a PF for one, may itself be asked for."""
        await self._keeper.start()
        while True:
            await self._keeper.settled()
            await self._desk.turns.all_answered()
            if self._keeper.idle:
                return

    async def _first(self, waiting: Any) -> None:
        """Wait for something, or to be stopped."""
        tasks = [asyncio.ensure_future(waiting), asyncio.create_task(self._stop.wait())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()

    def _open_door(self) -> Door | None:
        """Serve the control socket that systemd has passed."""
        sock = control_socket()
        if not sock:
            hint = "systemctl start flavourd.socket flavourd.service"
            logs.tell_trouble(
                FlavourError(Code.HOST, "no control socket was passed: flavourctl cannot reach us", hint), logs.WARNING
            )
            return None
        registry = VarlinkInterfaceRegistry()
        door = Door(sock, registry)
        about = ("flavourd", "flavourd", __version__, "https://varlink.org")
        registry.register_interface(VarlinkServiceInterface(*about, registry))
        registry.register_interface(
            Manager(
                self._desk,
                self._keeper,
                self._feed,
                self._history,
                Survey(self._root),
                lambda: self._ready,
                lambda: door.count,
            )
        )
        door.open()
        return door

    # --- what comes in

    def _on_uevents(self, uevents: Uevents) -> None:
        heard = uevents.drain()
        if heard.module or heard.lost:
            self._desk.listen(missed=heard.lost)
        self._desk.forget(heard.removed)
        self._desk.take_on(heard.requests)
        self._keeper.heard(heard.changed, heard.removed)
        if heard.lost:
            sentence = "uevents came faster than they could be read and some were lost"
            logs.tell_trouble(
                FlavourError(Code.UEVENTS_LOST, sentence, "every device is looked at again"), logs.WARNING
            )
            self._desk.forget_gone()
            self._desk.take_on(uevents.all())
            self._keeper.look()

    def _on_late_uevents(self, uevents: Uevents) -> None:
        heard = uevents.drain()
        if heard.lost:
            self._desk.listen(missed=True)
        self._desk.take_on(heard.requests)

    def _reload(self) -> None:
        self._reloading = asyncio.create_task(self._read_anew())

    async def _read_anew(self) -> None:
        if self._ready:
            notify("RELOADING=1")
        try:
            self._desk.reload()
            await self._keeper.reload()
        except FlavourError as error:  # what runs goes on running
            logs.tell_trouble(error)
        if self._ready:
            notify("READY=1")
        self._tell_status()

    # --- what goes out

    def _told(self, request: Request, step: Step) -> None:
        if self._feed.tells_steps:
            self._feed.publish(wire.Step.of(request, step))

    def _answered(self, outcome: Outcome) -> None:
        told = wire.Outcome.of(outcome)
        self._history.add(told)
        self._feed.publish(told)
        if not self._afterwards:
            self._afterwards = asyncio.get_running_loop().call_later(_AFTERWARDS_SECONDS, self._tell_afterwards)

    def _tell_afterwards(self) -> None:
        """What nobody waits for."""
        self._afterwards = None
        self._write_history()
        self._tell_status()

    def _write_history(self) -> None:
        try:
            self._history.write()
        except OSError as error:
            logs.tell_trouble(
                FlavourError(Code.HOST, f"history could not be written: {error}", "make room in /run"), logs.WARNING
            )

    def _tell_status(self) -> None:
        desk = self._desk
        counts = ", ".join(f"{count} {kind}" for kind, count in desk.counts.items() if count)
        rules, contested = len(self._keeper.force.policy.rules), len(self._keeper.memories.contested)
        policy = f"; policy: {rules} rules{f', {contested} contested' if contested else ''}" if rules else ""
        policy += "; the policy on disk cannot be used" if self._keeper.force.error else ""
        work = f"{desk.turns.open} in work, {len(desk.turns.stuck)} stuck"
        notify(f"STATUS={work}; so far {counts or 'no requests'}{policy}")

    def _on_unforeseen(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """State is on disk: a fresh start is the one answer that is right for every unforeseen error."""
        self._failed = True
        self._stop.set()
        error = context.get("exception")
        story = "".join(traceback.format_exception(error)) if error else str(context.get("message"))
        logs.tell_trouble(FlavourError(Code.INTERNAL, story, "this is a bug in flavourd; it starts anew"))


def control_socket() -> socket.socket | None:
    """The socket that systemd has passed (sd_listen_fds(3)); only the first who asks gets it."""
    passed = daemon.listen_fds(unset_environment=True)
    return socket.socket(fileno=passed[0]) if passed else None
