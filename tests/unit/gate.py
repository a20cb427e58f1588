# SPDX-License-Identifier: LGPL-2.1-or-later
"""A place where a worker process waits until a test lets it on."""

import asyncio
import os
from pathlib import Path

_DEADLINE = 60  # far more than any of this takes


class Gate:
    """Where a worker tells that it is at work, and waits to be let on."""

    def __init__(self, folder: Path) -> None:
        self._arrived, self._open = folder / "arrived", folder / "open"
        folder.mkdir()
        for fifo in (self._arrived, self._open):
            os.mkfifo(fifo)
        # For both reading and writing: opening waits for nobody, and a worker never reads an end that is not meant.
        self._arrivals, self._opener = (
            os.open(fifo, os.O_RDWR | os.O_NONBLOCK) for fifo in (self._arrived, self._open)
        )

    def wait(self) -> None:
        """In the worker."""
        self._arrived.write_bytes(b"x")
        with self._open.open("rb", buffering=0) as stream:
            assert stream.read(1) == b"x"

    async def arrival(self) -> None:
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._arrivals, arrived.set)
        await asyncio.wait_for(arrived.wait(), _DEADLINE)
        loop.remove_reader(self._arrivals)

    def let_on(self) -> None:
        os.write(self._opener, b"x")

    def close(self) -> None:
        """Let on who still waits."""
        os.close(self._arrivals)
        os.close(self._opener)
