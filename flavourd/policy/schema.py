# SPDX-License-Identifier: LGPL-2.1-or-later
"""JSON Schema of policy files, for editors and other programs; `python -m flavourd.policy.schema` prints it.

It says what the decoder says of single values, but for what YAML itself hides from a schema: quotes, places, and keys
that stand twice. What needs two values, or the host, is told by `flavourctl policy check` alone.
"""

import json
import sys
from typing import Any

from flavourd.policy.kinds import Number, Text
from flavourd.policy.language import PolicyFile
from flavourd.policy.shape import Choice, Plain, Record, Several, Shape, Table, Word, entries

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TYPES = {str: "string", bool: "boolean", int: "integer"}


def schema() -> dict[str, Any]:
    records: dict[str, Any] = {}
    _record(PolicyFile, records)
    head: dict[str, Any] = {"$schema": _DIALECT, "title": "Policy file of flavourd, /etc/flavourd/policy.d/*.yaml"}
    head |= records.pop(PolicyFile.__name__)
    return head | {"$defs": dict(sorted(records.items()))}


def schema_text() -> str:
    return json.dumps(schema(), indent=2) + "\n"


def _record(record: type, records: dict[str, Any]) -> None:
    if record.__name__ in records:
        return
    told = records[record.__name__] = {"description": " ".join((record.__doc__ or "").split()), "type": "object"}
    if (record.__doc__ or "").startswith(f"{record.__name__}("):  # made by dataclass
        del told["description"]
    told["properties"] = {key: _of(entry.shape, records) for key, entry in entries(record).items()}
    if required := [key for key, entry in entries(record).items() if entry.required]:
        told["required"] = required
    told["additionalProperties"] = False


def _of(shape: Shape, records: dict[str, Any]) -> dict[str, Any]:
    match shape:
        case Plain(type, kind):
            return {"type": _TYPES[type], **_kind(kind)}
        case Word(enum):
            return {"enum": [str(word) for word in enum]}
        case Several(item):
            return {"type": "array", "items": _of(item, records)}
        case Table(keys, values):
            return {"type": "object", "propertyNames": _of(keys, records), "additionalProperties": _of(values, records)}
        case Record(type):
            _record(type, records)
            return {"$ref": f"#/$defs/{type.__name__}"}
        case Choice(scalar, several, mapping):
            return {"anyOf": [_of(each, records) for each in (scalar, several, mapping) if each]}


def _kind(kind: Text | Number | None) -> dict[str, Any]:
    match kind:
        case Text(pattern, expected):
            return {"description": expected, "pattern": f"^(?:{pattern})$"}
        case Number(lowest, highest):
            return {"minimum": lowest, "maximum": highest}
    return {}


if __name__ == "__main__":
    sys.stdout.write(schema_text())
