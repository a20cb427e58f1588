# SPDX-License-Identifier: LGPL-2.1-or-later
"""Let somebody edit a file with the editor that he likes."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess

from flavourd.cli.exits import Exit, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

_ANY = ("editor", "nano", "vi")


def edit(file: Path) -> None:
    """Returns when the editor has ended; Failure if there is none, or if it ended badly."""
    command = [*_editor(), str(file)]
    try:
        process = subprocess.Popen(command)
    except OSError as error:
        hint = "say in EDITOR which editor you want"
        raise Failure(Exit.NOT_DONE, f"{command[0]} cannot be run: {error.strerror}", hint) from error
    while True:
        try:
            status = process.wait()
            break
        except KeyboardInterrupt:  # that is the editor's, which has the terminal
            continue
    if status:
        raise Failure(Exit.NOT_DONE, f"nothing was saved: {command[0]} ended with {status}")


def _editor() -> list[str]:
    said = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    try:
        command = shlex.split(said or "")
    except ValueError as error:
        raise Failure(Exit.NOT_DONE, f"VISUAL or EDITOR cannot be understood: {said!r}: {error}") from error
    if command:
        return command
    found = next((name for name in _ANY if shutil.which(name)), None)
    if not found:
        raise Failure(Exit.NOT_DONE, f"there is no editor here: {', '.join(_ANY)}", "say in EDITOR which you want")
    return [found]
