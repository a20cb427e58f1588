# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who comes in, who is too many, who goes away: over a real socket. `live` holds each time that the daemon lives on."""

import asyncio
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flavourd.ipc import door

from .house import Caller, House, call, live


def test_who_has_gone_is_not_counted_any_more(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        callers = [await house.caller() for _ in range(3)]
        await house.until_inside(3)
        for left, caller in enumerate(callers):
            caller.leave()
            await house.until_inside(2 - left)

    live(tmp_path, test)


def test_more_connections_than_a_user_may_have_are_refused_in_words_until_one_is_closed(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        most = door._CONNECTIONS_OF_A_USER
        callers = [await house.caller() for _ in range(most)]
        await house.until_inside(most)
        one_more = await house.caller()
        refused = await one_more.reply()
        assert refused
        assert refused["error"] == "io.flavourd.Manager.Refused"
        assert refused["parameters"]["code"] == "too-many"
        assert str(most) in refused["parameters"]["message"]
        assert await one_more.ended()
        await callers[0].ask("Echo", text="inside")
        assert await callers[0].text() == "inside", "those who are inside go on"
        callers[0].leave()
        await house.until_inside(most - 1)
        await house.still_serves()

    live(tmp_path, test)


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """No more than so many descriptors can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, hard))
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for _ in range(count):
        os.close(taken.pop())
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)


@pytest.mark.parametrize("left", [0, 1])  # none for the connection; one, and none for what belongs to it
def test_without_descriptors_nobody_is_let_in_until_there_are_some_again(
    tmp_path: Path, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_PAUSE_SECONDS", 0.05)

    async def test(house: House) -> None:
        inside, waiting = await house.caller(), Caller(house.path)
        await house.until_inside(1)
        with descriptors_left(left):
            await waiting.enter()
            await waiting.ask("Echo", text="late")
            await inside.ask("Echo", text="inside")
            assert await inside.text() == "inside"
            if left:  # the kernel had handed the connection over already; it is closed
                assert await waiting.ended()
            assert house.door.count == 1
        if not left:
            assert await waiting.text() == "late"
        waiting.leave()
        await house.still_serves()

    live(tmp_path, test)


def test_a_door_that_is_closed_while_there_are_no_descriptors_stays_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_PAUSE_SECONDS", 0.05)

    async def test(house: House) -> None:
        inside, waiting = await house.caller(), Caller(house.path)
        await house.until_inside(1)
        with descriptors_left(0):
            await waiting.enter()
            await waiting.ask("Echo", text="late")
            for _ in range(2):  # by the second one it has tried to let the other in
                await inside.ask("Echo", text="inside")
                assert await inside.text() == "inside"
            house.door.close()
        await asyncio.sleep(door._PAUSE_SECONDS)  # ends after the door's own pause, which began before
        await inside.ask("Echo", text="inside")
        assert await inside.text() == "inside"
        assert house.desk.seen == ["inside"] * 3
        waiting.leave()

    live(tmp_path, test)


def test_a_closed_door_lets_nobody_in_and_those_inside_go_on(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        inside = await house.caller()
        await house.until_inside(1)
        house.door.close()
        outside = await house.caller()
        await outside.ask("Echo", text="outside")
        await inside.ask("Wait")
        await house.until(lambda: house.desk.seen == ["begun"])
        settled = asyncio.create_task(house.door.settled())
        house.desk.open.set()
        assert await inside.text() == "done"
        await settled
        assert house.desk.seen == ["begun"]
        outside.leave()

    live(tmp_path, test)


def test_who_comes_while_a_process_is_forked_is_told_apart_from_who_was_there_before(tmp_path: Path) -> None:
    """A worker that has just been forked holds the daemon's end of each connection open for a moment."""

    async def test(house: House) -> None:
        first = await house.caller()
        await house.until_inside(1)
        first_end = os.dup(first.socket.fileno())
        released, release = os.pipe()
        child = os.fork()
        if child == 0:
            for own in (release, first_end, first.socket.fileno()):
                os.close(own)
            os.read(released, 1)
            os._exit(0)
        os.close(released)
        await first.send(b"garbage\0")
        await house.until_inside(0)
        second = await house.caller()
        await second.ask("Watch", more=True)
        await second.text()
        first.leave()
        os.close(first_end)  # now the first one has hung up, and the child still holds our end of it
        await second.ask("Echo", text="not read before the stream ends")
        await house.still_serves()
        assert house.desk.seen == ["watched", "other"], "the second one has not gone"
        os.close(release)
        os.waitpid(child, 0)

    live(tmp_path, test)


def test_a_caller_who_has_gone_before_he_was_let_in_harms_nobody(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        for data in (b"", call("Echo", text="x"), call("Watch", more=True), b"\xff\0", b"x"):
            caller = await house.caller()
            if data:
                await caller.send(data)
            caller.leave()
        await house.still_serves()

    live(tmp_path, test)


def test_a_caller_is_told_from_his_connection(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        await house.until_inside(1)
        (connection,) = house.door._connections.values()
        assert connection._peer.uid == os.getuid()
        assert connection._peer.pid == os.getpid()
        assert caller.socket.family is socket.AF_UNIX

    live(tmp_path, test)
