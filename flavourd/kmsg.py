# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel's own words about one device, from /dev/kmsg.

Every dev_printk() record carries `DEVICE=+BUS:NAME` (drivers/base/core.c:set_dev_info()); that is the only way to the
human text behind an errno.
"""

import errno
import os
from pathlib import Path

from flavourd.device import DeviceId

_RECORD_BYTES = 8192  # more than the kernel's longest record: a shorter buffer would get EINVAL


class Kmsg:
    """Opened before a step; `lines()` gives what the kernel has said about the device since then or since the last
    call.
    """

    def __init__(self, device: DeviceId, path: Path = Path("/dev/kmsg")) -> None:
        self._key = f"DEVICE=+{device.bus}:{device.name}"
        try:
            self._fd: int | None = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._fd, 0, os.SEEK_END)
        except OSError:
            self._fd = None  # without the log a refusal still has its errno

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def lines(self) -> tuple[str, ...]:
        found = []
        while self._fd is not None:
            try:
                record = os.read(self._fd, _RECORD_BYTES).decode(errors="replace")
            except OSError as error:
                if (
                    error.errno == errno.EPIPE
                ):  # records were overwritten before they could be read: go on with the oldest
                    continue
                break
            if not record:
                break
            text = message(record, self._key)
            if text is not None:
                found.append(text)
        return tuple(found)


def message(record: str, key: str) -> str | None:
    """Text of one /dev/kmsg record if its dictionary has the line `key` (Documentation/ABI/testing/dev-kmsg).

    A record is `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;TEXT`, then one line ` KEY=VALUE` for each entry.
    """
    first, *dictionary = record.split("\n")
    return first.partition(";")[2] if f" {key}" in dictionary else None
