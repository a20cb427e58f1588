# SPDX-License-Identifier: LGPL-2.1-or-later
"""The only reader of the kernel's module tables and the only one who loads modules.

The tables are read once and kept until one of their files changes. modprobe.d is read by kmod itself (`modprobe
--showconfig`), so that its rules of precedence, its kernel arguments and modules.softdep hold here as they do there.
"""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# modprobe.d(5)
_CONFIG_DIRECTORIES = (
    "etc/modprobe.d",
    "run/modprobe.d",
    "usr/local/lib/modprobe.d",
    "usr/lib/modprobe.d",
    "lib/modprobe.d",
)
_INDEX_FILES = ("modules.alias", "modules.builtin.modinfo", "modules.softdep")
_END_OF_CONFIG = "# End of configuration files"


@dataclass(frozen=True)
class Alias:
    """One line of a module's device table. pattern: with its prefix, `vfio_pci:v00008086d*…`, to be matched as
    fnmatch(3) does.
    """

    pattern: str
    module: str


@dataclass(frozen=True)
class ModuleIndex:
    """What the module tables say about the flavours.

    aliases: those with a flavour's prefix; modprobe.d's first, then modules.alias in its order, then built-in modules'.
    soft_pre: for each universal module the modules that its softdeps name as `pre:`.
    table_prefixes: for each module in soft_pre the alias prefixes of its own table (empty: it has no table).
    warnings: sources that could not be read; what they would have said is missing here.
    """

    aliases: tuple[Alias, ...] = ()
    blacklisted: frozenset[str] = frozenset()
    soft_pre: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    table_prefixes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    noiommu: bool = False
    warnings: tuple[str, ...] = ()


def module_name(text: str) -> str:
    """kmod and the kernel take `-` and `_` in module names as the same."""
    return text.replace("-", "_")


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

    def load(self, module: str) -> str | None:
        """`modprobe -b`: with its dependencies, its options and the blacklist's word. None, or what modprobe said
        against it.

        modprobe ends with 0 for a blacklisted module too: whoever calls looks into /sys/module afterwards.
        """
        done = self._modprobe("-b", "--", module)
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
        paths = [self._modules / name for name in _INDEX_FILES]
        for place in _CONFIG_DIRECTORIES:
            directory = self._root / place
            paths.append(directory)
            try:
                paths += sorted(directory.iterdir())
            except OSError:
                continue
        return tuple((str(path), _file_stamp(path)) for path in paths)

    def _read(self, prefixes: frozenset[str], universals: frozenset[str]) -> ModuleIndex:
        warnings: list[str] = []
        config = self._config(warnings)
        table = _read_text(self._modules / "modules.alias", warnings)
        builtin = _read_text(self._modules / "modules.builtin.modinfo", warnings)
        soft_pre = {
            universal: tuple(
                module_name(module)
                for words in config
                if words[0] == "softdep" and module_name(words[1]) == module_name(universal)
                for module in _soft_pre(words)
            )
            for universal in universals
        }
        return ModuleIndex(
            aliases=tuple(
                [
                    Alias(w[1], module_name(w[2]))
                    for w in config
                    if w[0] == "alias" and len(w) == 3 and _prefix(w[1]) in prefixes
                ]
                + [Alias(p, module_name(m)) for p, m in _table_lines(table, prefixes)]
                + [Alias(p, module_name(m)) for p, m in _builtin_lines(builtin, prefixes)]
            ),
            blacklisted=frozenset(module_name(words[1]) for words in config if words[0] == "blacklist"),
            soft_pre=soft_pre,
            table_prefixes={
                module: _prefixes_of(module, table, builtin) for modules in soft_pre.values() for module in modules
            },
            noiommu=_noiommu(config),
            warnings=tuple(warnings),
        )

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


def _file_stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _read_text(path: Path, warnings: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        warnings.append(f"{path} cannot be read ({error.strerror})")
        return ""


def _prefix(pattern: str) -> str:
    return pattern.partition(":")[0]


def _table_lines(text: str, prefixes: Iterable[str]) -> list[tuple[str, str]]:
    # One pass of the regular-expression engine over 30,000 lines instead of 30,000 turns of a Python loop.
    names = "|".join(map(re.escape, sorted(prefixes)))
    return re.findall(rf"^alias ((?:{names}):\S+) (\S+)$", text, re.MULTILINE) if names else []


def _builtin_lines(text: str, prefixes: Iterable[str]) -> list[tuple[str, str]]:
    # modules.builtin.modinfo: NUL-terminated `module.key=value`; aliases of built-in drivers stand there since Linux
    # 6.18.
    names = "|".join(map(re.escape, sorted(prefixes)))
    found = re.findall(rf"(?:\A|\0)([^.\0]+)\.alias=((?:{names}):[^\0]+)", text) if names else []
    return [(pattern, module) for module, pattern in found]


def _prefixes_of(module: str, table: str, builtin: str) -> frozenset[str]:
    spelling = re.escape(module).replace("_", "[-_]")
    lines = re.findall(rf"^alias ([^:\s]+):\S* {spelling}$", table, re.MULTILINE)
    return frozenset(lines + re.findall(rf"(?:\A|\0){spelling}\.alias=([^:\0]+):", builtin))


def _noiommu(config: list[list[str]]) -> bool:
    """Whether vfio will be loaded with its unsafe no-IOMMU mode; the last word wins."""
    values = [
        (value or "y")[:2].lower()
        for words in config
        if words[:2] == ["options", "vfio"]
        for option, _, value in (word.partition("=") for word in words[2:])
        if option == "enable_unsafe_noiommu_mode"
    ]
    return bool(values) and (values[-1][0] in "1yt" or values[-1] == "on")


def _soft_pre(words: list[str]) -> list[str]:
    """The `pre:` modules of `softdep MODULE pre: A B post: C`.

    kmod 30 forgets the space before `post:` (`pre: A Bpost: C`); no module has a colon in its name, so that can be
    told apart.
    """
    before_post = " ".join(words[2:]).partition("post:")[0]
    return before_post.partition("pre:")[2].split()
