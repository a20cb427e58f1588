# SPDX-License-Identifier: LGPL-2.1-or-later
"""From YAML text to dataclasses, with every error at its place.

Works on the node tree of `yaml.compose`, not on loaded values: PyYAML would turn `0x10de` into 4318 and `no` into
False, and would take duplicate keys in silence. A value's type comes from the dataclass alone; a text is what stands
in the file.
"""

import difflib
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """One mistake in a file; line and column count from 1."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class DecodeError(Exception):
    """All problems of one file."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def decode(text: str, wanted: type[T], file: str, empty: T | None = None) -> T:
    """Decode one YAML document into the dataclass `wanted`; DecodeError lists everything that is wrong with it.

    empty: what a file says in which there is nothing but comments; None if that is wrong, too.
    """
    decoder = _Decoder(file)
    try:
        node = _Loader.compose_whole(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        decoder.problem(mark, " ".join(filter(None, (error.context, error.problem))))
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        # Characters that YAML does not allow, escapes that stand for none, brackets without end: these have no mark.
        decoder.problem(None, " ".join(str(error).split()))
    else:
        if node is None and empty is not None:
            return empty
        if node is None:
            decoder.problem(None, "the file is empty")
        else:
            value: T = decoder.decode(node, wanted)
            if not decoder.problems:
                return value
    raise DecodeError(decoder.problems)


class _Loader(yaml.SafeLoader):
    """Composes nodes and refuses aliases: nobody needs them here, and a few lines of them can stand for gigabytes."""

    @classmethod
    def compose_whole(cls, text: str) -> yaml.Node | None:
        loader = cls(text)
        try:
            return loader.get_single_node()
        finally:
            loader.dispose()

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not accepted here", event.start_mark)
        return super().compose_node(parent, index)


class _Decoder:
    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []

    def problem(self, mark: Any, message: str) -> Any:
        """Note it; returns None, the value of what cannot be decoded."""
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        self.problems.append(Problem(self.file, line, column, message))
        return None

    def decode(self, node: yaml.Node, wanted: Any) -> Any:
        """The value, or None after a problem was noted (the caller looks at `problems` in the end)."""
        origin = get_origin(wanted)
        if origin in (Union, types.UnionType):  # X | None: absence is told by leaving the key out
            (wanted,) = (arg for arg in get_args(wanted) if arg is not type(None))
            return self.decode(node, wanted)
        if is_dataclass(wanted):
            return self._dataclass(node, wanted)
        if origin is Mapping:
            return self._mapping_of(node, *get_args(wanted))
        if origin is tuple:
            if not isinstance(node, yaml.SequenceNode):
                return self.problem(node.start_mark, "a list is expected here")
            items = tuple(self.decode(item, get_args(wanted)[0]) for item in node.value)
            return None if None in items else items
        if issubclass(wanted, StrEnum):
            return self._word(node, wanted)
        return self._scalar(node, wanted)

    def _word(self, node: yaml.Node, wanted: type[StrEnum]) -> Any:
        """One of the words of an enum, quoted or not."""
        if isinstance(node, yaml.ScalarNode) and node.value in set(wanted):
            return wanted(node.value)
        hint = _meant(node.value, wanted) if isinstance(node, yaml.ScalarNode) else ""
        return self.problem(node.start_mark, f"one of {', '.join(wanted)} is expected here{hint}")

    def _scalar(self, node: yaml.Node, wanted: Any) -> Any:
        expected = {str: "a text", bool: "true or false", int: "a whole number"}[wanted]
        if isinstance(node, yaml.ScalarNode):
            text: str = node.value
            if wanted is str and (text or node.style) and node.tag != "tag:yaml.org,2002:null":
                return text
            if wanted is bool and not node.style and text in ("true", "false"):
                return text == "true"
            if wanted is int and not node.style and re.fullmatch(r"-?[0-9]{1,18}", text):
                return int(text)
        return self.problem(node.start_mark, f"{expected} is expected here")

    def _mapping_of(self, node: yaml.Node, keys: Any, values: Any) -> Any:
        """Keys are texts, or the words of an enum."""

        def type_of(name: str, key: yaml.Node) -> Any:
            return values if keys is str or name in set(keys) else self._unknown(name, key, keys)

        found = self._mapping(node, type_of)
        return None if found is None or None in found.values() else {keys(name): each for name, each in found.items()}

    def _unknown(self, name: str, key: yaml.Node, known: Iterable[str]) -> None:
        hint = _meant(name, known) or f"; known here: {', '.join(known)}"
        self.problem(key.start_mark, f"{name!r} is not known here{hint}")

    def _mapping(self, node: yaml.Node, type_of: Callable[[str, yaml.Node], Any]) -> dict[str, Any] | None:
        """Decode each entry to the type that `type_of` gives for its key; entries for which it gives None are left
        out.
        """
        if not isinstance(node, yaml.MappingNode):
            self.problem(node.start_mark, "a mapping (key: value) is expected here")
            return None
        result: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.problem(key.start_mark, "a key must be a plain text")
            elif key.value in result:
                self.problem(key.start_mark, f"{key.value!r} stands here a second time")
            elif wanted := type_of(key.value, key):
                result[key.value] = self.decode(value, wanted)
        return result

    def _dataclass(self, node: yaml.Node, wanted: Any) -> Any:
        hints = get_type_hints(wanted)

        def type_of(name: str, key: yaml.Node) -> Any:
            return hints[name] if name in hints else self._unknown(name, key, hints)

        values = self._mapping(node, type_of)
        if values is None:
            return None
        missing = [
            f.name
            for f in fields(wanted)
            if f.default is MISSING and f.default_factory is MISSING and f.name not in values
        ]
        for name in missing:
            self.problem(node.start_mark, f"{name!r} is missing")
        if missing or None in values.values():
            return None
        try:
            return wanted(**values)
        except ValueError as error:  # the dataclass has rules of its own
            return self.problem(node.start_mark, str(error))


def _meant(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {str(close[0])!r}?" if close else ""
