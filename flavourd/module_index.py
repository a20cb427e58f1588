# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the kernel's module tables say about the flavours; pure, from texts to one value."""

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


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
    table_prefixes: for each module there is the alias prefixes of its own table (empty: it has no table).
    builtin: those that are built into the kernel; before Linux 6.18 their tables cannot be read.
    libraries: for each universal module the modules that it cannot do without; they have no drivers of their own.
    warnings: sources that could not be read; what they would have said is missing here.
    """

    aliases: tuple[Alias, ...] = ()
    blacklisted: frozenset[str] = frozenset()
    soft_pre: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    table_prefixes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    builtin: frozenset[str] = frozenset()
    libraries: Mapping[str, frozenset[str]] = field(default_factory=dict)
    noiommu: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tables:
    """What the index is made from.

    config: modprobe.d and modules.softdep, a list of words a line. alias, builtin_modinfo, builtin, dep: the whole
    texts of modules.alias, modules.builtin.modinfo, modules.builtin and modules.dep.
    """

    config: list[list[str]]
    alias: str = ""
    builtin_modinfo: str = ""
    builtin: str = ""
    dep: str = ""


def module_name(text: str) -> str:
    """kmod and the kernel take `-` and `_` in module names as the same."""
    return text.replace("-", "_")


def module_index(tables: Tables, prefixes: frozenset[str], universals: frozenset[str]) -> ModuleIndex:
    """The index for these alias prefixes and universal modules."""
    config = tables.config
    builtin = frozenset(module_name(name) for name in re.findall(r"([^/\n]+)\.ko$", tables.builtin, re.MULTILINE))
    aliases = [(w[1], w[2]) for w in config if w[0] == "alias" and len(w) == 3 and _prefix(w[1]) in prefixes]
    aliases += _table_lines(tables.alias, prefixes) + _builtin_lines(tables.builtin_modinfo, prefixes)
    return ModuleIndex(
        aliases=tuple(Alias(pattern, module_name(module)) for pattern, module in aliases),
        blacklisted=frozenset(module_name(words[1]) for words in config if words[0] == "blacklist"),
        soft_pre={universal: _soft_pre(config, module_name(universal)) for universal in universals},
        table_prefixes=_table_prefixes(tables, builtin),
        builtin=builtin,
        libraries={universal: _libraries(tables.dep, module_name(universal)) for universal in universals},
        noiommu=_noiommu(config),
    )


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


def _table_prefixes(tables: Tables, builtin: frozenset[str]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {module: set() for module in builtin}
    for name in re.findall(r"^(?:[^:\n]*/)?([^/:\n]+)\.ko[^/:\n]*:", tables.dep, re.MULTILINE):
        found.setdefault(module_name(name), set())
    # A table's lines stand together: all that are alike but for what they match are one match here, and their number
    # is a fifth of that of the lines.
    lines = re.findall(r"^alias ([^:\s]+):[^ \n]* (\S+)\n(?:alias \1:[^ \n]* \2\n)*", tables.alias, re.MULTILINE)
    lines += [
        (prefix, name) for name, prefix in re.findall(r"(?:\A|\0)([^.\0]+)\.alias=([^:\0]+):", tables.builtin_modinfo)
    ]
    for prefix, name in lines:
        found.setdefault(module_name(name), set()).add(prefix)
    # Thousands of modules have some dozens of different sets between them.
    kept: dict[frozenset[str], frozenset[str]] = {}
    return {
        module: kept.setdefault(prefixes, prefixes)
        for module, prefixes in ((module, frozenset(some)) for module, some in found.items())
    }


def _libraries(dep: str, module: str) -> frozenset[str]:
    """What its line in modules.dep names: `kernel/…/vfio-pci.ko.xz: kernel/…/vfio-pci-core.ko.xz …`."""
    spelling = re.escape(module).replace("_", "[-_]")
    lines = re.findall(rf"^(?:[^:\n]*/)?{spelling}\.ko[^/:\n]*:(.*)$", dep, re.MULTILINE)
    names = (word.rpartition("/")[2].partition(".ko")[0] for line in lines for word in line.split())
    return frozenset(map(module_name, names))


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


def _soft_pre(config: list[list[str]], module: str) -> tuple[str, ...]:
    """The `pre:` modules of all lines `softdep PATTERN pre: A B post: C` that fit.

    kmod itself heeds the first line only; here they are hints where variants may be, and each package may give one.
    kmod 30 forgets the space before `post:` (`pre: A Bpost: C`); no module has a colon in its name, so that can be
    told apart.
    """
    fitting = (w for w in config if w[0] == "softdep" and fnmatch.fnmatchcase(module, module_name(w[1])))
    texts = (" ".join(words[2:]).partition("post:")[0].partition("pre:")[2] for words in fitting)
    return tuple(module_name(name) for text in texts for name in text.split())
