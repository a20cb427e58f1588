# SPDX-License-Identifier: LGPL-2.1-or-later
"""Those who wait for an answer get it, or an error as soon as they, or we, have given up."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from flavourd.attributes.waiting import Waiting
from flavourd.attributes.writers import Writer

_DEADLINE = 60  # far more than any of this takes


def run(test: Callable[[Waiting], Awaitable[None]], most: int = 2) -> None:
    async def whole() -> None:
        await asyncio.wait_for(test(Waiting(most)), _DEADLINE)

    asyncio.run(whole())


class Work:
    """Something that is waited for. ended: it was cancelled, and has seen to that."""

    def __init__(self) -> None:
        self.begun, self.go, self.ended = asyncio.Event(), asyncio.Event(), False

    async def __call__(self) -> str:
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.ended = True
            raise
        return "done"


async def fails_with(number: int, waiting: Awaitable[object]) -> None:
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        await waiting
    assert caught.value.errno == number


def test_what_the_work_returns_or_raises_is_the_answer() -> None:
    async def test(waiting: Waiting) -> None:
        async def raises() -> None:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

        work = Work()
        work.go.set()
        assert await waiting.answer(work()) == "done"
        await fails_with(errno.EBUSY, waiting.answer(raises()))

    run(test)


def test_who_is_too_many_is_told_to_come_again_until_another_one_has_his_answer() -> None:
    async def test(waiting: Waiting) -> None:
        first, second, third = Work(), Work(), Work()
        answers = [asyncio.create_task(waiting.answer(work())) for work in (first, second)]
        await second.begun.wait()
        await fails_with(errno.EAGAIN, waiting.answer(third()))
        assert not third.begun.is_set()
        first.go.set()
        await answers[0]
        third.go.set()
        assert await waiting.answer(third()) == "done"
        second.go.set()
        assert await answers[1] == "done"

    run(test)


def test_a_user_who_is_not_root_leaves_room_for_others() -> None:
    async def test(waiting: Waiting) -> None:
        first, second, third = Work(), Work(), Work()
        answer = asyncio.create_task(waiting.answer(first(), Writer(7, 0)))
        await first.begun.wait()
        await fails_with(errno.EAGAIN, waiting.answer(second(), Writer(7, 0)))
        third.go.set()
        assert await waiting.answer(third(), Writer(0, 0)) == "done"
        first.go.set()
        assert await answer == "done"
        second.go.set()
        assert await waiting.answer(second(), Writer(7, 0)) == "done"

    run(test)


class Fickle(Writer):
    gives_up = False

    def has_given_up(self) -> bool:
        return self.gives_up


def test_who_gives_up_is_interrupted_and_his_work_is_cancelled_and_the_others_wait_on() -> None:
    async def test(waiting: Waiting) -> None:
        mine, his = Work(), Work()
        me, he = Fickle(0, os.getpid()), Fickle(0, os.getpid())
        other = asyncio.create_task(waiting.answer(mine(), me))
        answer = asyncio.create_task(waiting.answer(his(), he))
        await his.begun.wait()
        he.gives_up = True
        await fails_with(errno.EINTR, answer)
        assert his.ended
        assert not other.done()
        mine.go.set()
        assert await other == "done"
        assert not mine.ended
        me.close()
        he.close()

    run(test)


def test_who_cannot_be_seen_is_waited_for() -> None:
    async def test(waiting: Waiting) -> None:
        work = Work()
        answer = asyncio.create_task(waiting.answer(work(), Writer(0, 0)))
        await work.begun.wait()
        done, _ = await asyncio.wait([answer], timeout=0.3)  # three looks
        assert not done
        work.go.set()
        assert await answer == "done"

    run(test)


def test_when_we_stop_nobody_waits_any_more() -> None:
    async def test(waiting: Waiting) -> None:
        work, late = Work(), Work()
        answer = asyncio.create_task(waiting.answer(work()))
        await work.begun.wait()
        waiting.stop()
        waiting.stop()
        await fails_with(errno.EAGAIN, answer)
        assert work.ended
        await fails_with(errno.EAGAIN, waiting.answer(late()))
        assert not late.begun.is_set()

    run(test)


def test_who_is_cancelled_himself_leaves_no_work_behind() -> None:
    async def test(waiting: Waiting) -> None:
        for _ in range(5):  # and his place is free again
            work = Work()
            answer = asyncio.create_task(waiting.answer(work()))
            await work.begun.wait()
            answer.cancel()
            with suppress(asyncio.CancelledError):
                await answer
            assert work.ended

    run(test)
