# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rubbish that was a policy file once: it is refused or taken, at once and in little memory, and nothing else happens.

FLAVOURD_MUTATIONS=1000000 takes half an hour; FLAVOURD_SEED= repeats what was printed.
"""

import os
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path

from flavourd.device import DeviceId
from flavourd.flavour import Flavour, FlavourOnBus, Flavours, Universal
from flavourd.policy.early import early_rules
from flavourd.policy.load import check_texts
from flavourd.policy.match import Matcher
from flavourd.traits import Traits

_EXAMPLES = [
    path.read_text(encoding="utf-8") for path in sorted((Path(__file__).parents[2] / "config/policy.d").glob("*.yaml"))
]
_COUNT = int(os.environ.get("FLAVOURD_MUTATIONS", "5000"))
_SEED = int(os.environ.get("FLAVOURD_SEED") or time.time_ns() % 1_000_000_000)
_TOKENS = [
    *(
        "- ",
        "? ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        ",",
        "&a ",
        "*a ",
        "!",
        "!!python/object:x ",
        "|\n",
        ">-\n",
        "'",
        '"',
        "#",
        "\\",
    ),
    *("<<: ", "%YAML 1.1\n", "---\n", "...\n", "\t", "\r\n", "\0", "\u2028", "\x85", "\ufeff", "\udc80", "\U0001f600"),
    *("null", "~", "yes", "0x10", "1:30", "-1", "9" * 40, "1e400", ".nan", "2026-11-22", '""', "{}", "[]", "a: b: c"),
    *("rules:", "match:", "not: ", "all: [", "flavour: default", "vfs: 70000", 'vf: "7-3"', "guards: {table: off}"),
    "class: deadbeef",
    *("x" * 3000, " " * 3000, "[" * 300, "{a: " * 300, "- " * 300, '"\\x', '"\\U00110000"', "*" * 300),
]
_FLAVOURS = Flavours({"vfio": Flavour("", "vfio-dev", {"pci": FlavourOnBus(Universal("x", "x"))})})
_DEVICE = Traits(DeviceId("pci", "0000:01:00.0"), vendor="8086", device="10d3", class_code="020000")
_MOST_SECONDS = 1.0
_MOST_GROWTH = 64 << 10  # KiB


def test_whatever_a_policy_file_holds_is_refused_or_taken() -> None:
    print(f"FLAVOURD_SEED={_SEED} FLAVOURD_MUTATIONS={_COUNT}")
    rng = random.Random(_SEED)
    for text in _EXAMPLES:
        ask(text)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    slowest, taken = 0.0, 0
    for number in range(_COUNT):
        text = mutated(rng)
        since = time.process_time()
        try:
            taken += ask(text)
        except Exception as error:
            raise AssertionError(f"mutation {number} of seed {_SEED}: {text!r}") from error
        slowest = max(slowest, time.process_time() - since)
        assert slowest < _MOST_SECONDS, f"mutation {number} of seed {_SEED} took {slowest:.2f} s: {text!r}"
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(
        f"{_COUNT} inputs, {taken} of them taken; the slowest took {slowest * 1000:.1f} ms; memory grew by {growth} KiB"
    )
    assert growth < _MOST_GROWTH


def ask(text: str) -> bool:
    """Whether it was taken; what is told must be fit for a terminal."""
    loaded = check_texts([("x.yaml", text)], ["vfio"])
    assert (loaded.policy is None) == bool(loaded.errors)
    for problem in loaded.problems:
        assert str(problem).isprintable()
        assert all(line.isprintable() for line in problem.story().split("\n"))
        assert len(problem.story()) < 2000
        assert problem.line <= max(1, len(text.splitlines()))
    if loaded.policy is None:
        return False
    # What was taken must be fit for all that is made of it.
    Matcher(loaded.policy).rule(_DEVICE)
    early_rules(loaded.policy, _FLAVOURS)
    return True


def mutated(rng: random.Random) -> str:
    text = rng.choice(_EXAMPLES)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        text = rng.choice(_WAYS)(rng, text)
    return text[:100_000]


def _flip(rng: random.Random, text: str) -> str:
    changed = bytearray(text.encode(errors="surrogatepass"))
    for _ in range(rng.randint(1, 4)):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return changed.decode(errors="surrogateescape")


def _insert(rng: random.Random, text: str) -> str:
    place = rng.randint(0, len(text))
    return text[:place] + rng.choice(_TOKENS) + text[place:]


def _replace(rng: random.Random, text: str) -> str:
    words = text.split(" ")
    words[rng.randrange(len(words))] = rng.choice(_TOKENS)
    return " ".join(words)


def _swap(rng: random.Random, text: str) -> str:
    lines = text.split("\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return "\n".join(lines)


def _indent(rng: random.Random, text: str) -> str:
    lines = text.split("\n")
    number = rng.randrange(len(lines))
    lines[number] = rng.choice((" " + lines[number], lines[number][1:], "    " + lines[number]))
    return "\n".join(lines)


def _repeat(rng: random.Random, text: str) -> str:
    start = rng.randint(0, len(text))
    end = rng.randint(start, min(len(text), start + 200))
    return text[:end] + text[start:end] * rng.choice((1, 2, 30)) + text[end:]


def _cut(rng: random.Random, text: str) -> str:
    start = rng.randint(0, len(text))
    return rng.choice((text[:start], text[start:], text[:start] + text[start + rng.randint(1, 30) :]))


def _nest(rng: random.Random, text: str) -> str:
    """All of it below another key, or a value below many brackets."""
    if rng.random() < 0.5:
        return "rules:\n" + "\n".join(f"  {line}" for line in text.split("\n"))
    depth = rng.choice((2, 49, 51, 2000))
    place = rng.randint(0, len(text))
    return text[:place] + "[" * depth + "]" * depth + text[place:]


_WAYS: list[Callable[[random.Random, str], str]] = [
    _flip,
    _insert,
    _insert,
    _replace,
    _swap,
    _indent,
    _repeat,
    _cut,
    _nest,
]
