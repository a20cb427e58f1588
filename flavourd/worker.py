# SPDX-License-Identifier: LGPL-2.1-or-later
"""One disposable process for each switch.

A write to `unbind` or `bind` may sleep in the kernel for ever, deaf to every signal; in a thread it would take the
daemon along. A worker is forked without exec, so that it starts at once with all that the daemon knows, and closes
every descriptor, because it may outlive the daemon.
"""

import asyncio
import gc
import os
import pickle
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, NoReturn, TypeVar

T = TypeVar("T")


class WorkerDied(Exception):
    """The worker ended without an answer; the text says how."""


class Worker(Generic[T]):
    """`work` in a process of its own. `done` is its result, or WorkerDied; it stays pending for as long as the kernel
    holds the process.

    Must be made in a single-threaded process with a running event loop.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[T] = self._loop.create_future()
        self._answer = bytearray()
        self._pipe, write_end = os.pipe()
        try:
            self.pid = os.fork()
        except OSError:
            os.close(self._pipe)
            raise
        else:
            if self.pid == 0:
                _child(work, write_end)
        finally:
            os.close(write_end)
        os.set_blocking(self._pipe, False)
        self._loop.add_reader(self._pipe, self._read)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while part := os.read(self._pipe, 65536):
                self._answer += part
            self._ended()

    def _ended(self) -> None:
        """The pipe's other end is closed: the child is gone, or is going without another thing to wait for."""
        self._loop.remove_reader(self._pipe)
        os.close(self._pipe)
        _, status = os.waitpid(self.pid, 0)
        if self.done.cancelled():
            return
        try:
            failure, result = pickle.loads(self._answer)  # noqa: S301 - our own child wrote it
        except (pickle.UnpicklingError, EOFError):
            failure, result = f"the worker ended with status {os.waitstatus_to_exitcode(status)} and no answer", None
        if failure:
            self.done.set_exception(WorkerDied(failure))
        else:
            self.done.set_result(result)


def _child(work: Callable[[], T], pipe: int) -> NoReturn:
    """Never returns into the daemon's code. What is half done in the kernel must be finished or undone: signals to
    the daemon are not for us.
    """
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Descriptors of the daemon's objects are closed under their feet: they must never be collected, or they would
    # close ours.
    gc.disable()
    os.closerange(3, pipe)
    os.closerange(pipe + 1, os.sysconf("SC_OPEN_MAX"))
    try:
        answer = pickle.dumps((None, work()))
    except BaseException:  # noqa: BLE001 - whatever it is, the daemon tells it
        answer = pickle.dumps((traceback.format_exc(), None))
    with suppress(OSError):  # the daemon may be gone
        while answer:
            answer = answer[os.write(pipe, answer) :]
    os._exit(0)
