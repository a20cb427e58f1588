# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whoever listens hears what happens: in order, what he wants, and without costing memory."""

import asyncio
from collections.abc import Callable, Coroutine

from flavourd.ipc.feed import Event, Feed, Listener
from flavourd.ipc.wire import Step


def run(test: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


def step(text: str) -> Step:
    return Step("now", "pci/x", "vfio", text, "binding", text)


def everything(_event: Event) -> bool:
    return True


async def heard(listener: Listener) -> list[str]:
    """What is left until its end."""
    texts = []
    while event := await listener.next():
        assert isinstance(event, Step)
        texts.append(event.text)
    return texts


def test_events_are_heard_in_order_from_the_beginning_of_listening_to_its_end() -> None:
    async def test() -> None:
        feed = Feed()
        feed.publish(step("before"))
        with feed.listen(everything) as listener:
            for text in "abc":
                feed.publish(step(text))
            listener.end()
        feed.publish(step("after"))
        assert await heard(listener) == ["a", "b", "c"]

    run(test)


def test_each_listener_hears_what_he_wants() -> None:
    async def test() -> None:
        feed = Feed()
        with feed.listen(lambda event: event.uuid == "a") as one, feed.listen(everything) as other:
            for text in "aba":
                feed.publish(step(text))
            feed.end()
            assert await heard(one) == ["a", "a"]
            assert await heard(other) == ["a", "b", "a"]
            assert one.lost == 0

    run(test)


def test_a_listener_waits_for_what_has_not_happened_yet() -> None:
    async def test() -> None:
        feed = Feed()
        with feed.listen(everything) as listener:
            for text in "ab":
                waiting = asyncio.create_task(listener.next())
                await asyncio.sleep(0)
                assert not waiting.done()
                feed.publish(step(text))
                assert await waiting == step(text)
            waiting = asyncio.create_task(listener.next())
            await asyncio.sleep(0)
            listener.end()
            assert await waiting is None

    run(test)


def test_who_is_slow_keeps_the_newest_and_knows_before_the_first_of_them_how_many_he_has_missed() -> None:
    async def test() -> None:
        feed = Feed()
        with feed.listen(everything, 3) as listener, feed.listen(everything) as patient:
            for number in range(5):
                feed.publish(step(str(number)))
            assert await listener.next() == step("2")
            assert listener.lost == 2
            for number in range(5, 7):
                feed.publish(step(str(number)))
            assert await listener.next() == step("4")
            assert listener.lost == 3
            feed.end()
            assert await heard(listener) == ["5", "6"]
            assert await heard(patient) == list(map(str, range(7))), "without a limit nothing is left out"
            assert patient.lost == 0

    run(test)


def test_who_listens_no_more_costs_nothing() -> None:
    async def test() -> None:
        feed = Feed()
        for _ in range(3):
            with feed.listen(everything):
                assert len(feed._listeners) == 1
        assert not feed._listeners

    run(test)
