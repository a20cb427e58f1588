# SPDX-License-Identifier: LGPL-2.1-or-later
"""What cannot be done for want of a process or of time is tried again."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

from flavourd.errors import Code, FlavourError

T = TypeVar("T")

PAUSES = (1.0, 3.0)


async def patiently(work: Callable[[], Awaitable[T]], final: Collection[Code]) -> T:
    """final: codes with which no other attempt would end otherwise."""
    for pause in PAUSES:
        try:
            return await work()
        except FlavourError as error:
            if error.code in final:
                raise
        await asyncio.sleep(pause)
    return await work()
