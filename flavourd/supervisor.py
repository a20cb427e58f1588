# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemd is told of a service: ready, reloading, stopping, alive (sd_notify(3), sd_watchdog_enabled(3))."""

import asyncio
import os
from contextlib import suppress

from systemd import daemon


def notify(state: str) -> None:
    with suppress(OSError):  # a service manager that does not listen must not stop us
        daemon.notify(state)


async def watchdog() -> None:
    """Tell for ever that the loop turns; at once done if nobody wants to know."""
    microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    while microseconds:
        notify("WATCHDOG=1")
        await asyncio.sleep(microseconds / 2_000_000)
