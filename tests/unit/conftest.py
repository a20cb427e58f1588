# SPDX-License-Identifier: LGPL-2.1-or-later
"""What unit tests share: a temporary tree that stands for the root of a host."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from .gate import Gate

Tree = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Make `{path: text}` below a temporary root, which is returned; it may be called again for more.

    A text `-> TARGET` makes a symbolic link, a path that ends with / an empty directory.
    """

    def make(entries: Mapping[str, str]) -> Path:
        for name, text in entries.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                path.mkdir(exist_ok=True)
            elif text.startswith("-> "):
                path.symlink_to(text.removeprefix("-> "))
            else:
                path.write_text(text, encoding="utf-8", errors="surrogateescape")
        return tmp_path

    return make


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[tuple[Gate, Gate]]:
    first, second = Gate(tmp_path / "first"), Gate(tmp_path / "second")
    yield first, second
    first.close()
    second.close()


@pytest.fixture
def gate(gates: tuple[Gate, Gate]) -> Gate:
    return gates[0]


@pytest.fixture(autouse=True)
def nobody_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers do not wait for another job: with the test its loop ends, which alone would let them go."""
    monkeypatch.setattr("flavourd.crew._IDLE_SECONDS", 0.0)
