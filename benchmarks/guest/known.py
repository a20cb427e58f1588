# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make VFs of an NVMe controller, and have flavourd look at each.

usage: known PF COUNT

Prints their addresses.
"""

import sys

from .asking import ask
from .device import settle
from .vfs import make


def main() -> None:
    devices = make(sys.argv[1], int(sys.argv[2]))
    settle()
    told = {device["id"] for device in ask("List")["devices"]}
    if missing := [device.address for device in devices if f"pci/{device.address}" not in told]:
        sys.exit(f"flavourd does not know of {missing}")
    print("\n".join(device.address for device in devices))


main()
