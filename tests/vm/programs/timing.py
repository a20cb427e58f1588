# SPDX-License-Identifier: LGPL-2.1-or-later
"""Switch devices (PCI addresses) to vfio and back, one after the other, and print as JSON how many seconds it took."""

import json
import sys
import time

from .call import ask


def switch(device: str, flavour: str) -> float:
    began = time.monotonic()
    reply = ask("Set", 60, devices=[device], flavour=flavour)
    assert reply, "the daemon did not answer"
    assert [outcome["kind"] for outcome in reply["outcomes"]] == ["switched"], reply
    return time.monotonic() - began


print(json.dumps([switch(device, flavour) for device in sys.argv[1:] for flavour in ("vfio", "default")]))
