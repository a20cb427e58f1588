# SPDX-License-Identifier: LGPL-2.1-or-later
"""What may stand in a file, read from the annotations of dataclasses; decoder and JSON Schema both walk it."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, TypeAlias, Union, get_args, get_origin, get_type_hints

from flavourd.policy.kinds import Number, Text


@dataclass(frozen=True)
class Plain:
    """One text, whole number or truth value. kind: what a text or number must look like."""

    type: type[str] | type[int] | type[bool]
    kind: Text | Number | None = None


@dataclass(frozen=True)
class Word:
    """One word of an enum."""

    enum: type[StrEnum]


@dataclass(frozen=True)
class Several:
    """A list."""

    item: "Shape"


@dataclass(frozen=True)
class Table:
    """A mapping with any keys of one shape."""

    keys: Plain | Word
    values: "Shape"


@dataclass(frozen=True)
class Record:
    """A mapping with the keys of a dataclass."""

    type: type


@dataclass(frozen=True)
class Choice:
    """Any of these; the kind of what stands in the file tells which: a scalar, a list, a mapping."""

    scalar: Plain | Word | None = None
    several: Several | None = None
    mapping: Table | Record | None = None


Shape: TypeAlias = Plain | Word | Several | Table | Record | Choice


@dataclass(frozen=True)
class Entry:
    """One key of a record. name: the dataclass's word for it."""

    name: str
    shape: Shape
    required: bool


@cache
def shape_of(wanted: Any) -> Shape:
    """Of an annotation; TypeError if nothing in a file could tell what is meant."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is Annotated:
        return Plain(arguments[0], arguments[1])
    if origin in (Union, types.UnionType):  # X | None: absence is told by leaving the key out
        return _choice([shape_of(each) for each in arguments if each is not type(None)])
    if origin is tuple:
        return Several(shape_of(arguments[0]))
    if origin is Mapping:
        keys = shape_of(arguments[0])
        assert isinstance(keys, Plain | Word)
        return Table(keys, shape_of(arguments[1]))
    if is_dataclass(wanted):
        return Record(wanted)  # type: ignore[arg-type]  # mypy takes it for an instance
    if issubclass(wanted, StrEnum):
        return Word(wanted)
    if wanted not in (str, int, bool):
        raise TypeError(f"{wanted} cannot stand in a file")
    return Plain(wanted)


def _choice(shapes: list[Shape]) -> Shape:
    if len(shapes) == 1:
        return shapes[0]
    found: dict[str, Any] = {}
    for shape in shapes:
        kind = {Plain: "scalar", Word: "scalar", Several: "several"}.get(type(shape), "mapping")
        if found.setdefault(kind, shape) is not shape:
            raise TypeError(f"two shapes of one kind: {kind}")
    return Choice(**found)


@cache
def entries(record: type) -> Mapping[str, Entry]:
    """Key in the file -> what stands there."""
    hints = get_type_hints(record, include_extras=True)
    return {
        field.metadata.get("key", field.name): Entry(
            field.name, shape_of(hints[field.name]), field.default is MISSING and field.default_factory is MISSING
        )
        for field in fields(record)
    }
