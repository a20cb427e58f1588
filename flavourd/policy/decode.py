# SPDX-License-Identifier: LGPL-2.1-or-later
"""From YAML text to dataclasses, with every error at its place.

Works on the tree of nodes, not on loaded values: PyYAML would turn `0x10de` into 4318 and `no` into False, and would
take duplicate keys in silence. A value's type comes from the dataclass alone; a text is what stands in the file.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import yaml

from flavourd.flavour import clip
from flavourd.policy.compose import MERGE, NULL, REFUSED, STRING, Unreadable, compose
from flavourd.policy.kinds import Number, Text
from flavourd.policy.problem import Problem, meant, shown
from flavourd.policy.reading import Path, Reading
from flavourd.policy.shape import Choice, Plain, Record, Several, Shape, Table, Word, entries, shape_of

T = TypeVar("T")

MOST = 50  # problems of one file; nobody reads more, and a file of rubbish has a million
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_EXPECTED = {str: "a text", bool: "true or false", int: "a whole number"}
# What others would take a text for that is not in quotes, by the tag that YAML gives it.
_TAKEN_FOR = {"int": "a number", "float": "a number", "bool": "true or false", "timestamp": "a date"}
_TRUTHS = {**dict.fromkeys(("yes", "on", "true"), "true"), **dict.fromkeys(("no", "off", "false"), "false")}


class DecodeError(Exception):
    """All problems of one file."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def decode(text: str, wanted: type[T], file: str, empty: T | None = None) -> T:
    """Decode one YAML document into the dataclass `wanted`; DecodeError lists everything that is wrong with it.

    empty: what a file says in which there is nothing but comments; None if that is wrong, too.
    """
    reading = read(text, wanted, file, empty)
    if reading.value is None:
        raise DecodeError(reading.problems)
    return reading.value


def read(text: str, wanted: type[T], file: str, empty: T | None = None) -> Reading[T]:
    """As `decode`, for who wants to look at a file's values and their places, even if there are problems."""
    reading: Reading[T] = Reading(file, text)
    decoder, whole = _Decoder(reading), shape_of(wanted)  # type: ignore[arg-type]  # mypy: "type[T]" cannot be hashed
    try:
        node = compose(text, decoder.note)
        if node is not None:
            reading.value = decoder.decode(node, whole, ())
        elif empty is not None:
            reading.value = empty
        else:
            decoder.note(None, "the file is empty")
    except Unreadable as error:
        reading.problems.append(reading.problem((error.line + 1, error.column + 1), error.message, error.hint))
    except _Enough:
        pass
    if reading.problems:
        reading.value = None
    return reading


class _Enough(Exception):
    """Of problems."""


