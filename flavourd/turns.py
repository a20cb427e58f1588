# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whose turn it is: requests of one device one after the other, those of different devices side by side.

Every request that is taken on gets an answer within the deadline of its turn, whatever the kernel does. A device whose
worker is past it is stuck: its requests are refused until the kernel lets go, and what came of it is then told too.
"""

import asyncio
import traceback
from collections import deque
from collections.abc import Callable, Collection

from flavourd.answer import refused
from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.outcome import Kind, Outcome
from flavourd.request import Origin, Request
from flavourd.step import Step, Tell, What
from flavourd.worker import Worker, WorkerDied

# Enough to keep every lock of the kernel's driver core busy; more would only wait there and cost memory.
_WORKERS_AT_ONCE = 16
_SLOT_SECONDS = 5.0


class Turns:
    """begin: called when a request's turn has come, gives the work for its worker. answered: gets every outcome. told:
    gets every step on the way to it.

    `deadline`: seconds. `open` counts the requests without an answer; `stuck` holds the devices whose worker is past
    it; `steps` has the last step of each device that is not done with.
    """

    def __init__(
        self,
        begin: Callable[[Request], Callable[[Tell], Outcome]],
        answered: Callable[[Outcome], None],
        told: Callable[[Request, Step], None],
        deadline: float,
    ) -> None:
        self._begin, self._answered, self._told, self.deadline = begin, answered, told, deadline
        self._queues: dict[DeviceId, deque[Request]] = {}
        self._servers: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(_WORKERS_AT_ONCE)
        self._all_answered = asyncio.Event()
        self._all_answered.set()
        self.stuck: set[DeviceId] = set()
        self.steps: dict[DeviceId, Step] = {}
        self.open = 0

    def take_on(self, request: Request, *, first: bool = False) -> None:
        """first: before all others that wait for the device."""
        self.open += 1
        self._all_answered.clear()
        device = request.device
        waiting = Step(What.WAITING, "waiting for its turn")
        if device in self._queues:
            queue = self._queues[device]
            queue.appendleft(request) if first else queue.append(request)
            if device in self.stuck:
                self._refuse_waiting(device)
            else:
                self._told(request, waiting)
        else:
            self._queues[device] = deque([request])
            self.steps[device] = waiting
            self._told(request, waiting)
            server = asyncio.create_task(self._serve(device))
            self._servers.add(server)  # the loop itself keeps only a weak reference
            server.add_done_callback(self._servers.discard)

    def drop_waiting(self) -> list[Request]:
        """Forget the requests whose turn has not come, and say which they were. They get no answer."""
        dropped = [request for queue in self._queues.values() for request in queue]
        for queue in self._queues.values():
            queue.clear()
        self.open -= len(dropped)
        self._look()
        return dropped

    def withdraw(self, requests: Collection[Request]) -> None:
        """Refuse those of these requests whose turn has not come: who asked does not want them any more."""
        for request in requests:
            queue = self._queues.get(request.device, ())
            if request in queue:
                self._queues[request.device].remove(request)
                hint = "ask again if you still want it"
                self._answer(_refused(request, Code.WITHDRAWN, "who asked went away before its turn came", hint))

    async def all_answered(self) -> None:
        """Wait until no request is open. One that is stuck has its answer."""
        await self._all_answered.wait()

    # ---

    async def _serve(self, device: DeviceId) -> None:
        """Carry out the requests of one device until none is left."""
        queue = self._queues[device]
        while queue:
            async with self._slots:
                if not queue:  # dropped while waiting for the slot
                    break
                request = queue.popleft()
                worker = self._start(request)
                if worker:
                    await asyncio.wait((worker.done,), timeout=min(_SLOT_SECONDS, self.deadline))
            if worker and not worker.done.done():  # it sleeps in the kernel and needs no slot for that
                await asyncio.wait((worker.done,), timeout=max(0, self.deadline - _SLOT_SECONDS))
            if worker and not worker.done.done():
                await self._wait_for_kernel(request, worker)
            if worker:
                self._answer(_outcome(request, worker))
        del self._queues[device]
        self.steps.pop(device, None)

    def _start(self, request: Request) -> Worker[Outcome] | None:
        def told(step: Step) -> None:
            self.steps[request.device] = step
            self._told(request, step)

        try:
            worker = Worker(self._begin(request), told)
            told(Step(What.BEGUN, "reading the device"))
            return worker
        except OSError as error:  # no memory, no processes, a full /run
            hint = "free what it names, then ask again"
            self._answer(_refused(request, Code.HOST, f"no worker could be started: {error}", hint))
        except Exception:  # noqa: BLE001 - the request is answered, whatever it was
            self._answer(_refused(request, Code.INTERNAL, traceback.format_exc(), "this is a bug in flavourd"))
        return None

    async def _wait_for_kernel(self, request: Request, worker: Worker[Outcome]) -> None:
        device = request.device
        self.stuck.add(device)
        sentence = (
            f"the kernel has not answered for {self.deadline:g} s; worker {worker.pid} waits for it, "
            f"{self.steps[device].text}"
        )
        hint = f"see cat /proc/{worker.pid}/stack and journalctl -k; whoever holds the device open must let go"
        self._answer(Outcome(request, Kind.STUCK, request.wanted, code=Code.STUCK, sentence=sentence, hint=hint))
        self._refuse_waiting(device)
        await asyncio.wait((worker.done,))
        self.stuck.discard(device)
        self.open += 1  # the end of it is one more answer
        self._all_answered.clear()

    def _refuse_waiting(self, device: DeviceId) -> None:
        queue = self._queues[device]
        while queue:
            request = queue.popleft()
            hint = "it heals by itself when the kernel lets go; ask again then"
            self._answer(_refused(request, Code.STUCK, "an earlier switch of it is still stuck in the kernel", hint))

    def _answer(self, outcome: Outcome) -> None:
        self.open -= 1
        try:
            self._answered(outcome)  # may take on another one, and only then it shows whether all are answered
        finally:
            self._look()

    def _look(self) -> None:
        if not self.open:
            self._all_answered.set()


def _refused(request: Request, code: Code, sentence: str, hint: str) -> Outcome:
    return refused(request, FlavourError(code, sentence, hint))


def _outcome(request: Request, worker: Worker[Outcome]) -> Outcome:
    try:
        return worker.done.result()
    except WorkerDied as died:
        put_back = request.origin is Origin.PUT_BACK
        next_step = "ask for `default`" if put_back else "what it has left half done is put back now"
        hint = f"{next_step}; this is a bug, of flavourd or of the driver that it asked"
        return Outcome(request, Kind.LOST, request.wanted, code=Code.INTERNAL, sentence=str(died), hint=hint)
