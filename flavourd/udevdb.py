# SPDX-License-Identifier: LGPL-2.1-or-later
"""udev's database, read as files.

libudev would open each device's `uevent` too as soon as a property is asked for, and sleep there for as long as a stuck
driver holds the device (drivers/base/core.c:uevent_show() on Linux 6.1).
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from flavourd.device import DeviceId


class UdevDatabase:
    def __init__(self, root: Path = Path("/")) -> None:
        self._path = root / "run/udev"

    def tagged(self, tag: str) -> Iterator[DeviceId]:
        """Devices on a bus that have ever had this tag. Others are device nodes and interfaces, which have no
        flavours.
        """
        try:
            names = sorted(path.name for path in (self._path / "tags" / tag).iterdir())
        except FileNotFoundError:
            return
        for name in names:
            bus, colon, device = name.removeprefix("+").partition(":")
            if colon and name.startswith("+"):
                yield DeviceId(bus, device)

    def properties(self, device: DeviceId) -> defaultdict[str, str]:
        """Those of a device on a bus; none if it went away."""
        try:
            lines = (self._path / "data" / f"+{device.bus}:{device.name}").read_bytes().decode(errors="replace")
        except FileNotFoundError:
            lines = ""
        pairs = (line[2:].partition("=") for line in lines.split("\n") if line.startswith("E:"))
        return defaultdict(str, {key: value for key, _, value in pairs})
