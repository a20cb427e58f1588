# SPDX-License-Identifier: LGPL-2.1-or-later
"""Flavours as values: a flavour is a named universe of drivers, told wholly by data (config/flavours.yaml)."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from flavourd.errors import Code, FlavourError

DEFAULT = "default"

# A flavour's name travels in uevents, whose arguments the kernel limits to letters and digits (kobject_synth_uevent()).
_FLAVOUR_NAME = re.compile(r"[a-z][a-z0-9]{0,31}")
# The rest become parts of paths in /sys or arguments of modprobe.
_KERNEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def check_kernel_name(what: str, name: str) -> None:
    """ValueError if it could be anything but a plain name in a path or a command."""
    if not _KERNEL_NAME.fullmatch(name):
        raise ValueError(f"{clip(name)!r} is no {what}: letters, digits, '_', '-' and '.' only")


@dataclass(frozen=True)
class Universal:
    """The driver tried last, whose table matches everything. The module's and the driver's names may differ."""

    module: str
    driver: str

    def __post_init__(self) -> None:
        check_kernel_name("module name", self.module)
        check_kernel_name("driver name", self.driver)


@dataclass(frozen=True)
class FlavourOnBus:
    """How a flavour looks on one bus. alias_prefix: prefix of its entries in modules.alias, without the colon; None
    where the kernel has none.
    """

    universal: Universal
    alias_prefix: str | None = None
    needs_iommu_group: bool = False

    def __post_init__(self) -> None:
        if self.alias_prefix is not None:
            check_kernel_name("alias prefix", self.alias_prefix)


@dataclass(frozen=True)
class Flavour:
    """proof: directory under the device that holds an entry exactly while a driver of this flavour has claimed it."""

    description: str
    proof: str
    buses: Mapping[str, FlavourOnBus] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_kernel_name("directory name", self.proof)
        for bus in self.buses:
            check_kernel_name("bus name", bus)


@dataclass(frozen=True)
class Flavours:
    """All flavours by name; `default`, the native universe, is always there and never listed."""

    flavours: Mapping[str, Flavour] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.flavours:
            if name == DEFAULT:
                raise ValueError(f"{DEFAULT!r} is reserved for the native drivers")
            if not _FLAVOUR_NAME.fullmatch(name):
                raise ValueError(f"{clip(name)!r} is no flavour name: lower-case letters and digits, a letter first")

    @property
    def names(self) -> tuple[str, ...]:
        return (DEFAULT, *sorted(self.flavours))

    @property
    def alias_prefixes(self) -> frozenset[str]:
        return frozenset(
            on_bus.alias_prefix
            for flavour in self.flavours.values()
            for on_bus in flavour.buses.values()
            if on_bus.alias_prefix
        )

    @property
    def universal_modules(self) -> frozenset[str]:
        return frozenset(b.universal.module for f in self.flavours.values() for b in f.buses.values())

    @property
    def proofs(self) -> frozenset[str]:
        return frozenset(flavour.proof for flavour in self.flavours.values())

    def named(self, name: str) -> Flavour:
        if name not in self.flavours:
            hint = f"known flavours: {', '.join(self.names)}"
            close = self._of_driver(name) or difflib.get_close_matches(name.lower(), self.names, n=1)
            if close:
                hint = f"did you mean {close[0]!r}? {hint}"
            raise FlavourError(Code.UNKNOWN_FLAVOUR, f"there is no flavour {clip(name)!r}", hint)
        return self.flavours[name]

    def _of_driver(self, name: str) -> list[str]:
        """Flavours whose universal driver or module this is: other tools want a driver's name."""
        return [
            flavour
            for flavour, told in self.flavours.items()
            if any(name in (bus.universal.driver, bus.universal.module) for bus in told.buses.values())
        ]

    def of_alias_prefix(self, prefix: str) -> str:
        """Name of the flavour whose aliases begin with `prefix:`, as in a modalias request `vfio_pci:v00008086d…`."""
        for name, flavour in self.flavours.items():
            if any(on_bus.alias_prefix == prefix for on_bus in flavour.buses.values()):
                return name
        raise FlavourError(
            Code.UNKNOWN_FLAVOUR,
            f"no flavour has the alias prefix {clip(prefix)!r}",
            f"known prefixes: {', '.join(sorted(self.alias_prefixes))}",
        )


def clip(text: str, length: int = 60) -> str:
    """Keep what strangers send us from filling a message."""
    return text if len(text) <= length else text[: length - 1] + "…"
