# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which policy is in force: the last one that could be read."""

import asyncio
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from flavourd.desk import Desk
from flavourd.errors import FlavourError
from flavourd.keeper.look import Eyes
from flavourd.policy.language import Policy
from flavourd.policy.load import read_policy


class Ruling:
    """error: why what stands on disk is not in force. since: when that which is was read, ISO 8601, UTC."""

    def __init__(self, root: Path, desk: Desk) -> None:
        self._root, self._desk = root, desk
        self._reading = asyncio.Lock()
        self.eyes = Eyes.on(root, desk.flavours, Policy())
        self.error: FlavourError | None = None
        self.since: str | None = None

    @property
    def policy(self) -> Policy:
        return self.eyes.policy

    async def read(self) -> None:
        """FlavourError(POLICY) if it cannot be used; then the one before stays."""
        async with self._reading:
            try:
                self.eyes = await self.on_disk()
            except FlavourError as error:
                self.error = error
                raise
            self.error = None
            self.since = datetime.now(UTC).isoformat(timespec="seconds")

    async def on_disk(self) -> Eyes:
        """In a worker, for a long policy takes its time."""
        flavours = self._desk.flavours
        policy = await self._desk.sight.look(partial(read_policy, self._root, flavours.names))
        return Eyes.on(self._root, flavours, policy)
