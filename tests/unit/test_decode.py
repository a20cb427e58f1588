# SPDX-License-Identifier: LGPL-2.1-or-later
"""YAML to dataclasses: every mistake at its place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

import pytest

from flavourd.policy.decode import DecodeError, decode, read
from flavourd.policy.kinds import Number, Text, key
from flavourd.policy.shape import shape_of


class Colour(StrEnum):
    GREEN = "green"
    OFF = "off"


@dataclass(frozen=True)
class Leaf:
    name: str
    size: int = 0
    on: bool = False
    note: str | None = None
    tags: tuple[str, ...] = ()
    colour: Colour | None = None
    colours: Mapping[Colour, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert None not in (*self.tags, *self.colours.values()), "rules are asked about what was decoded"
        if self.name == "forbidden":
            raise ValueError("that name is forbidden")


@dataclass(frozen=True)
class Root:
    leaves: Mapping[str, Leaf] = field(default_factory=dict)
    chosen: Leaf | None = None


def problems(text: str) -> list[str]:
    with pytest.raises(DecodeError) as caught:
        decode(text, Root, "f.yaml")
    return [str(problem) for problem in caught.value.problems]


def leaf(line: str) -> Leaf:
    chosen = decode(f"chosen: {{{line}}}", Root, "f.yaml").chosen
    assert chosen is not None
    return chosen


def test_a_whole_document_becomes_dataclasses() -> None:
    text = """leaves:
  one: {name: first, size: 12, on: true, note: a text, tags: [x, y]}
  two:
    name: second
