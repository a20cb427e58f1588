# SPDX-License-Identifier: LGPL-2.1-or-later
"""YAML to dataclasses: every mistake at its place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import pytest

from flavourd.policy.decode import DecodeError, decode


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


@pytest.mark.parametrize("written", ["0x10de", "no", "12", "1.5", "2026-01-01", "on", "1_000", "0o17"])
def test_a_text_is_what_stands_in_the_file(written: str) -> None:
    assert leaf(f"name: {written}").name == written


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


@pytest.mark.parametrize(
    ("line", "where", "message"),
    [
        ("name: [x]", "1:16", "a text is expected here"),
        ("name: {x: y}", "1:16", "a text is expected here"),
        ("name: null", "1:16", "a text is expected here"),
        ("name: ~", "1:16", "a text is expected here"),
        ("name: ", "1:15", "a text is expected here"),
        ("name: x, note: null", "1:25", "a text is expected here"),
        *((f"name: x, size: {v}", "1:25", "a whole number is expected here") for v in ("0x10", "1.5", "1_0", "+1")),
        *((f"name: x, size: {v}", "1:25", "a whole number is expected here") for v in ("'1'", "--1", "-", "9" * 19)),
        ("name: x, size: \N{ARABIC-INDIC DIGIT SIX}", "1:25", "a whole number is expected here"),
        *(
            (f"name: x, on: {v}", "1:23", "true or false is expected here")
            for v in ("yes", "on", "1", "True", "'true'")
        ),
        ("name: x, tags: y", "1:25", "a list is expected here"),
        ("name: x, tags: {y: z}", "1:25", "a list is expected here"),
        ("name: x, tags: [y, [z]]", "1:29", "a text is expected here"),
        ("name: forbidden", "1:9", "that name is forbidden"),
        ("name: x, name: y", "1:19", "'name' stands here a second time"),
        ("name: x, tagz: y", "1:19", "'tagz' is not known here; did you mean 'tags'?"),
        ("name: x, zzz: y", "1:19", "'zzz' is not known here; known here: name, size, on, note, tags, colour, colours"),
        *(
            (f"name: x, colour: {v}", "1:27", "one of green, off is expected here")
            for v in ("red", "''", "OFF", "null", "[green]", "{off: 1}")
        ),
        ("name: x, colour: gren", "1:27", "one of green, off is expected here; did you mean 'green'?"),
        ("name: x, colours: {gren: 1}", "1:29", "'gren' is not known here; did you mean 'green'?"),
        ("name: x, colours: {red: 1}", "1:29", "'red' is not known here; known here: green, off"),
        ("name: x, colours: {off: 1, off: 2}", "1:37", "'off' stands here a second time"),
        ("name: x, colours: {off: many}", "1:34", "a whole number is expected here"),
        ("name: x, colours: [off]", "1:28", "a mapping (key: value) is expected here"),
        ("size: 1", "1:9", "'name' is missing"),
        ("name: x, ? [a] : y", "1:21", "a key must be a plain text"),
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
        ("a: &x 1\nb: *x", "2:4: aliases (*name) are not accepted here"),
        ("leaves: {}\n---\nleaves: {}", "2:1: expected a single document in the stream but found another document"),
        ("leaves: [", "1:10: while parsing a flow node expected the node content, but found '<stream end>'"),
        (
            "leaves:\n\tone: 1",
            "2:1: while scanning for the next token found character '\\t' that cannot start any token",
        ),
    ],
)
def test_a_mistake_of_the_whole_is_told_at_its_place(text: str, problem: str) -> None:
    assert problems(text) == [f"f.yaml:{problem}"]


@pytest.mark.parametrize(
    "text",
    [
        "leaves: \0",  # a character that YAML does not allow
        'leaves: "\\UFFFFFFFF"',  # an escape that stands for no character
        'leaves: "\\U00110000"',
        "[" * 5000,  # deeper than the parser can go
        "%YAML 1." + "9" * 5000 + "\n--- {}",  # a number that Python will not read
    ],
)
def test_whatever_the_parser_stumbles_over_is_a_problem_and_no_traceback(text: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith("f.yaml:1:1: ")
    assert len(problem) > len("f.yaml:1:1: ")
    assert "\n" not in problem


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


def test_a_few_lines_of_aliases_cannot_stand_for_gigabytes() -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    assert problems(bomb) == ["f.yaml:2:10: aliases (*name) are not accepted here"]
