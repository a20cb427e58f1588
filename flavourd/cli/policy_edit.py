# SPDX-License-Identifier: LGPL-2.1-or-later
"""`flavourctl policy edit`: change a policy file, which is saved only if the whole policy holds with it."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from flavourd.cli import here
from flavourd.cli.editor import edit
from flavourd.cli.exits import Exit, Failure
from flavourd.cli.policy_check import lines
from flavourd.cli.screen import Screen, talk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

    from flavourd.cli.client import Client

_NEW = """\
# {path}: which devices live in which flavour; see flavourd.policy(5).
# Of all rules in all files the first one that matches a device is for it.
#
# rules:
#   - match: {{address: "0000:65:00.0"}}
#     expect: {{vendor: "10de", device: "1eb8"}}
#     flavour: vfio

"""


def run(arguments: Namespace, client: Client, screen: Screen) -> int:
    here.stay(arguments, "policy edit")
    target = _target(arguments.name)
    there = _read(target) if target.exists() else None
    folder = Path(tempfile.mkdtemp(prefix="flavourctl-"))
    copy = folder / target.name
    begun = _lower(target) if there is None else there
    _write(copy, begun)
    try:
        text = _edited(copy, target, begun)
        if text is not None:
            _save(target, text, there, copy)
    except Failure as failure:
        if _read(copy) not in ("", begun):
            failure.hint = "\n".join(filter(None, (failure.hint, f"what you wrote is in {copy}")))
        else:
            shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)
    told = "nothing was changed" if text is None else f"{target} is saved; {_reload(client, target)}"
    if arguments.json != "off":
        screen.print_json({"path": str(target), "saved": text is not None, "message": told}, arguments.json)
    else:
        screen.print([told])
    return Exit.OK


def _target(name: str) -> Path:
    """Failure for a name that would not be read, and for what may not be written or is no plain file."""
    file = name if name.endswith(".yaml") else f"{name}.yaml"
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,100}", file):
        hint = f"a name like 50-nics, for a file of /{here.DROP_INS}"
        raise Failure(Exit.USAGE, f"{name!r} is no name for a policy file", hint)
    path = here.ROOT / here.DROP_INS / file
    if path.is_symlink():
        what = "masked" if path.readlink() == Path("/dev/null") else "not the file itself"
        raise Failure(
            Exit.NOT_DONE, f"{path} is {what}: a link to {path.readlink()}", f"rm {path}, or edit what is there"
        )
    if path.exists() and not path.is_file():
        raise Failure(Exit.NOT_DONE, f"{path} is no file")
    folder = next(folder for folder in path.parents if folder.exists())
    if not os.access(folder, os.W_OK):
        raise Failure(Exit.DENIED, f"you may not write to {folder}", "sudo flavourctl policy edit")
    return path


def _lower(target: Path) -> str:
    """What a new file begins with: the one of the same name that it is going to hide, or an explanation."""
    for place in ("run", "usr/local/lib", "usr/lib"):
        lower = here.ROOT / place / "flavourd/policy.d" / target.name
        if lower.is_file():
            return _read(lower)
    return _NEW.format(path=target)


def _edited(copy: Path, target: Path, begun: str) -> str | None:
    """The new text, which holds; None if it is the old one."""
    while True:
        edit(copy)
        text = _read(copy)
        if text == begun or not text.strip():
            return None
        loaded = here.policy(draft=(target, text))
        if loaded.policy:
            for problem in loaded.problems:  # warnings
                talk(problem.story())
            return text
        talk("\n".join(lines(Screen(sys.stderr), loaded)))
        if not _again():
            raise Failure(Exit.NOT_DONE, f"{target} was not saved: the policy would have mistakes", code="policy")


def _again() -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write("edit again? [Y/n] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    return bool(answer) and answer.strip().lower() in ("", "y", "yes")


def _save(target: Path, text: str, there: str | None, copy: Path) -> None:
    """Whole or not at all; Failure if somebody else has changed it meanwhile."""
    now = _read(target) if target.exists() else None
    if now != there:
        hint = f"diff {target} {copy}"
        raise Failure(Exit.NOT_DONE, f"{target} was not saved: somebody else has changed it meanwhile", hint)
    beside = target.with_name(f".{target.name}.new")
    try:
        for folder in reversed([folder for folder in target.parents if not folder.exists()]):
            folder.mkdir()
            folder.chmod(0o755)  # whatever the umask of who edits
        _write(beside, text)
        beside.chmod(0o644)
        beside.rename(target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise Failure(Exit.NOT_DONE, f"{target} cannot be written: {error.strerror}") from error


def _reload(client: Client, target: Path) -> str:
    try:
        client.call("Reload")
    except Failure as failure:
        if failure.exit is Exit.UNREACHABLE:
            return "flavourd does not run, and reads it when it starts"
        failure.sentence = f"{target} is saved, but flavourd did not take it: {failure.sentence}"
        raise
    return "flavourd has read it"


def _read(path: Path) -> str:
    """ "" if there is no such file, which may be what an editor leaves."""
    return path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
