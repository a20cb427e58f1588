# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which modules may take a device in a flavour, in the order in which they are tried, and why the others are not.

Since Linux 5.15 a variant's device table stands in modules.alias under a prefix of its own (`vfio_pci:`, commit
cc6711b0bf36). A driver_override binds any driver to any device, so a module whose table does not list the device is
never tried: the kernel would not stop us.
"""

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass

from flavourd.flavour import FlavourOnBus, check_kernel_name, clip
from flavourd.module_index import ModuleIndex, module_name, normal_alias
from flavourd.outcome import Candidate, Skip, Source

# Device tables have seven fields at most (PCI); what a pattern does not spell out, its trailing `*` leaves open.
_FIELDS = 8

_WORDS = frozenset(f"@{source}" for source in (Source.ALIAS, Source.SOFTDEP, Source.UNIVERSAL))
_PATTERN = re.compile(r"(?=.*[*?\[])[A-Za-z0-9_*?\[][A-Za-z0-9_.*?\[\]!-]{0,63}")
# Trying a module means loading it: `*` is no wish but a mistake.
_MOST_OF_A_PATTERN = 32

_BLACKLISTED = "is blacklisted in modprobe.d or on the kernel's command line"
_DENIED = "is denied by the policy"
_NOT_LISTED = "has a table that does not list this device"


def candidates(
    modalias: str | None, bus: str, flavour: FlavourOnBus, index: ModuleIndex
) -> tuple[tuple[Candidate, ...], tuple[Skip, ...]]:
    """Alias matches, the closest first; then softdeps of the universal module that have no table; then the universal
    driver.
    """
    universal = module_name(flavour.universal.module)
    found: list[Candidate] = []
    skips: dict[str, Skip] = {}
    for module, pattern in _by_table(modalias, flavour, index):
        if any(module == c.module for c in found):
            continue
        if pattern:
            found.append(Candidate(module, Source.ALIAS, pattern))
        else:
            skips[module] = Skip(module, _NOT_LISTED)
    for module in index.soft_pre.get(flavour.universal.module, ()):
        if module == universal or module in skips or any(module == c.module for c in found):
            continue
        if reason := _why_not(module, bus, flavour, index):
            skips[module] = Skip(module, reason)
        else:
            found.append(Candidate(module, Source.SOFTDEP, f"softdep {universal} pre: {module}"))
    found.append(Candidate(universal, Source.UNIVERSAL, f"universal driver {flavour.universal.driver}"))
    for candidate in found:
        if candidate.module in index.blacklisted:
            skips[candidate.module] = Skip(candidate.module, _BLACKLISTED, missed=True)
    return tuple(c for c in found if c.module not in skips), tuple(skips.values())


@dataclass(frozen=True)
class Choice:
    """What somebody has said of candidates.

    named: those that are tried, in this order and no other: names, patterns (`vfio_pci*`), and `@alias`, `@softdep`,
    `@universal` for all that these sources give; empty: every candidate. forced: names that are tried whatever their
    tables say; all_forced: every name is. denied: names and patterns of modules that are never tried. tolerant: what
    is no candidate is passed over and told, because it was said for many devices; else it is an error.
    """

    named: tuple[str, ...] = ()
    forced: frozenset[str] = frozenset()
    all_forced: bool = False
    denied: tuple[str, ...] = ()
    tolerant: bool = False

    def denies(self, module: str) -> bool:
        return any(fits(module, pattern) for pattern in self.denied)

    def forces(self, name: str) -> bool:
        return self.all_forced or name in map(module_name, self.forced)


def check_named(item: str) -> None:
    """ValueError if it is neither a module's name nor a pattern nor one of the words."""
    if item.startswith("@"):
        if item not in _WORDS:
            raise ValueError(f"{clip(item)!r} is none of {', '.join(sorted(_WORDS))}")
    elif not _PATTERN.fullmatch(item):
        check_kernel_name("module name", item)


def is_pattern(item: str) -> bool:
    return any(sign in item for sign in "*?[")


def fits(module: str, item: str) -> bool:
    """Whether a module is the one that is named, or one of those that a pattern stands for."""
    return fnmatch.fnmatchcase(module_name(module), normal_alias(item))


def chosen(
    choice: Choice,
    bus: str,
    flavour: FlavourOnBus,
    index: ModuleIndex,
    found: tuple[Candidate, ...],
    skips: tuple[Skip, ...],
) -> tuple[tuple[Candidate, ...], tuple[Skip, ...]]:
    """Of what `candidates` has found, and the modules that a pattern adds, what somebody wants and may have; and what
    he does not get, or did not want. ValueError for what is no candidate, unless the choice is tolerant.
    """
    skips += tuple(Skip(c.module, _DENIED) for c in found if choice.denies(c.module))
    found = tuple(c for c in found if not choice.denies(c.module))
    if not choice.named:
        return found, skips
    taken: dict[str, Candidate] = {}
    passed: dict[str, Skip] = {}
    for item in choice.named:
        if item in _WORDS:
            some, reasons = [c for c in found if item == f"@{c.source}"], list(skips)
        elif is_pattern(item):
            some, reasons = _of_pattern(item, choice, bus, flavour, index, found, skips)
        else:
            some, reasons = _of_name(module_name(item), choice, index, found, skips)
        if reasons and not some and item not in _WORDS and not choice.tolerant:
            raise ValueError("; ".join(map(str, reasons)))
        taken |= {c.module: c for c in some if c.module not in taken}
        passed |= {skip.module: skip for skip in reasons}
    passed |= {c.module: Skip(c.module, "was not named") for c in found}
    return tuple(taken.values()), tuple(skip for skip in passed.values() if skip.module not in taken)


