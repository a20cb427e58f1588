# SPDX-License-Identifier: LGPL-2.1-or-later
"""A loop in which nothing unforeseen may happen: in the daemon that would end it."""

import asyncio
from collections.abc import Callable, Coroutine

_DEADLINE = 60  # far more than any of this takes


def run(test: Callable[[], Coroutine[None, None, None]]) -> None:
    unforeseen: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unforeseen.append(context))
        await asyncio.wait_for(test(), _DEADLINE)

    asyncio.run(main())
    assert unforeseen == [], f"the daemon would have ended: {unforeseen}"