class _Decoder:
    def __init__(self, reading: Reading[Any]) -> None:
        self._reading = reading

    def note(self, mark: Any, message: str, hint: str = "") -> Any:
        """Returns None, the value of what cannot be decoded."""
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problems = self._reading.problems
        if len(problems) == MOST:
            problems.append(self._reading.problem(place, "there is more wrong from here on", "mend the rest first"))
            raise _Enough
        problems.append(self._reading.problem(place, message, hint))

    def decode(self, node: yaml.Node, shape: Shape, path: Path) -> Any:
        """The value, or None after a problem was noted (the caller looks at the problems in the end)."""
        mark = node.start_mark
        self._reading.places[path] = (mark.line + 1, mark.column + 1)
        if node.tag == REFUSED:
            return None
        value = self._value(node, shape, path)
        if value is not None:
            self._reading.parts[path] = value
        return value

    def _value(self, node: yaml.Node, shape: Shape, path: Path) -> Any:
        match shape, node:
            case Choice(scalar=Plain() | Word() as chosen), yaml.ScalarNode() if node.tag != NULL:
                return self._value(node, chosen, path)
            case Choice(several=Several() as chosen), yaml.SequenceNode():
                return self._value(node, chosen, path)
            case Choice(mapping=Table() | Record() as chosen), yaml.MappingNode():
                return self._value(node, chosen, path)
            case Word(enum), yaml.ScalarNode() if node.value in set(enum):  # quoted or not
                return enum(node.value)
            case Plain(), yaml.ScalarNode():
                return self._scalar(node, shape)
            case Several(item), yaml.SequenceNode():
                items = tuple(self.decode(each, item, (*path, index)) for index, each in enumerate(node.value))
                return None if any(each is None for each in items) else items
            case Table(), yaml.MappingNode():
                return self._table(node, shape, path)
            case Record(), yaml.MappingNode():
                return self._record(node, shape.type, path)
        return self._other(node, shape)

    def _other(self, node: yaml.Node, shape: Shape) -> Any:
        """It is nothing of what may stand here."""
        hint = ""
        if isinstance(node, yaml.ScalarNode):
            if node.tag == NULL and not node.style:
                hint = "leave it out if there is nothing to say"
            elif isinstance(shape, Word):
                hint = meant(node.value, shape.enum)
            elif isinstance(shape, Plain) and shape.type is bool and node.value.lower() in _TRUTHS:
                hint = f"write {_TRUTHS[node.value.lower()]}"
        return self.note(node.start_mark, f"{_expected(shape)} is expected here", hint)

    def _scalar(self, node: yaml.ScalarNode, shape: Plain) -> Any:
        text: str = node.value
        if shape.type is bool and not node.style and text in ("true", "false"):
            return text == "true"
        if shape.type is int and not node.style and re.fullmatch(r"-?[0-9]+", text):
            return self._number(node, shape)
        if shape.type is not str or node.tag == NULL:
            return self._other(node, shape)
        if not self._is_text(node):
            return None
        if isinstance(shape.kind, Text) and not re.fullmatch(shape.kind.pattern, text):
            return self.note(node.start_mark, f"{shown(text)} is not {shape.kind.expected}")
        return text

    def _number(self, node: yaml.ScalarNode, shape: Plain) -> int | None:
        text: str = node.value
        if re.fullmatch(r"-?0[0-9]+", text):
            self.note(node.start_mark, f"{_expected(shape)} is expected here", "without leading zeros, decimal")
        elif not _NUMBER.fullmatch(text):
            self.note(node.start_mark, f"{shown(text)} is out of range: {_expected(shape)} is expected here")
        elif isinstance(shape.kind, Number) and not shape.kind.lowest <= int(text) <= shape.kind.highest:
            self.note(node.start_mark, f"{text} is out of range: {_expected(shape)} is expected here")
        else:
            return int(text)
        return None

    def _is_text(self, node: yaml.ScalarNode) -> bool:
        if node.tag == STRING:
            return True
        taken_for = _TAKEN_FOR.get(node.tag.rpartition(":")[2], "no text")
        hint = f'write it in quotes: "{clip(node.value)}"'
        self.note(node.start_mark, f"{clip(node.value)} without quotes is {taken_for} in YAML", hint)
        return False

    def _table(self, node: yaml.MappingNode, shape: Table, path: Path) -> Any:
        keys = shape.keys

        def shape_of_key(key: yaml.ScalarNode) -> Shape | None:
            if isinstance(keys, Word):
                return shape.values if key.value in set(keys.enum) else self._unknown(key, keys.enum)
            return None if self._scalar(key, keys) is None else shape.values

        found = self._mapping(node, shape_of_key, path)
        if found is None:
            return None
        return {keys.enum(name): each for name, each in found.items()} if isinstance(keys, Word) else found

    def _record(self, node: yaml.MappingNode, wanted: type, path: Path) -> Any:
        known = entries(wanted)

        def shape_of_key(key: yaml.ScalarNode) -> Shape | None:
            return known[key.value].shape if key.value in known else self._unknown(key, known)

        found = self._mapping(node, shape_of_key, path)
        for key, entry in known.items():
            if entry.required and (*path, key) not in self._reading.places:
                found = self.note(node.start_mark, f"{key!r} is missing")
        if found is None:
            return None
        try:
            return wanted(**{known[key].name: value for key, value in found.items()})
        except ValueError as error:  # the dataclass has rules of its own
            return self.note(node.start_mark, str(error))

    def _unknown(self, key: yaml.ScalarNode, known: Iterable[str]) -> Any:
        names = list(known)
        hint = meant(key.value, names) or f"known here: {', '.join(names)}"
        if key.tag == MERGE:
            hint = "merge keys are not accepted; write the keys themselves"
        return self.note(key.start_mark, f"{shown(key.value)} is not known here", hint)

    def _mapping(
        self, node: yaml.MappingNode, shape_of_key: Callable[[yaml.ScalarNode], Shape | None], path: Path
    ) -> Mapping[str, Any] | None:
        """Each entry decoded to the shape of its key; None if any of it is wrong."""
        result: dict[str, Any] = {}
        whole = True
        for key, value in node.value:
            shape = None
            if not isinstance(key, yaml.ScalarNode):
                self.note(key.start_mark, "a key must be a plain text", "a pattern goes in quotes")
            elif key.value in result:
                self.note(key.start_mark, f"{shown(key.value)} stands here a second time")
            elif key.tag != REFUSED:
                shape = shape_of_key(key)
            if shape is None:
                whole = False
            else:
                result[key.value] = self.decode(value, shape, (*path, key.value))
        return result if whole and None not in result.values() else None


def _expected(shape: Shape) -> str:
    match shape:
        case Word(enum):
            return f"one of {', '.join(enum)}"
        case Plain(kind=Number(lowest, highest)):
            return f"a whole number from {lowest} to {highest}"
        case Plain(type):
            return _EXPECTED[type]
        case Several():
            return "a list"
        case Choice(scalar, several, mapping):
            return " or ".join(_expected(each) for each in (scalar, several, mapping) if each)
    return "a mapping (key: value)"
