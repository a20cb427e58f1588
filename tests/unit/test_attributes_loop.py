# SPDX-License-Identifier: LGPL-2.1-or-later
"""The process never sleeps in a read of /dev/fuse, and can always end. A pipe stands for the descriptor."""

import asyncio
import ctypes
import errno
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from flavourd.attributes import loop as module

_DEADLINE = 60  # far more than any of this takes


class Closed(Exception):
    """As pyfuse3.asyncio.ClosedResourceError."""


@pytest.fixture
def layer() -> Iterator[Any]:
    before = signal.getsignal(signal.SIGALRM)
    made: Any = ModuleType("layer")
    made.ClosedResourceError = Closed
    module._mend(made)
    yield made
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await asyncio.wait_for(test(), _DEADLINE)

    asyncio.run(whole())


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0.001)


def test_who_waits_is_woken_when_there_is_something_to_read(layer: Any, pipe: tuple[int, int]) -> None:
    async def test() -> None:
        waiting = asyncio.create_task(layer.wait_readable(pipe[0]))
        await turns()
        assert not waiting.done()
        os.write(pipe[1], b"x")
        await waiting

    run(test)


def test_what_is_gone_again_when_it_was_to_be_read_is_not_read(
    layer: Any, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = module._settle
    gone = 0

    def take_away(ready: "asyncio.Future[None]") -> None:
        nonlocal gone
        gone += len(os.read(pipe[0], 1))
        monkeypatch.setattr(module, "_settle", settle)
        settle(ready)

    async def test() -> None:
        monkeypatch.setattr(module, "_settle", take_away)
        waiting = asyncio.create_task(layer.wait_readable(pipe[0]))
        os.write(pipe[1], b"x")
        await turns()
        assert (gone, waiting.done()) == (1, False)
        os.write(pipe[1], b"x")
        await waiting

    run(test)


def test_a_read_that_sleeps_all_the_same_is_interrupted(layer: Any, pipe: tuple[int, int]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    async def test() -> None:
        os.write(pipe[1], b"x")
        await layer.wait_readable(pipe[0])
        os.read(pipe[0], 1)  # and so the next one finds nothing
        assert libc.read(pipe[0], ctypes.create_string_buffer(1), 1) == -1
        assert ctypes.get_errno() == errno.EINTR
        await turns()
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0), "only a read is interrupted"

    run(test)


def test_who_waits_can_be_told_to_end_whether_or_not_he_has_just_been_woken(layer: Any, pipe: tuple[int, int]) -> None:
    async def test() -> None:
        waiting = asyncio.create_task(layer.wait_readable(pipe[0]))
        await turns()
        layer.notify_closing(pipe[0])
        layer.notify_closing(pipe[0])
        with pytest.raises(Closed):
            await waiting
        layer.notify_closing(pipe[0])

    run(test)


def test_who_was_woken_for_nothing_hears_that_it_is_to_end(
    layer: Any, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = module._settle

    def take_away(ready: "asyncio.Future[None]") -> None:
        os.read(pipe[0], 1)
        settle(ready)
        layer.notify_closing(pipe[0])

    async def test() -> None:
        monkeypatch.setattr(module, "_settle", take_away)
        waiting = asyncio.create_task(layer.wait_readable(pipe[0]))
        os.write(pipe[1], b"x")
        with pytest.raises(Closed):
            await waiting

    run(test)
