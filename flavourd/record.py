# SPDX-License-Identifier: LGPL-2.1-or-later
"""What flavourd remembers of a device that it has switched, and its form on disk."""

import json
from dataclasses import asdict, dataclass

from flavourd.device import Binding, DeviceId


@dataclass(frozen=True)
class Record:
    """original: the binding before flavourd first touched the device. override: what flavourd has written since.

    instance: of the device (see Device); other hardware that takes its address later has another one, and the record
    does not hold for it.

    interfaces: network interfaces that the device had then; people go on to call it by them.

    unfinished: a switch to `flavour` began and its end was not written down. since: ISO 8601, UTC.
    """

    device: DeviceId
    instance: int
    original: Binding
    flavour: str
    override: str | None = None
    unfinished: bool = False
    since: str = ""
    origin: str = ""
    interfaces: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """ValueError if the text is not what `to_json` writes."""
        try:
            values = json.loads(text)
            record = cls(
                **{
                    **values,
                    "device": DeviceId(**values["device"]),
                    "original": Binding(**values["original"]),
                    "interfaces": tuple(values.get("interfaces", ())),
                },
            )
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(str(error)) from error
        texts = (record.flavour, record.since, record.origin, record.device.bus, record.device.name, *record.interfaces)
        optional = (record.override, record.original.driver, record.original.module, record.original.override)
        if not all(isinstance(text, str) for text in texts) or not all(
            isinstance(text, str | None) for text in optional
        ):
            raise ValueError("a field is not a text")
        if not isinstance(record.instance, int) or not isinstance(record.unfinished, bool):
            raise ValueError("a field is of another type")
        return record