"""
    one, two = Leaf("first", 12, True, "a text", ("x", "y")), Leaf("second")
    assert decode(text, Root, "f.yaml") == Root({"one": one, "two": two})


@pytest.mark.parametrize("written", ["a b", "0000:65:00.0", "0o17", "8086-x", "10de", "vfio_pci*", "a:b"])
def test_a_text_is_what_stands_in_the_file(written: str) -> None:
    assert leaf(f"name: {written}").name == written


@pytest.mark.parametrize(
    ("written", "taken_for"),
    [
        *((text, "a number") for text in ("8086", "0x10de", "-1", "1.5", "1_000", "0b1", "010", ".inf", "1.e+3")),
        # In base 60: YAML 1.1 has that.
        *((text, "a number") for text in ("0000:01:00.0", "1:30", "190:20:30")),
        *((text, "true or false") for text in ("no", "on", "Yes", "OFF", "true")),
        *((text, "a date") for text in ("2026-01-01", "2001-12-14 21:59:43.10 -5")),
        *((text, "no text") for text in ("=", "<<")),
    ],
)
def test_a_text_that_others_would_read_as_something_else_goes_in_quotes(written: str, taken_for: str) -> None:
    (problem,) = problems(f"chosen:\n  name: {written}")
    told = f"{written} without quotes is {taken_for} in YAML"
    assert problem == f'f.yaml:2:9: {told}; write it in quotes: "{written}"'
    assert leaf(f'name: "{written}"').name == leaf(f"name: '{written}'").name == written


@pytest.mark.parametrize("written", ['""', "''", "'null'", '"~"'])
def test_what_is_quoted_is_a_text_even_if_empty_or_null(written: str) -> None:
    assert leaf(f"name: {written}").name == written[1:-1]


@pytest.mark.parametrize(("written", "value"), [("0", 0), ("-5", -5), ("123456789012345678", 123456789012345678)])
def test_a_whole_number_is_decimal(written: str, value: int) -> None:
    assert leaf(f"name: x, size: {written}").size == value


@pytest.mark.parametrize(("written", "word"), [("off", Colour.OFF), ("'off'", Colour.OFF), ("green", Colour.GREEN)])
def test_a_word_of_an_enum_becomes_its_member(written: str, word: Colour) -> None:
    """Also one that YAML takes for false."""
    found = leaf(f"name: x, colour: {written}, colours: {{{written}: 1}}")
    assert found.colour is word
    assert [*found.colours.items()] == [(word, 1)]
    assert all(isinstance(key, Colour) for key in found.colours)


_OUT = "; leave it out if there is nothing to say"


@pytest.mark.parametrize(
    ("line", "where", "message"),
    [
        ("name: [x]", "1:16", "a text is expected here"),
        ("name: {x: y}", "1:16", "a text is expected here"),
        *((f"name: {v}", "1:16", f"a text is expected here{_OUT}") for v in ("null", "~")),
        ("name: ", "1:16", f"a text is expected here{_OUT}"),
        ("name: x, note: null", "1:25", f"a text is expected here{_OUT}"),
        *((f"name: x, size: {v}", "1:25", "a whole number is expected here") for v in ("0x10", "1.5", "1_0", "+1")),
        *((f"name: x, size: {v}", "1:25", "a whole number is expected here") for v in ("'1'", "--1", "-", "1:30")),
        ("name: x, size: \N{ARABIC-INDIC DIGIT SIX}", "1:25", "a whole number is expected here"),
        *(
            (f"name: x, size: {v}", "1:25", "a whole number is expected here; without leading zeros, decimal")
            for v in ("010", "-01", "00")
        ),
        ("name: x, size: " + "9" * 19, "1:25", f"'{'9' * 19}' is out of range: a whole number is expected here"),
        ("name: x, size: " + "9" * 5000, "1:25", f"'{'9' * 59}…' is out of range: a whole number is expected here"),
        *(
            (f"name: x, on: {v}", "1:23", "true or false is expected here; write true")
            for v in ("yes", "on", "True", "'true'")
        ),
        ("name: x, on: No", "1:23", "true or false is expected here; write false"),
        ("name: x, on: 1", "1:23", "true or false is expected here"),
        ("name: x, tags: y", "1:25", "a list is expected here"),
        ("name: x, tags: {y: z}", "1:25", "a list is expected here"),
        ("name: x, tags: [y, [z]]", "1:29", "a text is expected here"),
        ("name: forbidden", "1:9", "that name is forbidden"),
        ("name: x, name: y", "1:19", "'name' stands here a second time"),
        ("name: x, tagz: y", "1:19", "'tagz' is not known here; did you mean 'tags'?"),
        ("name: x, zzz: y", "1:19", "'zzz' is not known here; known here: name, size, on, note, tags, colour, colours"),
        *(
            (f"name: x, colour: {v}", "1:27", "one of green, off is expected here")
            for v in ("red", "''", "[green]", "{off: 1}")
        ),
        ("name: x, colour: OFF", "1:27", "one of green, off is expected here; did you mean 'off'?"),
        ("name: x, colour: null", "1:27", f"one of green, off is expected here{_OUT}"),
        ("name: x, colour: gren", "1:27", "one of green, off is expected here; did you mean 'green'?"),
        ("name: x, colours: {gren: 1}", "1:29", "'gren' is not known here; did you mean 'green'?"),
        ("name: x, colours: {red: 1}", "1:29", "'red' is not known here; known here: green, off"),
        ("name: x, colours: {off: 1, off: 2}", "1:37", "'off' stands here a second time"),
        ("name: x, colours: {off: many}", "1:34", "a whole number is expected here"),
        ("name: x, colours: [off]", "1:28", "a mapping (key: value) is expected here"),
        ("size: 1", "1:9", "'name' is missing"),
        ("name: x, ? [a] : y", "1:21", "a key must be a plain text; a pattern goes in quotes"),
        (
            "name: x, <<: {on: x}",
            "1:19",
            "'<<' is not known here; merge keys are not accepted; write the keys themselves",
        ),
    ],
)
def test_a_mistake_is_told_at_its_place(line: str, where: str, message: str) -> None:
    assert problems(f"chosen: {{{line}}}") == [f"f.yaml:{where}: {message}"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1:1: the file is empty"),
        ("# only a comment\n", "1:1: the file is empty"),
        ("just words", "1:1: a mapping (key: value) is expected here"),
        ("- a list", "1:1: a mapping (key: value) is expected here"),
        ("\n\nleaves: 3", "3:9: a mapping (key: value) is expected here"),
        ("leaves:\n  one: two", "2:8: a mapping (key: value) is expected here"),
        ("leaves:\n  one: {name: x}\n  one: {name: y}", "3:3: 'one' stands here a second time"),
        (
            "leaves: {}\n---\nleaves: {}",
            "2:1: a second document begins here; one document is read of each file: take --- away",
        ),
        (
            "leaves: [",
            "1:10: did not find expected node content (while parsing a flow node); is a bracket not closed?",
        ),
        (
            "leaves:\n\tone: 1",
            "2:1: found character that cannot start any token (while scanning for the next token); "
            "YAML indents with spaces",
        ),
        (
            "leaves: @alias",
            "1:9: found character that cannot start any token (while scanning for the next token); "
            "a text that begins with @ goes in quotes",
        ),
        (
            "leaves: *",
            "1:10: did not find expected alphabetic or numeric character (while scanning an alias); "
            'a pattern that begins with * goes in quotes: "*"',
        ),
        (
            "leaves: {}\n  chosen: {}",
            "2:3: did not find expected key (while parsing a block mapping that begins in line 1); "
            "keys of one mapping stand in one column",
        ),
        ("leaves: 'x", "1:11: found unexpected end of stream (while scanning a quoted scalar); is a quote not closed?"),
        ("%YAML 1.1\n--- {}", "1:1: directives (lines that begin with %) are not accepted here"),
        ("# x\n%TAG ! x\n--- {}", "2:1: directives (lines that begin with %) are not accepted here"),
        ("leaves: {}\n...\n%TAG ! x\n---\n", "3:1: directives (lines that begin with %) are not accepted here"),
        (
            "leaves:\n  a\0b: {}",
            '2:4: character U+0000 is not allowed in YAML; in "double quotes" it is written \\xNN or \\uNNNN',
        ),
        (
            "\udcff",
            '1:1: character U+DCFF is not allowed in YAML; in "double quotes" it is written \\xNN or \\uNNNN',
        ),
        ("leaves: " + "[" * 60, "1:58: this is nested more than 50 deep"),
        ("- " * 60, "1:101: this is nested more than 50 deep"),
        ("{" * 60, "1:51: this is nested more than 50 deep"),
        ("# " + "x" * (1 << 20), "1:1: the file is longer than 1 MiB; several files are read as one"),
        (
            "leaves: [" + "1," * 100_000,
            "1:200004: there are more than 100,000 values in this file; several files are read as one",
        ),
    ],
)
def test_a_mistake_of_the_whole_is_told_at_its_place(text: str, problem: str) -> None:
    assert problems(text) == [f"f.yaml:{problem}"]


@pytest.mark.parametrize(
    "text",
    [
        'leaves: "\\UFFFFFFFF"',  # an escape that stands for no character
        'leaves: "\\U00110000"',
        "[" * 500_000,  # deeper than any recursion in C
        "leaves: [}",
        "? ? ? x",
        "{",
    ],
)
def test_whatever_the_parser_stumbles_over_is_a_problem_and_no_traceback(text: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith("f.yaml:1:")
    assert problem.isprintable()


def test_all_mistakes_are_told_at_once() -> None:
    text = """leaves:
  one:
    tagz: x
    size: big
  two: {name: forbidden}
  one: {name: again}
