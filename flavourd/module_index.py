# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the kernel's module tables say about the flavours; pure, from texts to one value."""

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain

_WILDCARD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Alias:
    """One line of a module's device table. pattern: with its prefix, `vfio_pci:v00008086d*…`, to be matched as
    fnmatch(3) does.
    """

    pattern: str
    module: str


class AliasTable:
    """The lines of one prefix, which are found by what they begin with: nearly all name vendor and device before their
    first wildcard, so that few are compared with a device, however many there are.
    """

    def __init__(self, aliases: Iterable[Alias]) -> None:
        heads: dict[str, list[tuple[int, str, Alias]]] = {}
        for number, alias in enumerate(aliases):
            pattern = normal_alias(alias.pattern)
            heads.setdefault(_WILDCARD.split(pattern, 1)[0], []).append((number, pattern, alias))
        self._heads, self._lengths = heads, sorted(set(map(len, heads)))
        self.modules = tuple(dict.fromkeys(alias.module for _, _, alias in sorted(chain(*heads.values()))))

    def matching(self, own: str, other_than: str) -> list[Alias]:
        """In the order of the lines. own: a device's alias, normalised. other_than: a module that is not asked for."""
        lines = chain.from_iterable(self._heads.get(own[:length], ()) for length in self._lengths if length <= len(own))
        found = [line for line in lines if line[2].module != other_than and fnmatch.fnmatchcase(own, line[1])]
        return [alias for _, _, alias in sorted(found)]


@dataclass(frozen=True)
class ModuleIndex:
    """What the module tables say about the flavours.

    aliases: those with a flavour's prefix; modprobe.d's first, then modules.alias in its order, then built-in modules'.
    soft_pre: for each universal module the modules that its softdeps name as `pre:`.
    table_prefixes: for each module there is the alias prefixes of its own table (empty: it has no table).
    builtin: those that are built into the kernel; before Linux 6.18 their tables cannot be read.
    libraries: for each universal module the modules that it cannot do without; they have no drivers of their own.
    warnings: sources that could not be read; what they would have said is missing here.
    tables: the aliases of each prefix.
    """

    aliases: tuple[Alias, ...] = ()
    blacklisted: frozenset[str] = frozenset()
    soft_pre: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    table_prefixes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    builtin: frozenset[str] = frozenset()
    libraries: Mapping[str, frozenset[str]] = field(default_factory=dict)
    noiommu: bool = False
    warnings: tuple[str, ...] = ()
    tables: Mapping[str, AliasTable] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_prefix: dict[str, list[Alias]] = {}
        for alias in self.aliases:
            by_prefix.setdefault(_prefix(alias.pattern), []).append(alias)
        object.__setattr__(self, "tables", {prefix: AliasTable(some) for prefix, some in by_prefix.items()})


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


def normal_alias(text: str) -> str:
    """kmod takes `-` and `_` in aliases as the same, except inside brackets (libkmod, alias_normalize())."""
    return re.sub(r"\[[^]]*\]|-", lambda found: "_" if found[0] == "-" else found[0], text)


def module_index(
    tables: Tables, prefixes: frozenset[str], universals: frozenset[str], warnings: tuple[str, ...] = ()
) -> ModuleIndex:
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
        warnings=warnings,
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