def _of_name(
    name: str, choice: Choice, index: ModuleIndex, found: tuple[Candidate, ...], skips: tuple[Skip, ...]
) -> tuple[list[Candidate], list[Skip]]:
    if candidate := next((c for c in found if c.module == name), None):
        return [Candidate(name, Source.NAMED, candidate.detail)], []
    skip = next((s for s in skips if s.module == name), Skip(name, "has no table that lists this device"))
    if choice.denies(name):
        return [], [Skip(name, _DENIED)]
    if name in index.blacklisted:
        return [], [Skip(name, _BLACKLISTED, missed=skip.missed)]
    if not choice.forces(name):
        return [], [skip]
    return [Candidate(name, Source.NAMED, f"taken by force: it {skip.reason}")], []


def _of_pattern(
    pattern: str,
    choice: Choice,
    bus: str,
    flavour: FlavourOnBus,
    index: ModuleIndex,
    found: tuple[Candidate, ...],
    skips: tuple[Skip, ...],
) -> tuple[list[Candidate], list[Skip]]:
    """Candidates that fit, and before the universal one the modules that fit and have no table at all: such a driver
    filters in its probe. Never are these native drivers, or modules that other drivers are made of.
    """
    some = [c for c in found if fits(c.module, pattern)]
    reasons = [skip for skip in skips if fits(skip.module, pattern)]
    known = {c.module for c in found} | {skip.module for skip in skips} | {module_name(flavour.universal.module)}
    known |= index.libraries.get(flavour.universal.module, frozenset())
    whole = re.compile(fnmatch.translate(normal_alias(pattern)))
    tableless = sorted(
        module
        for module in index.table_prefixes
        if module not in known and whole.match(module) and _why_not(module, bus, flavour, index) is None
    )
    if len(tableless) > _MOST_OF_A_PATTERN:
        reasons.append(Skip(pattern, f"fits {len(tableless)} modules without a table, too many to try them all"))
        tableless = []
    reasons += [Skip(module, _DENIED) for module in tableless if choice.denies(module)]
    reasons += [Skip(module, _BLACKLISTED) for module in tableless if module in index.blacklisted]
    against = {skip.module for skip in reasons}
    wild = [Candidate(module, Source.WILDCARD, f"fits {pattern}") for module in tableless if module not in against]
    place = next((number for number, c in enumerate(some) if c.source is Source.UNIVERSAL), len(some))
    some[place:place] = wild
    if not some and not reasons:
        reasons = [Skip(pattern, "fits no module that could be tried for this device")]
    return some, reasons


def _why_not(module: str, bus: str, flavour: FlavourOnBus, index: ModuleIndex) -> str | None:
    """Why a module is not tried that no table of the flavour gives for the device; None if it has no table at all."""
    prefixes = index.table_prefixes.get(module, frozenset())
    if flavour.alias_prefix in prefixes:
        return _NOT_LISTED
    if module in index.builtin and not prefixes:
        return "is built into the kernel, which does not tell whether it has a table"
    return "is a native driver, named by a softdep only to be loaded earlier" if bus in prefixes else None


def _by_table(modalias: str | None, flavour: FlavourOnBus, index: ModuleIndex) -> Iterator[tuple[str, str]]:
    """(module, closest matching pattern) by closeness, ties in the order of the tables; then (module, "") for those
    that do not match. The universal module is none of them.
    """
    if modalias is None or (table := index.tables.get(flavour.alias_prefix or "")) is None:
        return
    universal = module_name(flavour.universal.module)
    own = normal_alias(f"{flavour.alias_prefix}:{modalias.partition(':')[2]}")
    matches = table.matching(own, other_than=universal)
    for alias in sorted(matches, key=lambda alias: specificity(alias.pattern)):
        yield alias.module, alias.pattern
    matching = {universal, *(alias.module for alias in matches)}
    for module in table.modules:
        if module not in matching:
            yield module, ""


def specificity(pattern: str) -> tuple[bool, ...]:
    """Sort key, the closest first: for each field in the alias's own order (vendor, device, … class last) whether it
    is a wildcard.

    Fields are a lower-case key and its value, as scripts/mod/file2alias.c writes them: `v00008086d*sv*sd*bc02sc00i*`.
    """
    fields = re.findall(r"[a-z]+([^a-z]+)", pattern.partition(":")[2])
    # In a pattern that ends early (`v00008086d000010D3*`) the star belongs to what follows, not to the last field.
    open_fields = [value.strip("*") == "" or "?" in value or "[" in value for value in fields]
    return tuple(open_fields + [True] * (_FIELDS - len(open_fields)))
