# SPDX-License-Identifier: LGPL-2.1-or-later
"""Switch devices to the other flavour again and again, all of them by one Varlink call.

usage: switching CALLS ADDRESS...
"""

import sys

from .asking import ask
from .device import Device


def main() -> None:
    calls = int(sys.argv[1])
    devices = [Device(address, "", "vfio-pci") for address in sys.argv[2:]]
    for _ in range(calls):
        there = devices[0].driver != devices[0].flavoured
        ask("Set", devices=[device.address for device in devices], flavour="vfio" if there else "default")
        for device in devices:
            if (device.driver == device.flavoured) != there:
                sys.exit(f"{device.address} has the driver {device.driver}")


main()
