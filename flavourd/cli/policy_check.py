# SPDX-License-Identifier: LGPL-2.1-or-later
"""`flavourctl policy check`: every mistake in policy files, with neither flavourd nor root."""

from __future__ import annotations

from pathlib import Path

from flavourd.cli import here
from flavourd.cli.exits import Exit
from flavourd.cli.texts import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from flavourd.cli.client import Client
    from flavourd.cli.exits import Json
    from flavourd.cli.screen import Screen
    from flavourd.policy.load import Loaded
    from flavourd.policy.problem import Problem


def run(arguments: Namespace, client: Client, screen: Screen) -> int:
    here.stay(arguments, "policy check")
    loaded = here.policy([*map(Path, arguments.files)])
    if arguments.json != "off":
        screen.print_json([_as_json(problem) for problem in loaded.problems], arguments.json)
    else:
        screen.print(lines(screen, loaded))
    return Exit.OK if loaded.policy else Exit.NOT_DONE


def lines(screen: Screen, loaded: Loaded) -> Iterator[str]:
    """Each mistake with its place, and in the end how many there are."""
    for problem in loaded.problems:
        first, *more = problem.story().splitlines()
        paint = screen.red if problem.severity == "error" else screen.yellow
        yield from (paint(first), *more, "")
    read = [source for source in loaded.sources if not source.masked_by and not source.masks]
    files = counted(len(read), "file")
    errors = sum(problem.severity == "error" for problem in loaded.problems)
    warnings = len(loaded.problems) - errors
    mistakes = [counted(count, what) for count, what in ((errors, "error"), (warnings, "warning")) if count]
    if errors or not loaded.policy:
        yield f"{' and '.join(mistakes)}{f' in {files}' if read else ''}: flavourd would not take this policy"
    elif not read:
        yield f"no policy: there are no files in /{here.DROP_INS} and the other places"
    else:
        rules = counted(len(loaded.policy.rules), "rule")
        yield f"{rules} in {files}, {' and '.join(mistakes) or 'no mistakes'}"


def _as_json(problem: Problem) -> Json:
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "message": problem.message,
        "hint": problem.hint,
        "severity": str(problem.severity),
    }
