# SPDX-License-Identifier: LGPL-2.1-or-later
"""A few at a time, in their order, and the loop may do something else between them."""

import asyncio
from collections.abc import Iterable

from flavourd.device import DeviceId
from flavourd.inbox import Inbox
from flavourd.request import Origin, Request


def requests(first: int, count: int) -> list[Request]:
    device = DeviceId("pci", "0000:01:00.0")
    return [Request(device, "vfio", Origin.UEVENT, None, number) for number in range(first, first + count)]


class Taken:
    """How many there were after each time."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.counts: list[int] = []

    def __call__(self, some: Iterable[Request]) -> None:
        self.numbers += [request.seqnum for request in some]
        self.counts.append(len(self.numbers))


def test_few_are_taken_on_at_once() -> None:
    async def test() -> None:
        taken = Taken()
        Inbox(taken).put(requests(1, 8))
        assert taken.counts == [8]
        await asyncio.sleep(0)
        assert taken.counts == [8], "and nothing is left to do"

    asyncio.run(test())


def test_the_loop_comes_by_between_some_of_many() -> None:
    async def test() -> None:
        taken = Taken()
        inbox = Inbox(taken)
        inbox.put(requests(1, 20))
        inbox.put(requests(21, 3))
        assert taken.counts == [8]
        await asyncio.sleep(0)
        assert taken.counts == [8, 16]
        await asyncio.sleep(0)
        assert taken.counts == [8, 16, 23]
        inbox.put(requests(24, 1))
        assert taken.numbers == list(range(1, 25))

    asyncio.run(test())


def test_all_are_taken_on_when_there_is_no_time_left() -> None:
    async def test() -> None:
        taken = Taken()
        inbox = Inbox(taken)
        inbox.put(requests(1, 20))
        inbox.empty()
        assert taken.numbers == list(range(1, 21))
        await asyncio.sleep(0)
        assert taken.counts == [8, 20]
        inbox.empty()
        inbox.put(requests(21, 1))
        assert taken.numbers == list(range(1, 22))

    asyncio.run(test())


def test_memory_does_not_grow_without_end() -> None:
    async def test() -> None:
        taken = Taken()
        inbox = Inbox(taken)
        inbox.put(requests(1, 5000))
        inbox.put(requests(5001, 5000))
        assert taken.numbers == list(range(1, 10001))

    asyncio.run(test())


def test_what_comes_while_one_is_taken_on_waits_behind_the_others() -> None:
    async def test() -> None:
        taken: list[int] = []

        def take_on(some: Iterable[Request]) -> None:
            for request in some:
                taken.append(request.seqnum)
                if request.seqnum == 1:
                    inbox.put(requests(10, 1))

        inbox = Inbox(take_on)
        inbox.put(requests(1, 3))
        assert taken == [1, 2, 3, 10]

    asyncio.run(test())
