# SPDX-License-Identifier: LGPL-2.1-or-later
"""Read a file only if it is a plain one, and nobody but root could have written it."""

import errno
import os
import stat
from pathlib import Path

from flavourd.policy.compose import LONGEST
from flavourd.policy.problem import Problem

_NULL = os.makedev(1, 3)  # /dev/null


def plain_text(file: Path, problems: list[Problem], *, trusted: bool) -> str | None:
    """ "" if it masks; None if the problem is told."""
    status = file.stat()
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL:
        return ""
    told = _no_plain_file(file, status)
    if not told:
        # Nothing else is opened: to open a device may already do something.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        with open(file, "rb", opener=lambda path, _: os.open(path, flags)) as stream:
            status = os.fstat(stream.fileno())
            told = _no_plain_file(file, status) or (None if trusted else distrusted(file, status) or _way(file))
            content = b"" if told else stream.read(LONGEST + 1)
        if len(content) > LONGEST:
            told = of_whole(file, "it is longer than 1 MiB", "several files are read as one")
    if told:
        problems.append(told)
        return None
    return content.decode()


def _no_plain_file(path: Path, status: os.stat_result) -> Problem | None:
    if stat.S_ISREG(status.st_mode):
        return None
    kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no plain file"
    return of_whole(path, f"it is {kind}", "a policy file is a plain file, or a link to one or to /dev/null")


def _way(file: Path) -> Problem | None:
    """Who may exchange what a link leads to may say what stands there."""
    if not file.is_symlink():
        return None
    for folder in file.resolve().parents:
        status = folder.stat()
        if told := distrusted(folder, status, sticky=True):
            return of_whole(file, f"it is a link into {folder}: {told.message}", told.hint)
    return None


def distrusted(path: Path, status: os.stat_result, *, sticky: bool = False) -> Problem | None:
    """Who may change the policy may give devices away: that is root alone. sticky: a directory from which nobody can
    remove what is not his will do.
    """
    if status.st_uid not in (0, os.geteuid()):
        message = f"it belongs to user {status.st_uid}, and only root may say what becomes of devices"
        return of_whole(path, message, f"chown root {path}")
    if sticky and status.st_mode & stat.S_ISVTX:
        return None
    if status.st_mode & stat.S_IWOTH:
        return of_whole(path, f"everybody may write to it ({stat.filemode(status.st_mode)})", f"chmod o-w {path}")
    if status.st_mode & stat.S_IWGRP:  # or somebody whom an access control list names
        message = f"group {status.st_gid} may write to it ({stat.filemode(status.st_mode)})"
        return of_whole(path, message, f"chmod g-w {path}")
    return None


def of_whole(path: Path, message: str, hint: str = "") -> Problem:
    return Problem(str(path), 0, 0, message, hint)


def reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        line = error.object[: error.start].count(b"\n") + 1
        return f"byte {error.start} (line {line}) is not UTF-8"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def advice(file: Path, error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):
        return "save it as UTF-8"
    if error.errno == errno.ENOENT and file.is_symlink():
        return f"it is a link to {file.readlink()}, which is not there"
    return ""
