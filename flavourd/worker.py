# SPDX-License-Identifier: LGPL-2.1-or-later
"""Processes for switches, and for whatever else may sleep in the kernel.

A write to `unbind` or `bind` may sleep there for ever, deaf to every signal; in a thread it would take the daemon
along. A worker is forked without exec, so that it starts at once with all that the daemon knows, and closes every
descriptor, because it may outlive the daemon.
"""

import asyncio
import gc
import os
import pickle
import signal
import struct
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Generic, NoReturn, TypeVar

T = TypeVar("T")

_LENGTH = struct.Struct("=I")
# A message from a worker is (one of these, what).
_TOLD, _FAILED, _RESULT = range(3)


class WorkerDied(Exception):
    """The worker ended without an answer; the text says how."""


class Worker(Generic[T]):
    """`work` in a process of its own. What it tells on the way goes to `told`. `done` is its result, or WorkerDied; it
    stays pending for as long as the kernel holds the process at its work, but not while that is taken apart.

    keep: a descriptor that it needs. Must be made in a single-threaded process with a running event loop.
    """

    def __init__(
        self,
        work: Callable[[Callable[[Any], None]], T],
        told: Callable[[Any], None] = lambda _: None,
        *,
        keep: int | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[T] = self._loop.create_future()
        self._told = told
        self._came = bytearray()
        self._pipe, write_end = os.pipe()
        try:
            self.pid = os.fork()
        except OSError:
            os.close(self._pipe)
            raise
        else:
            if self.pid == 0:
                _child(work, write_end, keep)
        finally:
            os.close(write_end)
        os.set_blocking(self._pipe, False)
        self._loop.add_reader(self._pipe, self._read)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while part := os.read(self._pipe, 65536):
                self._came += part
                self._hear()
            self._ended()

    def _hear(self) -> None:
        for kind, what in messages(self._came):
            if kind == _TOLD:
                self._loop.call_soon(self._told, what)  # if that fails, what comes behind it is heard all the same
            elif self.done.done():  # cancelled
                pass
            elif kind == _FAILED:
                self.done.set_exception(WorkerDied(what))
            else:
                self.done.set_result(what)

    def _ended(self) -> None:
        """The pipe's other end is closed: the child is gone, or is going without another thing to wait for."""
        self._loop.remove_reader(self._pipe)
        os.close(self._pipe)
        _, status = os.waitpid(self.pid, 0)
        if not self.done.done():
            died = f"the worker ended with status {os.waitstatus_to_exitcode(status)} and no answer"
            self.done.set_exception(WorkerDied(died))


def packed(message: object) -> bytes:
    """For a pipe: its length and its pickle."""
    pickled = pickle.dumps(message)
    return _LENGTH.pack(len(pickled)) + pickled


def messages(came: bytearray) -> Iterator[Any]:
    """Take the whole messages off what has come."""
    while len(came) >= _LENGTH.size:
        end = _LENGTH.size + _LENGTH.unpack_from(came)[0]
        if len(came) < end:
            return
        message = bytes(came[_LENGTH.size : end])
        del came[:end]
        yield pickle.loads(message)  # noqa: S301 - our own child wrote it


def _child(work: Callable[[Callable[[Any], None]], T], pipe: int, keep: int | None) -> NoReturn:
    """Never returns into the daemon's code. What is half done in the kernel must be finished or undone: signals to
    the daemon are not for us.
    """
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Descriptors of the daemon's objects are closed under their feet: they must never be collected, or they would
    # close ours.
    gc.disable()
    first, last = sorted((pipe, pipe if keep is None else keep))
    os.closerange(3, first)
    os.closerange(first + 1, last)
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))

    def send(kind: int, what: object) -> None:
        message = packed((kind, what))
        with suppress(OSError):  # the daemon may be gone
            while message:
                message = message[os.write(pipe, message) :]

    try:
        send(_RESULT, work(lambda what: send(_TOLD, what)))
    except BaseException:  # noqa: BLE001 - whatever it is, the daemon tells it
        send(_FAILED, traceback.format_exc())
    os._exit(0)
