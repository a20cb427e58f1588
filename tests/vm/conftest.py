# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fixtures: `booted` and `vm`, a fresh machine for each test; what it told is kept when the test fails."""

import re
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # unit tests alone need neither QEMU nor its Python package
    from .machine import Machine
    from .qemu import State

FAILURES = Path(__file__).parents[2] / "build" / "vm-failures"
_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


@pytest.fixture(scope="session")
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say progress on the terminal at once: a stage may take a minute."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def say(text: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n[test bed] {text}", flush=True)

    return say


@pytest.fixture(scope="session")
def booted_state(tell: Callable[[str], None]) -> "State":
    from . import layers

    return layers.booted(tell)


@pytest.fixture(scope="session")
def installed_state(tell: Callable[[str], None]) -> "State":
    from . import layers

    return layers.installed(tell)


@pytest.fixture
def booted(booted_state: "State", request: pytest.FixtureRequest) -> "Iterator[Machine]":
    """A machine after boot, with nothing of flavourd on it."""
    with restored(booted_state, request) as machine:
        yield machine


@pytest.fixture
def vm(installed_state: "State", request: pytest.FixtureRequest) -> "Iterator[Machine]":
    """A machine with the repository's flavourd installed and active."""
    with restored(installed_state, request) as machine:
        yield machine


@contextmanager
def restored(state: "State", request: pytest.FixtureRequest) -> "Iterator[Machine]":
    from .machine import Machine
    from .qemu import Qemu

    with Qemu(state.image, state.disk, state) as qemu:
        machine = Machine(qemu)
        yield machine
        if request.node.stash.get(_failed, False):
            folder = FAILURES / re.sub(r"[^\w.-]+", "_", request.node.name)
            shutil.rmtree(folder, ignore_errors=True)
            machine.evidence(folder)
            print(f"what the machine told is in {folder}; the ends of its shorter parts:")
            for name in ("console.log", "jobs.txt", "processes.txt"):  # all that is left where nobody can go and look
                print(f"--- {name}\n{(folder / name).read_text(errors='replace')[-6000:]}")
