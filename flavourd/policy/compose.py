# SPDX-License-Identifier: LGPL-2.1-or-later
"""From YAML text to nodes, of a YAML without what can surprise: no aliases, tags, directives, or second document.

libyaml parses (six times as fast as PyYAML's own parser); nodes are put together here, for PyYAML's binding would do
that by recursion in C, and a megabyte of brackets would crash the process.
"""

import re
from collections.abc import Callable
from typing import Any, NoReturn

import yaml
from yaml._yaml import CParser
from yaml.resolver import Resolver

from flavourd.flavour import clip

LONGEST = 1 << 20  # characters
_DEEPEST = 50
_MOST = 100_000  # values
_DIRECTIVE = re.compile(r"(?:\A\ufeff?|[\n\r\x85\u2028\u2029])(%)")
_UNPRINTABLE = yaml.reader.Reader.NON_PRINTABLE
# Of a node that was refused already: nobody needs to hear more about it.
REFUSED = "refused"
STRING = "tag:yaml.org,2002:str"
NULL = "tag:yaml.org,2002:null"
MERGE = "tag:yaml.org,2002:merge"

_ADVICE = {
    "while scanning an alias": 'a pattern that begins with * goes in quotes: "*"',
    "mapping values are not allowed": "a text with ': ' in it goes in quotes; keys of one mapping stand in one column",
    "could not find expected ':'": "is a colon missing, or the indentation wrong?",
    "did not find expected key": "keys of one mapping stand in one column",
    "did not find expected '-' indicator": "items of one list stand in one column",
    "found unexpected end of stream": "is a quote not closed?",
    "did not find expected ',' or": "is a comma missing, or a bracket not closed?",
    "did not find expected node content": "is a bracket not closed?",
    "found a tab character": "YAML indents with spaces",
    "found unknown escape character": "in \"double quotes\" a backslash is written twice; in 'single quotes' once",
    "block sequence entries are not allowed": "a list begins in a line of its own",
}

Tell = Callable[[Any, str, str], None]  # libyaml's mark (line and column from 0), message, hint


class Unreadable(Exception):
    """It ends the reading; line and column count from 0."""

    def __init__(self, line: int, column: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.line, self.column, self.message, self.hint = line, column, message, hint


def compose(text: str, tell: Tell) -> yaml.Node | None:
    """The root node; None if there is nothing but comments. `tell` hears what is refused; Unreadable for the rest."""
    if len(text) > LONGEST:
        raise Unreadable(0, 0, "the file is longer than 1 MiB", "several files are read as one")
    if found := _UNPRINTABLE.search(text):
        message = f"character U+{ord(found[0]):04X} is not allowed in YAML"
        raise _at(text, found.start(), message, 'in "double quotes" it is written \\xNN or \\uNNNN')
    if found := _DIRECTIVE.search(text):
        raise _at(text, found.start(1), "directives (lines that begin with %) are not accepted here")
    parser = CParser(text)
    try:
        return _Composer(parser, tell).document()
    except yaml.MarkedYAMLError as error:
        raise _told(text, error) from error
    except (yaml.YAMLError, ValueError) as error:  # without a mark: nobody knows of any
        raise Unreadable(0, 0, " ".join(str(error).split())) from error
    finally:
        parser.dispose()


class _Composer:
    def __init__(self, parser: Any, tell: Tell) -> None:
        self._next = parser.get_event
        self._tell = tell
        self._count = 0
        self._resolve: Callable[..., str] = Resolver().resolve

    def document(self) -> yaml.Node | None:
        self._next()  # of the stream
        if isinstance(self._next(), yaml.StreamEndEvent):
            return None
        node = self._node(self._next(), 1)
        self._next()  # end of the document
        if not isinstance(event := self._next(), yaml.StreamEndEvent):
            _stop(event, "a second document begins here", "one document is read of each file: take --- away")
        return node

    def _node(self, event: Any, depth: int) -> yaml.Node:
        start = event.start_mark
        self._count += 1
        if self._count > _MOST:
            _stop(event, f"there are more than {_MOST:,} values in this file", "several files are read as one")
        if depth > _DEEPEST:
            _stop(event, f"this is nested more than {_DEEPEST} deep")
        node: yaml.Node
        if isinstance(event, yaml.ScalarEvent):
            # What is quoted is a text; what is not may be something else to other readers of YAML.
            tag = STRING if event.style else self._resolve(yaml.ScalarNode, event.value, (True, False))
            node = yaml.ScalarNode(tag, event.value, start, style=event.style)
        elif isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(each := self._next(), yaml.SequenceEndEvent):
                items.append(self._node(each, depth + 1))
            node = yaml.SequenceNode("", items, start)
        elif isinstance(event, yaml.MappingStartEvent):
            pairs = []
            while not isinstance(each := self._next(), yaml.MappingEndEvent):
                pairs.append((self._node(each, depth + 1), self._node(self._next(), depth + 1)))
            node = yaml.MappingNode("", pairs, start)
        else:
            hint = f'a pattern goes in quotes: "*{clip(str(event.anchor))}"'
            self._tell(start, "aliases (*name) are not accepted here", hint)
            return yaml.ScalarNode(REFUSED, "", start)
        if event.tag is not None:
            self._tell(start, "tags (!name) are not accepted here", "a text that begins with ! goes in quotes")
            node.tag = REFUSED
        return node


def _stop(event: Any, message: str, hint: str = "") -> NoReturn:
    raise Unreadable(event.start_mark.line, event.start_mark.column, message, hint)


def _at(text: str, index: int, message: str, hint: str = "") -> Unreadable:
    before = f"{text[:index]}.".splitlines()
    return Unreadable(len(before) - 1, len(before[-1]) - 1, message, hint)


def _told(text: str, error: yaml.MarkedYAMLError) -> Unreadable:
    """libyaml's own words, and what is usually behind them."""
    problem, context = error.problem or "it cannot be read", error.context or ""
    since = error.context_mark.line if error.context_mark else None
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    if context:
        problem += f" ({context}{f' that begins in line {since + 1}' if since is not None and since != line else ''})"
    lines = text.splitlines()
    stumbled = lines[line][column : column + 1] if line < len(lines) else ""
    if "cannot start any token" in problem:
        hint = "YAML indents with spaces" if stumbled == "\t" else f"a text that begins with {stumbled} goes in quotes"
    else:
        hint = next((advice for words, advice in _ADVICE.items() if words in problem), "")
    return Unreadable(line, column, problem, hint)
