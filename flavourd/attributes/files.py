# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the files say and do. Whatever cannot be done is an OSError, whose number the program gets that asked for it."""

import asyncio
import errno
import os
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from flavourd.attributes import texts
from flavourd.attributes.calls import Away, Failed, Flavourd, Json
from flavourd.attributes.texts import explained, one_line
from flavourd.attributes.tree import CANDIDATES, ERROR, FLAVOUR, Node, Tree
from flavourd.attributes.unheard import Unheard
from flavourd.attributes.waiting import Waiting
from flavourd.attributes.writers import Writer
from flavourd.errnos import errno_of
from flavourd.flavour import Flavours
from flavourd.sysfs import Sysfs

T = TypeVar("T")

_WRITERS = 200  # flavourd takes 256 connections of root's, and flavourctl needs some
_READERS, _CALLS = 100, 8  # so many wait for their turn, so many calls are made at a time
_SECONDS = 10.0  # a reader cannot be interrupted
_LONGEST = 4096  # bytes of a write, as in sysfs


class Files:
    """root: of the host. flavours: that there are, may be changed at any time."""

    def __init__(self, root: Path, flavourd: Flavourd, flavours: Flavours) -> None:
        self.flavours = flavours
        self._tree = Tree(root)
        self._sysfs, self._flavourd = Sysfs(root), flavourd
        self._unheard = Unheard()
        self._writers, self._readers = Waiting(_WRITERS), Waiting(_READERS)
        self._calls = asyncio.Semaphore(_CALLS)

    def stop(self) -> None:
        """All who wait get EAGAIN."""
        self._writers.stop()
        self._readers.stop()

    # --- directories

    def child(self, parent: Node, name: str) -> Node:
        if child := self._tree.child(parent, name, texts.buses(self.flavours)):
            return child
        raise _error(errno.ENOENT)

    def children(self, parent: Node) -> list[Node]:
        return self._tree.children(parent, texts.buses(self.flavours))

    # --- reading

    async def read(self, node: Node) -> str:
        """What the file says now."""
        self.check(node)
        say = {FLAVOUR: self._flavours, CANDIDATES: self._candidates, ERROR: self._error}[node.path[3]]
        text = await say(node)
        self.check(node)  # what came may be about its successor
        return text

    def check(self, node: Node) -> None:
        """ENODEV if the device is gone."""
        if not self._tree.stands(node):
            raise _error(errno.ENODEV)

    async def _flavours(self, node: Node) -> str:
        """Nobody is asked: everybody may read it, and whoever asks flavourd starts it where it was stopped."""
        assert node.device
        device = node.device
        current = texts.current(self.flavours, device.bus, lambda proof: bool(self._sysfs.proof(device, proof)))
        return texts.choice(self.flavours, device.bus, current)

    async def _candidates(self, node: Node) -> str:
        return texts.candidates((await self._ask("Explain", device=str(node.device)))["plans"])

    async def _error(self, node: Node) -> str:
        try:
            outcomes = (await self._ask("History", device=str(node.device), limit=1))["outcomes"]
        except OSError:
            if note := self._unheard.newer(node, None):
                return f"{one_line(note)}\n"
            raise
        last = outcomes[-1] if outcomes else None
        text = self._unheard.newer(node, last["time"] if last else None) or (last["message"] if last else "")
        return f"{one_line(text)}\n" if text else ""

    async def _ask(self, method: str, **parameters: object) -> Json:
        try:
            return await self._readers.answer(asyncio.wait_for(self._in_turn(method, **parameters), _SECONDS))
        except TimeoutError as error:
            raise _error(errno.EAGAIN) from error

    async def _in_turn(self, method: str, **parameters: object) -> Json:
        async with self._calls:
            return await _answered(self._flavourd.call(method, **parameters))

    # --- writing

    async def write(self, node: Node, data: bytes, who: Writer) -> None:
        """Returns when the device is in the flavour."""
        self.check(node)
        tell = partial(self._unheard.note, node)
        if len(data) > _LONGEST:
            tell(f"{node.device}: a flavour's name is not that long; nothing was touched")
            raise _error(errno.EINVAL)
        word = data.decode(errors="replace").strip()
        try:
            await self._writers.answer(self._set(node, word, who), who)
        except Failed as error:
            raise _error(self._not_done(node, error)) from error
        except Away as error:
            tell(f"{node.device}: flavourd is away: {error}; systemctl status flavourd")
            raise _error(errno.EAGAIN) from error
        except OSError as error:
            if error.errno == errno.EINTR:
                tell(f"{node.device}: who asked for {word!r} ({who}) gave up: what had not begun is withdrawn")
            else:
                tell(f"{node.device}: {word!r} was not waited for: too many ask at once, or the tree was stopped")
            raise

    async def _set(self, node: Node, word: str, who: Writer) -> None:
        await self._flavourd.call("Set", devices=[str(node.device)], flavour=word, behalf=str(who))

    def _not_done(self, node: Node, error: Failed) -> int:
        """Number of the error. An outcome is in flavourd's history, a refused call is not."""
        outcomes = error.said.get("outcomes") or ()
        if not outcomes:
            said = {"message": f"{node.device}: {error}", "code": error.code, "hint": error.hint}
            self._unheard.note(node, explained(said))
        return errno_of(outcomes[0]["kind"] if outcomes else None, error.code)


async def _answered(call: Coroutine[Any, Any, Json]) -> Json:
    try:
        return await call
    except Away as error:
        raise _error(errno.EAGAIN) from error
    except Failed as error:
        raise _error(errno_of(None, error.code)) from error


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
