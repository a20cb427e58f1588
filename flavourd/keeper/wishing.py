# SPDX-License-Identifier: LGPL-2.1-or-later
"""Explicit requests that came true are remembered, and forgotten with the device."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from flavourd import logs
from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.outcome import Outcome
from flavourd.request import Origin
from flavourd.wishes import Wish, Wishes

# What a daemon that died had begun counts too: it has kept no other word for who asked.
_EXPLICIT = {Origin.ATTRIBUTE, Origin.UEVENT, Origin.MODALIAS, Origin.RULE, Origin.VARLINK, Origin.RECOVERY}


class Wishing:
    def __init__(self, root: Path, instance: Callable[[DeviceId], int]) -> None:
        self._wishes, self._instance = Wishes(root), instance

    def fulfilled(self, outcome: Outcome) -> bool:
        """Whether that is somebody's wish, which is remembered then."""
        request = outcome.request
        if request.origin not in _EXPLICIT:
            return False
        since = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            self._wishes.save(Wish(request.device, request.instance, outcome.flavour, since, request.origin))
        except OSError as error:
            sentence = f"that {request.device} was asked for explicitly could not be written down: {error}"
            hint = "make room in /run, then ask again: until then the policy holds for it"
            logs.tell_trouble(FlavourError(Code.HOST, sentence, hint), logs.WARNING)
        return True

    def drop(self, device: DeviceId) -> None:
        self._wishes.drop(device)

    def forget_gone(self, devices: Iterable[DeviceId] | None = None) -> None:
        """Those of these devices, or of all, that do not stand there any more: what came after them is not meant, and
        while there is a wish, udev parks nothing at its address.
        """
        for device in self._wishes.devices() if devices is None else devices:
            instance = self._instance(device)
            if not instance or self._wishes.wish(device, instance) is None:
                self._wishes.drop(device)
