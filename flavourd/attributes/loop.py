# SPDX-License-Identifier: LGPL-2.1-or-later
"""pyfuse3 on asyncio, with two holes closed that it has up to 3.5 at least.

pyfuse3 waits until /dev/fuse is readable and then reads, by a read(2) that sleeps if there is nothing. If the program
that asked is killed in between, the kernel takes its request away (fs/fuse/dev.c: request_wait_answer()), and this
whole process sleeps until somebody else asks: no writer gets his answer, nobody who has given up is seen. So it is
looked once more right before the read, and what still slips through is interrupted by a timer: pyfuse3 waits anew.

And to end, pyfuse3 sets a result where there may be one already, which would end us in the middle of everything.
"""

import asyncio
import select
import signal
from functools import partial
from types import ModuleType

_SECONDS = 0.1


def enable() -> None:
    """In place of pyfuse3.asyncio.enable()."""
    try:
        from pyfuse3 import asyncio as layer
    except ImportError:  # where it was before 3.3
        import pyfuse3_asyncio as layer
    _mend(layer)
    layer.enable()


def _mend(layer: ModuleType) -> None:
    waiting: set[asyncio.Future[None]] = set()
    closing = False

    async def wait_readable(fd: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            ready: asyncio.Future[None] = loop.create_future()
            waiting.add(ready)
            loop.add_reader(fd, _settle, ready)
            try:
                await ready
            finally:
                loop.remove_reader(fd)
                waiting.discard(ready)
            if _is_readable(fd):
                break
            if closing:
                raise layer.ClosedResourceError
        # Until the next turn of the loop; by then the request is read.
        signal.setitimer(signal.ITIMER_REAL, _SECONDS, _SECONDS)
        loop.call_soon(partial(signal.setitimer, signal.ITIMER_REAL, 0))

    def notify_closing(_fd: int) -> None:
        nonlocal closing
        closing = True
        for ready in waiting:
            if not ready.done():
                ready.set_exception(layer.ClosedResourceError())

    signal.signal(signal.SIGALRM, lambda *_: None)  # without SA_RESTART: it interrupts
    layer.wait_readable, layer.notify_closing = wait_readable, notify_closing  # type: ignore[attr-defined]


def _settle(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))  # also if it is unmounted, which reading tells
