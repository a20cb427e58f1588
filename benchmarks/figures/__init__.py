# SPDX-License-Identifier: LGPL-2.1-or-later
"""The figures, in the order in which they are measured and told."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Protocol, cast

from benchmarks.values import Figure
from tests.vm.cache import Tell


class Measured(Protocol):
    """What a module of a figure has."""

    NAME: str
    QUICK: bool  # whether `--quick` without names runs it, too

    @staticmethod
    def measure(tell: Tell, quick: bool) -> dict[str, Any]:
        """Measure in machines of its own; what is returned can be written as JSON."""

    @staticmethod
    def figure(raw: dict[str, Any]) -> Figure:
        """What the numbers say; pure."""


class _Modules(Mapping[str, Measured]):
    """By name, and imported only when asked for: who measures one figure does not need what the others need."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __getitem__(self, name: str) -> Measured:
        if name not in self._names:
            raise KeyError(name)
        return cast(Measured, import_module(f"{__name__}.{name}"))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


FIGURES: Mapping[str, Measured] = _Modules(
    "switch", "lists", "cold", "many", "start", "memory", "quiet", "storm", "resolve", "boot"
)