chosen:
  name: [x]
more: 1
"""
    assert problems(text) == [
        "f.yaml:3:5: 'tagz' is not known here; did you mean 'tags'?",
        "f.yaml:4:11: a whole number is expected here",
        "f.yaml:3:5: 'name' is missing",
        "f.yaml:5:8: that name is forbidden",
        "f.yaml:6:3: 'one' stands here a second time",
        "f.yaml:8:9: a text is expected here",
        "f.yaml:9:1: 'more' is not known here; known here: leaves, chosen",
    ]


def test_the_error_itself_reads_as_its_problems() -> None:
    with pytest.raises(DecodeError, match=r"^f\.yaml:1:1: a mapping .*$"):
        decode("words", Root, "f.yaml")


_NO_TAGS = "tags (!name) are not accepted here; a text that begins with ! goes in quotes"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("name: *x", ['1:16: aliases (*name) are not accepted here; a pattern goes in quotes: "*x"']),
        ("name: !!python/object:os.system x", [f"1:16: {_NO_TAGS}"]),
        ("name: !!str 1", [f"1:16: {_NO_TAGS}"]),
        ("name: x, size: !!int 5", [f"1:25: {_NO_TAGS}"]),
        ("name: x, !!str size: 5", [f"1:19: {_NO_TAGS}"]),
        ("name: x, tags: !x [y]", [f"1:25: {_NO_TAGS}"]),
        (
            "name: *x, tags: [! y], sizee: 1",
            [
                '1:16: aliases (*name) are not accepted here; a pattern goes in quotes: "*x"',
                f"1:27: {_NO_TAGS}",
                "1:33: 'sizee' is not known here; did you mean 'size'?",
            ],
        ),
    ],
)
def test_what_makes_yaml_more_than_it_looks_is_refused_at_its_place(line: str, expected: list[str]) -> None:
    """And what it stands for is not complained of a second time."""
    assert problems(f"chosen: {{{line}}}") == [f"f.yaml:{problem}" for problem in expected]


def test_an_anchor_that_nothing_refers_to_changes_nothing() -> None:
    assert leaf("name: &x y") == Leaf("y")


def test_a_few_lines_of_aliases_cannot_stand_for_gigabytes() -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    told = problems(bomb)
    assert told[0] == 'f.yaml:2:10: aliases (*name) are not accepted here; a pattern goes in quotes: "*a0"'
    assert len(told) == 51


def test_nobody_reads_a_million_problems() -> None:
    *told, last = problems("\n".join(f"k{n}: x" for n in range(10_000)))
    assert len(told) == 50
    assert last == "f.yaml:51:1: there is more wrong from here on; mend the rest first"


# --- how a problem looks


@pytest.mark.parametrize(
    ("text", "line", "caret"),
    [
        ("chosen:\n  namee: x\n  name: y\n", "    2 |   namee: x", "      |   ^"),
        # What stands before the caret may be wide, or have no width of its own.
        ("leaves: {\u65e5\u672ce\u0301: 1}", "    1 | leaves: {\u65e5\u672ce\u0301: 1}", "      |                 ^"),
        # Behind the end, where libyaml sees a line more.
        ("leaves: [\n\n", "    2 |", "      | ^"),
        ("leaves: 3", "    1 | leaves: 3", "      |         ^"),
        ("leaves:\n\tx: [", "    2 |  x: [", "      | ^"),
        ("leaves: 3 # \u202e", "    1 | leaves: 3 # \ufffd", "      |         ^"),
        (
            "leaves: {" + "x" * 500 + ": [}",
            "    1 | \u2026" + "x" * 72 + ": [}",
            "      | " + " " * 76 + "^",
        ),
        ("leaves: [" + "x" * 500 + "]", "    1 | leaves: [" + "x" * 91 + "\u2026", "      |         ^"),
    ],
)
def test_a_story_shows_the_line_and_where_in_it(text: str, line: str, caret: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(text, Root, "f.yaml")
    problem = caught.value.problems[0]
    first, *shown = problem.story().splitlines()
    assert first == problem.sentence
    assert shown[:2] == [line, caret]
    assert shown[2:] == ([f"hint: {problem.hint}"] if problem.hint else [])


def test_no_problem_says_what_could_move_a_terminal() -> None:
    for text in ('{"\\e[2J\\u202e\\n": 1}', "a\u2028b: [", "chosen: {name: x, size: \u2066}", "leaves: *\u2066a"):
        with pytest.raises(DecodeError) as caught:
            decode(text, Root, "f\x1b.yaml")
        for problem in caught.value.problems:
            assert str(problem).isprintable()
            assert all(line.isprintable() for line in problem.story().splitlines())


def test_a_reading_knows_where_each_value_stands_and_which_were_understood() -> None:
    reading = read("leaves:\n  one: {name: x, size: big}\n  two:\n    name: y\n", Root, "f.yaml")
    assert reading.value is None
    assert reading.places["leaves", "one", "size"] == (2, 24)
    assert reading.places["leaves", "two"] == (4, 5)
    assert reading.parts["leaves", "two"] == Leaf("y")
    assert reading.parts["leaves", "one", "name"] == "x"
    assert reading.parts.keys().isdisjoint({(), ("leaves",), ("leaves", "one"), ("leaves", "one", "size")})


# --- what the types themselves say

Even = Annotated[str, Text("(..)*", "a text of even length")]


@dataclass(frozen=True)
class Tree:
    word: Even | tuple[Even, ...] | None = None
    few: Annotated[int, Number(1, 5)] | None = None
    named: Even | Leaf | None = None
    below: "tuple[Tree, ...] | None" = None
    not_: "Tree | None" = field(default=None, metadata=key("not-this"))
    table: Mapping[Even, int] | None = None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("word: ab", Tree("ab")),
        ("word: [ab, cdef]", Tree(("ab", "cdef"))),
        ("word: [ab, ]", Tree(("ab",))),
        ("word: []", Tree(())),
        ("few: 5", Tree(few=5)),
        ("named: ab", Tree(named="ab")),
        ("named: {name: x}", Tree(named=Leaf("x"))),
        ("not-this: {word: ab}", Tree(not_=Tree("ab"))),
        ("below: [{}, {below: [{few: 1}]}]", Tree(below=(Tree(), Tree(below=(Tree(few=1),))))),
        ("table: {ab: 1, cd: 2}", Tree(table={"ab": 1, "cd": 2})),
    ],
)
def test_the_kind_of_what_stands_there_tells_what_is_meant(text: str, value: Tree) -> None:
    assert decode(text, Tree, "f.yaml") == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("word: abc", "1:7: 'abc' is not a text of even length"),
        ("word: [ab, c]", "1:12: 'c' is not a text of even length"),
        ('word: "ab\\n"', "1:7: 'ab\\n' is not a text of even length"),
        ("word: {}", "1:7: a text or a list is expected here"),
        ("word:", "1:6: a text or a list is expected here; leave it out if there is nothing to say"),
        ("word: [[ab]]", "1:8: a text is expected here"),
        (
            "word: [ab, 12]",
            '1:12: 12 without quotes is a number in YAML; write it in quotes: "12"',
        ),
        ("word:\n-\n", "2:2: a text is expected here; leave it out if there is nothing to say"),
        ("few: 6", "1:6: 6 is out of range: a whole number from 1 to 5 is expected here"),
        ("few: " + "1" * 30, f"1:6: '{'1' * 30}' is out of range: a whole number from 1 to 5 is expected here"),
        ("few: x", "1:6: a whole number from 1 to 5 is expected here"),
        ("named: [ab]", "1:8: a text or a mapping (key: value) is expected here"),
        ("named: {namex: x, name: y}", "1:9: 'namex' is not known here; did you mean 'name'?"),
        ("not_: {}", "1:1: 'not_' is not known here; known here: word, few, named, below, not-this, table"),
        ("below: [{below: [{few: 9}]}]", "1:24: 9 is out of range: a whole number from 1 to 5 is expected here"),
        ("table: {abc: 1}", "1:9: 'abc' is not a text of even length"),
        ("table: {12: 1}", '1:9: 12 without quotes is a number in YAML; write it in quotes: "12"'),
        ("table: {ab: x}", "1:13: a whole number is expected here"),
    ],
)
def test_a_mistake_against_a_type_is_told_at_its_place(text: str, problem: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(text, Tree, "f.yaml")
    assert list(map(str, caught.value.problems)) == [f"f.yaml:{problem}"]


def test_a_type_that_no_file_can_tell_is_a_mistake_of_ours() -> None:
    for wanted in (Even | int, float, tuple[str, ...] | tuple[int, ...]):
        with pytest.raises(TypeError):
            shape_of(wanted)
