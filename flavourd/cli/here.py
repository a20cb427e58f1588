# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the verbs share that look at the files of this host themselves, without flavourd."""

from __future__ import annotations

import sys
from pathlib import Path

from flavourd.cli.exits import Exit, Failure, of_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from flavourd.policy.load import Loaded

ROOT = Path("/")
DROP_INS = "etc/flavourd/policy.d"


def stay(arguments: Namespace, whole: str) -> None:
    """Failure if another host is meant. whole: the verb and its verb, `policy check`."""
    if arguments.host:
        hint = f"ssh {arguments.host} flavourctl {whole}"
        raise Failure(Exit.USAGE, f"{whole} is about files of this host, not of {arguments.host}", hint)


def policy(files: Sequence[Path] = (), draft: tuple[Path, str] | None = None) -> Loaded:
    """All of this host's policy, or what these files hold if there are any (`-` alone: standard input).

    draft: a file of this host, and what it is going to hold.
    """
    libraries()
    from flavourd.errors import FlavourError
    from flavourd.policy.flavours import read_flavours
    from flavourd.policy.load import check, check_texts, load

    try:
        names = read_flavours(ROOT).names
    except FlavourError as error:
        raise Failure(of_code(error.code), error.sentence, error.hint, error.code) from error
    if [*files] == [Path("-")]:
        # What is no UTF-8 is told as what YAML does not allow.
        text = sys.stdin.buffer.read().decode(errors="surrogateescape")
        return check_texts([("<stdin>", text)], names)
    return check(files, names) if files else load(ROOT, names, draft)


def libraries() -> None:
    """Let PyYAML be found: flavourctl starts without looking for where libraries stand (`python3 -S`)."""
    if sys.flags.no_site:
        import site

        site.main()
