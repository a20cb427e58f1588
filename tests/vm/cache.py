# SPDX-License-Identifier: LGPL-2.1-or-later
"""The cache of what the test bed builds: directories that are made once, whole or not at all, and never changed."""

import fcntl
import hashlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

Tell = Callable[[str], None]
"""Where progress is said to the person who waits."""


class BuildError(Exception):
    """A stage failed; the text ends with the tail of its log."""


@dataclass(frozen=True)
class Cached:
    """One built directory. `identity` is its alone: a rebuild after removal has the same key but another identity."""

    folder: Path
    identity: str


def root() -> Path:
    """Return the cache's directory, ${XDG_CACHE_HOME:-~/.cache}/flavourd."""
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flavourd"
    path.mkdir(parents=True, exist_ok=True)
    return path


def digest(texts: Iterable[str] = (), files: Iterable[Path] = ()) -> str:
    """Return a key made of texts and of files and trees (names, contents, permissions)."""
    total = hashlib.sha256()
    for text in texts:
        total.update(f"{len(text)}:{text}".encode())
    for top in files:
        for path in sorted(p for p in [top, *top.rglob("*")] if p.is_file()):
            data = path.read_bytes()
            total.update(f"{path.relative_to(top.parent)}:{path.stat().st_mode:o}:{len(data)}:".encode() + data)
    return total.hexdigest()[:16]


def built(name: str, key: str, build: Callable[[Path], None], tell: Tell, keep: int = 2) -> Cached:
    """Return the directory `<name>-<key>`, built now if it is not there.

    `build` fills a temporary sibling, which gets the name when it is whole. Of each name the `keep` last used stay.
    """
    folder = root() / f"{name}-{key}"
    with (root() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            tell(f"building {folder.name}")
            working = root() / f".{name}-{key}.building"
            shutil.rmtree(working, ignore_errors=True)
            working.mkdir()
            build(working)
            (working / "identity").write_text(secrets.token_hex(8))
            working.rename(folder)
        os.utime(folder)
        keys = "[0-9a-f]" * len(key)  # and not those of a name that begins with this one
        others = sorted(root().glob(f"{name}-{keys}"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in others[keep:]:
            shutil.rmtree(old, ignore_errors=True)
    return Cached(folder, (folder / "identity").read_text())


def logged(command: list[str], log: Path) -> None:
    """Run a command with its output in a log; raise BuildError with the log's tail when it fails."""
    with log.open("ab") as output:
        environment = {**os.environ, "INITRD": "No"}  # the disk's stage makes the only initrd that counts
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, check=False
        )
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
        raise BuildError(f"{command[0]} ended with {done.returncode}; the end of {log}:\n{tail}")
