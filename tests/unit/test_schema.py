# SPDX-License-Identifier: LGPL-2.1-or-later
"""The JSON Schema says of a policy file what the decoder says of it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flavourd.policy.decode import DecodeError, decode
from flavourd.policy.kinds import Number, Text
from flavourd.policy.language import PolicyFile
from flavourd.policy.schema import schema, schema_text
from flavourd.policy.shape import Choice, Plain, Record, Several, Shape, Table, Word, entries, shape_of

_ROOT = Path(__file__).parents[2]


def _whole(_: Any, pattern: str, value: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    """JSON Schema's patterns are those of ECMA 262, where `$` is the very end; Python's may stand before a newline."""
    if isinstance(value, str) and not re.search(pattern.replace(")$", r")\Z"), value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


_VALIDATOR = jsonschema.validators.extend(  # type: ignore[no-untyped-call]  # types-jsonschema leaves it out
    jsonschema.Draft202012Validator, {"pattern": _whole}
)(schema())


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def in_yaml(value: Any) -> str:
    text: str = yaml.dump(value, Dumper=_Dumper)
    return text


def test_the_file_that_is_shipped_is_up_to_date() -> None:
    file = _ROOT / "config/policy.schema.json"
    assert file.read_text(encoding="utf-8") == schema_text(), f"python -m flavourd.policy.schema > {file}"


def test_it_is_a_schema_and_can_be_printed() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    printed = subprocess.run(
        [sys.executable, "-m", "flavourd.policy.schema"], cwd=_ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(printed) == schema()


@pytest.mark.parametrize("file", sorted((_ROOT / "config/policy.d").glob("*.yaml")), ids=lambda file: file.stem)
def test_an_example_is_valid(file: Path) -> None:
    _VALIDATOR.validate(yaml.safe_load(file.read_text(encoding="utf-8")))


# --- both say the same

_ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.sampled_from([1.5, -0.25, 1e300])  # a number like 1.0 is an integer to JSON Schema, and none to us
    | st.text(max_size=6)
    | st.sampled_from(["", "8086", "@alias", "off", "enforce", "ethernet", "0-3", "8086\n", "vfio\n", "0x", "*"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def values(shape: Shape, depth: int = 3) -> st.SearchStrategy[Any]:
    """What may stand in a file, as YAML loads it."""
    match shape:
        case Plain(type, kind):
            return _plain(type, kind)
        case Word(enum):
            return st.sampled_from([str(word) for word in enum])
        case Several(item):
            return st.lists(values(item, depth - 1), max_size=3)
        case Table(keys, inner):
            return st.dictionaries(values(keys), values(inner, depth - 1), max_size=3)
        case Record(type):
            return _record(type, depth)
        case Choice(scalar, several, mapping):
            return st.one_of(*(values(each, depth) for each in (scalar, several, mapping) if each))


def _plain(type: type, kind: Text | Number | None) -> st.SearchStrategy[Any]:
    match kind:
        case Text(pattern):
            short = re.sub(r"\{1,[0-9]{3}\}", "{1,9}", pattern)  # what is long takes long
            return st.from_regex(short, fullmatch=True)
        case Number(lowest, highest):
            return st.integers(lowest, highest)
    return st.booleans() if type is bool else st.text(max_size=9) if type is str else st.integers(-(10**17), 10**17)


def _record(type: type, depth: int) -> st.SearchStrategy[Any]:
    known: Mapping[str, Any] = entries(type)
    required = {key: values(entry.shape, depth - 1) for key, entry in known.items() if entry.required}
    # A key that leads back to its own record ends somewhere.
    optional = {
        key: values(entry.shape, depth - 1)
        for key, entry in known.items()
        if not entry.required and (depth > 0 or not isinstance(entry.shape, Several | Record))
    }
    return st.fixed_dictionaries(required, optional=optional)


_VALID = values(shape_of(PolicyFile), 5)


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A valid one with something else in one place, or a key more or less."""
    value = draw(_VALID)
    places = list(_places(value))
    container, key = draw(st.sampled_from(places)) if places else (None, None)
    if container is None:
        return draw(_ANYTHING)
    match draw(st.sampled_from(["replace", "add", "take", "take"])):
        case "replace":
            container[key] = draw(_ANYTHING)
        case "add" if isinstance(container, dict):
            container[draw(st.text(max_size=5) | st.sampled_from(["match", "vfs", "not", "class_", "vendor"]))] = draw(
                _ANYTHING
            )
        case "add":
            container.append(draw(_ANYTHING))
        case _:
            del container[key]
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def taken(text: str) -> bool:
    try:
        decode(text, PolicyFile, "f")
    except DecodeError:
        return False
    return True


_FEW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@_FEW
@given(_VALID)
def test_what_is_valid_is_taken(value: Any) -> None:
    text = in_yaml(value)
    assert yaml.safe_load(text) == value
    _VALIDATOR.validate(value)
    decode(text, PolicyFile, "f")


@_FEW
@given(mutated())
def test_what_is_changed_is_taken_by_both_or_by_none(value: Any) -> None:
    text = in_yaml(value)
    assert _VALIDATOR.is_valid(yaml.safe_load(text)) == taken(text), text


def test_both_ways_are_walked() -> None:
    """Or the tests above would prove little."""
    seen = []

    @_FEW
    @given(mutated())
    def look(value: Any) -> None:
        seen.append(_VALIDATOR.is_valid(value))

    look()
    assert min(seen.count(True), seen.count(False)) > len(seen) / 10
