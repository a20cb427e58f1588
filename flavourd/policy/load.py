# SPDX-License-Identifier: LGPL-2.1-or-later
"""Find the policy files of a host, as systemd finds drop-ins, and read all of them into one policy, or say why not."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flavourd.errors import Code, FlavourError
from flavourd.policy.decode import read
from flavourd.policy.files import PLACES
from flavourd.policy.language import PlacedRule, Policy, PolicyFile
from flavourd.policy.problem import Problem, Severity, shown
from flavourd.policy.reading import Reading
from flavourd.policy.sense import judge
from flavourd.policy.trust import advice, distrusted, of_whole, plain_text, reason

FOLDER = "policy.d"
_TOLD = 8  # problems in one sentence


@dataclass(frozen=True)
class Source:
    """A file that was found. text: None if it was not read: it is hidden, masks others, or there is a problem.

    masked_by: the file of the same name in a place that comes before. masks: it is empty or a link to /dev/null, and
    only there to hide others.
    """

    path: str
    text: str | None = None
    masked_by: str | None = None
    masks: bool = False


@dataclass(frozen=True)
class Loaded:
    """policy: None if any of the problems is an error. sources: in the order in which they hold; those that are masked
    come right after what masks them.
    """

    policy: Policy | None
    problems: tuple[Problem, ...] = ()
    sources: tuple[Source, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.severity is Severity.ERROR)


def read_policy(root: Path, flavours: Collection[str]) -> Policy:
    """The policy of this host; FlavourError(POLICY) tells all that is wrong with it."""
    loaded = load(root, flavours)
    if loaded.policy is None:
        told = [str(problem) for problem in loaded.errors]
        if len(told) > _TOLD:
            told[_TOLD:] = [f"and {len(told) - _TOLD} more"]
        raise FlavourError(Code.POLICY, " | ".join(told), "flavourctl policy check shows each; then flavourctl reload")
    return loaded.policy


def load(root: Path, flavours: Collection[str], draft: tuple[Path, str] | None = None) -> Loaded:
    """What the policy folders hold. flavours: the names that there are.

    draft: a file and what it is going to hold, to be read in place of what stands there now.
    """
    problems: list[Problem] = []
    found: dict[str, list[Path]] = {}
    for place in PLACES:
        for file in _listed(root / place / FOLDER, problems, draft[0] if draft else None):
            found.setdefault(file.name, []).append(file)
    sources = []
    for _, (first, *hidden) in sorted(found.items()):
        source = Source(str(first), draft[1]) if draft and draft[0] == first else _source(first, problems)
        sources += [source, *(Source(str(file), masked_by=str(first)) for file in hidden)]
    return _loaded(sources, flavours, problems)


def check(files: Iterable[Path], flavours: Collection[str]) -> Loaded:
    """These files alone, in this order, whoever they belong to."""
    problems: list[Problem] = []
    sources = [_source(file, problems, trusted=True) for file in files]
    return _loaded(sources, flavours, problems)


def check_texts(texts: Iterable[tuple[str, str]], flavours: Collection[str]) -> Loaded:
    """As `check`, for pairs of a name and a text."""
    return _loaded([Source(name, text) for name, text in texts], flavours, [])


def _loaded(sources: Sequence[Source], flavours: Collection[str], problems: list[Problem]) -> Loaded:
    readings = [read(each.text, PolicyFile, each.path, PolicyFile()) for each in sources if each.text is not None]
    for reading in readings:
        problems += reading.problems
    problems += judge(readings, flavours)
    order = {source.path: number for number, source in enumerate(sources)}
    problems.sort(key=lambda problem: (order.get(problem.file, -1), problem.line, problem.column))
    broken = any(problem.severity is Severity.ERROR for problem in problems)
    return Loaded(None if broken else _policy(readings), tuple(problems), tuple(sources))


def _policy(readings: Sequence[Reading[PolicyFile]]) -> Policy:
    rules = [
        PlacedRule(0, rule, reading.file, reading.places["rules", index][0])
        for reading in readings
        for index, rule in enumerate(reading.value.rules if reading.value else ())
    ]
    numbered = tuple(replace(rule, number=number) for number, rule in enumerate(rules))
    return Policy(numbered, tuple(reading.file for reading in readings))


# --- files


def _listed(folder: Path, problems: list[Problem], draft: Path | None) -> Iterator[Path]:
    """Policy files of one place. None at all if others than root may put some there."""
    try:
        for trusted in (folder.parent, folder):
            if told := distrusted(trusted, trusted.stat()):
                problems.append(told)
                return
        names = {entry.name for entry in folder.iterdir()}
    except FileNotFoundError:
        names = set()
    except OSError as error:
        problems.append(of_whole(folder, f"it cannot be looked into: {reason(error)}"))
        return
    if draft and draft.parent == folder:
        names.add(draft.name)
    for name in sorted(name for name in names if not name.startswith(".")):
        if not name.isprintable():
            problems.append(of_whole(folder, f"a file's name is not printable: {shown(name)}", "rename it"))
        elif name.endswith(".yaml"):
            yield folder / name
        elif name.endswith(".yml"):
            told = of_whole(folder / name, "it is not read, for its name does not end in .yaml", "rename it")
            problems.append(replace(told, severity=Severity.WARNING))


def _source(file: Path, problems: list[Problem], *, trusted: bool = False) -> Source:
    """trusted: whoever it belongs to."""
    try:
        text = plain_text(file, problems, trusted=trusted)
    except (OSError, UnicodeError) as error:
        problems.append(of_whole(file, f"it cannot be read: {reason(error)}", advice(file, error)))
        text = None
    if text == "" and not trusted:
        return Source(str(file), masks=True)
    return Source(str(file), text)
