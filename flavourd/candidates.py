# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which modules may take a device in a flavour, in the order in which they are tried, and why the others are not.

Since Linux 5.15 a variant's device table stands in modules.alias under a prefix of its own (`vfio_pci:`, commit
cc6711b0bf36). A driver_override binds any driver to any device, so a module whose table does not list the device is
never tried: the kernel would not stop us.
"""

import fnmatch
import re
from collections.abc import Iterator

from flavourd.flavour import FlavourOnBus
from flavourd.module_index import ModuleIndex, module_name
from flavourd.outcome import Candidate, Skip, Source

# Device tables have seven fields at most (PCI); what a pattern does not spell out, its trailing `*` leaves open.
_FIELDS = 8

_BLACKLISTED = "is blacklisted in modprobe.d or on the kernel's command line"


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
        if module == universal or any(module == c.module for c in found):
            continue
        if pattern:
            found.append(Candidate(module, Source.ALIAS, pattern))
        else:
            skips[module] = Skip(module, "has a table that does not list this device")
    for module in index.soft_pre.get(flavour.universal.module, ()):
        prefixes = index.table_prefixes.get(module, frozenset())
        if module == universal or module in skips or any(module == c.module for c in found):
            continue
        if flavour.alias_prefix in prefixes:
            skips[module] = Skip(module, "has a table that does not list this device")
        elif module in index.builtin and not prefixes:
            skips[module] = Skip(module, "is built into the kernel, which does not tell whether it has a table")
        elif bus in prefixes:
            skips[module] = Skip(module, "is a native driver, named by a softdep only to be loaded earlier")
        else:
            found.append(Candidate(module, Source.SOFTDEP, f"softdep {universal} pre: {module}"))
    found.append(Candidate(universal, Source.UNIVERSAL, f"universal driver {flavour.universal.driver}"))
    for candidate in found:
        if candidate.module in index.blacklisted:
            skips[candidate.module] = Skip(candidate.module, _BLACKLISTED, missed=True)
    return tuple(c for c in found if c.module not in skips), tuple(skips.values())


def only_named(
    named: tuple[str, ...],
    whatever_the_table: bool,
    found: tuple[Candidate, ...],
    skips: tuple[Skip, ...],
    blacklisted: frozenset[str],
) -> tuple[tuple[Candidate, ...], tuple[Skip, ...]]:
    """Of what `candidates` gave only what somebody has named, in his order; ValueError for a name that is none of them.

    whatever_the_table: a module whose table does not list the device is taken too. A blacklist always holds.
    """
    chosen: list[Candidate] = []
    for name in dict.fromkeys(map(module_name, named)):
        if candidate := next((c for c in found if c.module == name), None):
            chosen.append(Candidate(name, Source.NAMED, candidate.detail))
            continue
        skip = next((s for s in skips if s.module == name), Skip(name, "has no table that lists this device"))
        if name in blacklisted:
            raise ValueError(f"{name} {_BLACKLISTED}")
        if not whatever_the_table:
            raise ValueError(str(skip))
        chosen.append(Candidate(name, Source.NAMED, f"taken by force: it {skip.reason}"))
    others = tuple(Skip(c.module, "was not named") for c in found if all(c.module != one.module for one in chosen))
    return tuple(chosen), others


def _by_table(modalias: str | None, flavour: FlavourOnBus, index: ModuleIndex) -> Iterator[tuple[str, str]]:
    """(module, closest matching pattern) by closeness, ties in the order of the tables; then (module, "") for those
    that do not match.
    """
    if modalias is None or flavour.alias_prefix is None:
        return
    own = _normal(f"{flavour.alias_prefix}:{modalias.partition(':')[2]}")
    aliases = [alias for alias in index.aliases if alias.pattern.startswith(f"{flavour.alias_prefix}:")]
    matches = [alias for alias in aliases if fnmatch.fnmatchcase(own, _normal(alias.pattern))]
    for alias in sorted(matches, key=lambda alias: specificity(alias.pattern)):
        yield alias.module, alias.pattern
    matching = {alias.module for alias in matches}
    for module in dict.fromkeys(alias.module for alias in aliases):
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


def _normal(alias: str) -> str:
    """kmod takes `-` and `_` in aliases as the same, except inside brackets (alias_normalize())."""
    return re.sub(r"\[[^]]*\]|-", lambda found: "_" if found[0] == "-" else found[0], alias)
