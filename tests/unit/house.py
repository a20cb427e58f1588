# SPDX-License-Identifier: LGPL-2.1-or-later
"""A house with a door: a real socket, a real loop, and callers who write and read bytes."""

import array
import asyncio
import gc
import json
import os
import socket
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypedDict

from asyncvarlink import AnnotatedResult, VarlinkInterface, VarlinkInterfaceRegistry, varlinkmethod
from systemd import journal

from flavourd.errors import Code, FlavourError
from flavourd.ipc.call import CALL, one_reply_too
from flavourd.ipc.door import Door

_DEADLINE = 60  # far more than any of this takes
Json = dict[str, Any]


class Text(TypedDict):
    text: str


class Desk(VarlinkInterface, name="test.flavourd.Desk"):
    """One method of each kind that io.flavourd.Manager has. `seen` is what happened, in order."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.open = asyncio.Event()
        self.gone = asyncio.Event()
        self.shut = asyncio.Event()

    @varlinkmethod
    def Echo(self, *, text: str) -> Text:
        self.seen.append(text)
        return Text(text=text)

    @varlinkmethod
    async def Wait(self) -> Text:
        """Until `open` is set."""
        self.seen.append("begun")
        await self.open.wait()
        return Text(text="done")

    @varlinkmethod
    def Refuse(self) -> Text:
        raise FlavourError(Code.BAD_NAME, "no such name", "another one")

    @varlinkmethod
    async def Fail(self) -> Text:
        raise ZeroDivisionError("what nobody foresaw")

    @varlinkmethod
    def Spoil(self) -> Text:
        return Text(text=7)  # type: ignore[typeddict-item]

    @varlinkmethod(return_type=Text)
    async def Watch(self) -> AsyncIterator[AnnotatedResult]:
        """Text after text, a new one each time that `open` is set."""
        try:
            with CALL.get().if_gone(self._leave):
                while True:
                    self.seen.append("watched")
                    yield AnnotatedResult(Text(text="x" * 1000), continues=True)
                    await self.open.wait()
                    self.open.clear()
                    if self.gone.is_set():
                        break
        finally:
            self.shut.set()

    @varlinkmethod(return_type=Text)
    async def Pour(self) -> AsyncIterator[AnnotatedResult]:
        """Without end, as fast as they are taken."""
        try:
            while True:
                self.seen.append("poured")
                yield AnnotatedResult(Text(text="x" * 10000), continues=True)
                await asyncio.sleep(0)
        finally:
            self.shut.set()

    @one_reply_too
    @varlinkmethod(return_type=Text)
    async def Set(self, *, text: str) -> AsyncIterator[AnnotatedResult]:
        self.seen.append(text)
        with CALL.get().if_gone(lambda: self.seen.append(f"{text} withdrawn")):
            yield AnnotatedResult(Text(text="step"), continues=True)
            await self.open.wait()
        if text == "refused":
            raise FlavourError(Code.BUSY, "it is busy", "")
        yield AnnotatedResult(Text(text=text))

    def _leave(self) -> None:
        self.seen.append("gone")
        self.gone.set()
        self.open.set()


class Caller:
    """A connection to the door."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.setblocking(False)
        self._path = str(path)
        self._came = b""
        self._loop = asyncio.get_running_loop()

    async def enter(self) -> "Caller":
        await self._loop.sock_connect(self.socket, self._path)
        return self

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.socket, data)

    async def ask(self, method: str, **rest: Any) -> None:
        """rest: parameters; more and oneway are said beside them."""
        await self.send(call(method, **rest))

    async def reply(self) -> Json | None:
        """The next one; None at the end of the connection."""
        while b"\0" not in self._came:
            try:
                part = await self._loop.sock_recv(self.socket, 65536)
            except ConnectionResetError:
                part = b""
            if not part:
                assert not self._came, "the connection ended in the middle of a message"
                return None
            self._came += part
        message, _, self._came = self._came.partition(b"\0")
        decoded: Json = json.loads(message)
        return decoded

    async def ended(self) -> bool:
        return await self.reply() is None

    async def text(self) -> str:
        reply = await self.reply()
        assert reply, "the connection has ended"
        assert "error" not in reply, reply
        return str(reply["parameters"]["text"])

    async def error(self) -> str:
        reply = await self.reply()
        assert reply, "the connection has ended"
        return str(reply["error"])

    def send_with(self, data: bytes, fds: list[int]) -> None:
        self.socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])

    def leave(self) -> None:
        self.socket.close()


def call(method: str, *, more: bool = False, oneway: bool = False, **parameters: Any) -> bytes:
    name = method if "." in method else f"test.flavourd.Desk.{method}"
    flags = {key: True for key, value in (("more", more), ("oneway", oneway)) if value}
    return json.dumps({"method": name, "parameters": parameters, **flags}).encode() + b"\0"


class House:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "socket"
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(self.path))
        self.listening.listen(4096)
        self.registry = VarlinkInterfaceRegistry()
        self.desk = Desk()
        self.registry.register_interface(self.desk)
        self.door = Door(self.listening, self.registry)
        self.door.open()
        self._callers: list[Caller] = []

    async def caller(self) -> Caller:
        caller = Caller(self.path)
        self._callers.append(caller)
        return await caller.enter()

    async def still_serves(self) -> None:
        """Somebody else is served, as if nothing had happened."""
        other = await self.caller()
        await other.ask("Echo", text="other")
        assert await other.text() == "other"
        other.leave()

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():
            await asyncio.sleep(0.001)

    async def until_inside(self, count: int) -> None:
        await self.until(lambda: self.door.count == count)

    async def close(self) -> None:
        for caller in self._callers:
            caller.leave()
        await asyncio.wait_for(self.until_inside(0), _DEADLINE)
        self.door.close()
        self.listening.close()


@asynccontextmanager
async def _house(folder: Path) -> AsyncIterator[House]:
    house = House(folder)
    try:
        yield house
    finally:
        await house.close()


def live(folder: Path, test: Callable[[House], Coroutine[None, None, None]]) -> None:
    """Run a test in a house of its own. Whatever happens there, nothing unforeseen reaches the loop, for that ends the
    daemon; all who came are out again in the end; and nothing is left open or unawaited.
    """
    unforeseen: list[Json] = []
    theirs = children()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unforeseen.append(context))
        async with _house(folder) as house:
            await asyncio.wait_for(test(house), _DEADLINE)
        async with asyncio.timeout(_DEADLINE):  # a worker has answered before it is taken apart
            while children() - theirs:
                await asyncio.sleep(0)  # one turn of the loop, not a pause

    with suppress(OSError):
        journal.sendv(b"MESSAGE=a unit test of flavourd", b"PRIORITY=7")  # opens a descriptor, and keeps it
    before = descriptors()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        asyncio.run(main())
        gc.collect()
    assert unforeseen == [], f"the daemon would have ended: {unforeseen}"
    words = [str(warning.message) for warning in warned]
    assert words == [], f"warned: {words}"
    assert descriptors() == before, "descriptors are left open"


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def children() -> set[int]:
    """The processes that this one has to reap, now or when they end."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}
