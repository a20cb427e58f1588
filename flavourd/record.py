# SPDX-License-Identifier: LGPL-2.1-or-later
"""What flavourd remembers of a device that it switches, and its form on disk."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from flavourd.device import Binding, DeviceId, Sriov

_LONGEST = 1 << 20  # characters; none of ours comes near it


@dataclass(frozen=True)
class Record:
    """original: the binding before flavourd first touched the device. override: what flavourd has written since.

    instance: of the device (see Device); other hardware that takes its address later has another one, and the record
    does not hold for it.

    sriov: of a PF, before flavourd first touched it. interfaces: network interfaces that the device had then; people go
    on to call it by them.

    unfinished: a switch to `flavour` began and its end was not written down. intent: modules that it would try, or the
    driver that it would go back to. steps: what it was about to do, in words, the last one last. since: ISO 8601, UTC.
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
    sriov: Sriov | None = None
    intent: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()

    def to_text(self) -> str:
        """One line, to which lines of `changed` and `step` may be appended."""
        return changed(**asdict(self))

    @classmethod
    def from_text(cls, text: str) -> "Record":
        """ValueError if the text is not what `to_text`, `changed` and `step` write. A last line that was not written to
        its end does not count.
        """
        if len(text) > _LONGEST:
            raise ValueError("it is too long")
        try:
            values, *later = (json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n"))
            for change in later:
                step = change.pop("step", None)
                values |= change
                values["steps"] = [*values["steps"], *([step] if step is not None else [])]
            return cls._of(values)
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error

    @classmethod
    def _of(cls, values: dict[str, Any]) -> "Record":
        lists_of_texts = ("interfaces", "intent", "steps")
        if not all(isinstance(values[name], list) for name in lists_of_texts):  # a text would fall into letters
            raise ValueError("a field is not a list")
        record = cls(
            **{
                **values,
                "device": DeviceId(**values["device"]),
                "original": Binding(**values["original"]),
                "sriov": Sriov(**values["sriov"]) if values["sriov"] is not None else None,
                **{name: tuple(values[name]) for name in lists_of_texts},
            },
        )
        texts = (record.flavour, record.since, record.origin, record.device.bus, record.device.name)
        lists = (*record.interfaces, *record.intent, *record.steps)
        optional = (record.override, record.original.driver, record.original.module, record.original.override)
        if not all(isinstance(text, str) for text in (*texts, *lists)) or not all(
            isinstance(text, str | None) for text in optional
        ):
            raise ValueError("a field is not a text")
        numbers, flags = [record.instance], [record.unfinished]
        if record.sriov:
            numbers, flags = [*numbers, record.sriov.vfs, record.sriov.total], [*flags, record.sriov.autoprobe]
        if not all(type(number) is int for number in numbers) or not all(isinstance(flag, bool) for flag in flags):
            raise ValueError("a field is of another type")
        return record


def changed(**fields: Any) -> str:
    """A line that says which fields have other values from here on."""
    return json.dumps(fields) + "\n"


def step(text: str) -> str:
    """A line that adds a step."""
    return changed(step=text)
