# SPDX-License-Identifier: LGPL-2.1-or-later
"""The only reader of the kernel's module tables and the only one who loads modules.

The tables are read once and kept until one of their files changes. modprobe.d is read by kmod itself (`modprobe
--showconfig`), so that its rules of precedence, its kernel arguments and modules.softdep hold here as they do there.
"""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from flavourd.module_index import ModuleIndex, Tables, module_index

# modprobe.d(5)
_CONFIG_DIRECTORIES = (
    "etc/modprobe.d",
    "run/modprobe.d",
    "usr/local/lib/modprobe.d",
    "usr/lib/modprobe.d",
    "lib/modprobe.d",
)
_INDEX_FILES = ("modules.alias", "modules.builtin.modinfo", "modules.builtin", "modules.dep", "modules.softdep")
_END_OF_CONFIG = "# End of configuration files"


class Kmod:
    def __init__(self, root: Path = Path("/"), release: str | None = None) -> None:
        self._root = root
        self._modules = root / "lib/modules" / (release or os.uname().release)
        self._kept: tuple[object, ModuleIndex] | None = None

    def index(self, prefixes: frozenset[str], universals: frozenset[str]) -> ModuleIndex:
        """The index for these alias prefixes and universal modules; read anew only if a file has changed since the
        last call.
        """
        stamp = (prefixes, universals, self._stamp())
        if self._kept is None or self._kept[0] != stamp:
            self._kept = (stamp, self._read(prefixes, universals))
        return self._kept[1]

    def load(self, module: str, *, blacklist: bool = True) -> str | None:
        """Load a module (or the modules of an alias). None, or what modprobe said against it.

        modprobe ends with 0 for a blacklisted module too: whoever calls looks into /sys/module afterwards.
        """
        done = self._modprobe(*(["-b"] if blacklist else []), "--", module)
        if done.returncode == 0:
            return None
        return done.stderr.strip().replace("\n", " ") or f"modprobe ended with {done.returncode} and said nothing"

    # ---

    def _modprobe(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["modprobe", *self._options(), *arguments]
        try:
            return subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
            )
        except OSError as error:
            return subprocess.CompletedProcess(command, 127, "", f"modprobe could not be run: {error}")

    def _options(self) -> list[str]:
        if self._root == Path("/"):
            return []
        configs = [option for place in _CONFIG_DIRECTORIES for option in ("-C", str(self._root / place))]
        return ["-d", str(self._root), "-S", self._modules.name, *configs]

    def _stamp(self) -> tuple[object, ...]:
        stamps: list[object] = [_file_stamp(f"{self._modules}/{name}") for name in _INDEX_FILES]
        seen = set()
        for place in _CONFIG_DIRECTORIES:
            directory = f"{self._root / place}"
            stamp = _file_stamp(directory)
            if stamp is None or stamp in seen:  # /lib is /usr/lib most often
                continue
            seen.add(stamp)
            stamps.append((place, stamp))
            with suppress(OSError):
                stamps += ((name, _file_stamp(f"{directory}/{name}")) for name in sorted(os.listdir(directory)))
        return tuple(stamps)

    def _read(self, prefixes: frozenset[str], universals: frozenset[str]) -> ModuleIndex:
        warnings: list[str] = []
        tables = Tables(
            config=self._config(warnings),
            alias=_read_text(self._modules / "modules.alias", warnings),
            builtin_modinfo=_read_text(self._modules / "modules.builtin.modinfo", warnings),
            builtin=_read_text(self._modules / "modules.builtin", warnings),
            dep=_read_text(self._modules / "modules.dep", warnings),
        )
        return module_index(tables, prefixes, universals, tuple(warnings))

    def _config(self, warnings: list[str]) -> list[list[str]]:
        """modprobe.d and modules.softdep as kmod understands them, a list of words a line (at least two)."""
        try:
            # The indexes that follow the configuration have 40,000 lines which nobody reads: hang up at the end of
            # the configuration.
            with subprocess.Popen(
                ["modprobe", *self._options(), "--showconfig"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                errors="replace",
            ) as process:
                assert process.stdout is not None
                lines = []
                for line in process.stdout:
                    if line.startswith(_END_OF_CONFIG):
                        break
                    lines.append(line.split())
                else:
                    warnings.append("modprobe --showconfig ended early: blacklists may be missed")
                process.stdout.close()
        except OSError as error:
            warnings.append(f"modprobe could not be run: {error}")
            return []
        return [words for words in lines if len(words) >= 2]


def _file_stamp(path: str) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size, status.st_dev


def _read_text(path: Path, warnings: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        warnings.append(f"{path} cannot be read ({error.strerror})")
        return ""
