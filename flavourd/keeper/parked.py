# SPDX-License-Identifier: LGPL-2.1-or-later
"""What waits for a driver that it does not get, or not now, must not be kept from its native one."""

import math
from collections.abc import Mapping

from flavourd.device import PARKED, DeviceId
from flavourd.flavour import DEFAULT
from flavourd.request import Origin, Request
from flavourd.traits import Seen
from flavourd.verdict import Verdict


class Parked:
    """Each device is asked for once, and again when that failed. Pure but for what it remembers of that."""

    def __init__(self) -> None:
        self._not_before: dict[DeviceId, float] = {}

    def let_go(self, verdicts: Mapping[DeviceId, Verdict], seen: Mapping[DeviceId, Seen], now: float) -> list[Request]:
        """Requests for the native drivers of those that are parked. verdicts: of devices that get no flavour now."""
        found = []
        for device, verdict in verdicts.items():
            if seen[device].override == PARKED and self._not_before.get(device, now) <= now:
                self._not_before[device] = math.inf
                rule = str(verdict.placed) if verdict.placed else None
                found.append(Request(device, DEFAULT, Origin.POLICY, rule=rule))
        return found

    def failed(self, device: DeviceId, again: float) -> None:
        """It may still be parked. again: when it may be asked for next."""
        self._not_before[device] = again

    def forget(self, device: DeviceId) -> None:
        self._not_before.pop(device, None)

    def begin_anew(self) -> None:
        self._not_before.clear()
