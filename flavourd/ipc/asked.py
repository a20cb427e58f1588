# SPDX-License-Identifier: LGPL-2.1-or-later
"""From what a caller has written to devices and requests; FlavourError for what nobody can have meant."""

from collections.abc import Iterable
from uuid import uuid4

from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.flavour import clip
from flavourd.ipc.call import CALL
from flavourd.request import Origin, Request

_LONGEST_WORD = 500  # as by a uevent; a modalias fits
_LONGEST_ASKER = 200
_NAMES = "devices are named BUS/NAME, pci/0000:65:00.0; of a PCI device the address will do"


def device(text: str) -> DeviceId:
    try:
        return DeviceId.parse(text)
    except ValueError as error:
        raise FlavourError(Code.BAD_NAME, f"{clip(text)!r} is no device name", _NAMES) from error


def devices(texts: Iterable[str]) -> list[DeviceId]:
    """Each once, in their order; at least one, for nothing done is no success."""
    if found := list(dict.fromkeys(map(device, texts))):
        return found
    raise FlavourError(Code.BAD_NAME, "no device was named", _NAMES)


def no_device(id_: DeviceId) -> FlavourError:
    return FlavourError(Code.NO_DEVICE, f"there is no device {id_}", "flavourctl list has those that there are")


def requests(
    ids: Iterable[DeviceId],
    flavour: str,
    candidates: list[str] | None,
    force: list[str] | None,
    behalf: str | None = None,
) -> list[Request]:
    """One for each device, by who is calling now, or by whom he asks for: behalf."""
    if behalf is not None and not (0 < len(behalf) <= _LONGEST_ASKER and behalf.isprintable()):
        hint = f"say who asked in 1 to {_LONGEST_ASKER} printable characters, `uid 1000, pid 4242`"
        raise FlavourError(Code.BAD_NAME, f"{clip(behalf)!r} names nobody", hint)
    if len(flavour) > _LONGEST_WORD or not flavour.isprintable():
        hint = "flavourctl status has those that there are"
        raise FlavourError(Code.UNKNOWN_FLAVOUR, f"{clip(flavour)!r} is no flavour's name", hint)
    everyone = frozenset(ids)
    return [
        Request(
            id_,
            flavour,
            Origin.VARLINK if behalf is None else Origin.ATTRIBUTE,
            uuid=str(uuid4()),
            candidates=tuple(candidates or ()),
            force=frozenset(force or ()),
            beside=everyone - {id_},
            asker=str(CALL.get().peer) if behalf is None else behalf,
        )
        for id_ in ids
    ]
