# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rooms and floors: imports only go down (docs/coding-style.md)."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
# From the ground up; a package stands for all its modules.
_FLOORS = {
    "values": {
        "",
        "device",
        "flavour",
        "outcome",
        "errors",
        "errnos",
        "keys",
        "request",
        "record",
        "module_index",
        "step",
        "use",
        "stuck",
        "facts",
        "wording",
        "traits",
    },
    "machine": {
        "sysfs",
        "kmod",
        "kmsg",
        "journal",
        "udevdb",
        "survey",
        "kin",
        "usage",
        "identity",
        "wishes",
        "udevrules",
        "waiters",
    },
    "knowledge": {"candidates", "iommu", "policy", "inventory", "guards", "disk_guards"},
    "decision": {"plan", "verdict", "lines"},
    "action": {"host", "rebind", "switch", "together", "answer", "worker", "crew"},
    "service": {"uevents", "turns", "sight", "aftercare", "keeper", "logs", "supervisor", "desk", "ipc", "service"},
    "start": {"__main__", "early"},
    "people": {"cli", "attributes"},
}


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__")


_MODULES = {name_of(file): file for file in sorted((_ROOT / "flavourd").rglob("*.py"))}


def room(module: str) -> str:
    return module.removeprefix("flavourd").removeprefix(".").partition(".")[0]


def floor(module: str) -> int:
    found = [number for number, rooms in enumerate(_FLOORS.values()) if room(module) in rooms]
    assert len(found) == 1, f"{module} stands on no floor: say in this file on which"
    return found[0]


def imports(module: str) -> Iterator[str]:
    """Modules of ours that a module imports, wherever in its text it does."""
    for node in ast.walk(ast.parse(_MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "flavourd")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: ours are imported by their whole name"
            assert node.module
            if node.module.partition(".")[0] == "flavourd":
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    yield whole if whole in _MODULES else node.module


def test_there_are_modules_and_imports_to_look_at() -> None:
    assert "flavourd.policy.decode" in _MODULES
    assert {"flavourd.desk", "flavourd.logs", "flavourd.ipc.door"} <= set(imports("flavourd.service"))
    assert {"flavourd", "flavourd.service"} <= set(imports("flavourd.__main__"))


def test_the_floors_name_the_rooms_that_there_are() -> None:
    assert set().union(*_FLOORS.values()) == {room(module) for module in _MODULES}


@pytest.mark.parametrize("module", _MODULES)
def test_a_module_stands_on_a_floor_and_imports_from_its_own_or_below(module: str) -> None:
    names = list(_FLOORS)
    above = [f"{other} ({names[floor(other)]})" for other in imports(module) if floor(other) > floor(module)]
    assert not above, f"{module} ({names[floor(module)]}) reaches up"


def test_modules_of_one_floor_do_not_import_in_a_circle() -> None:
    TopologicalSorter({module: list(imports(module)) for module in _MODULES}).prepare()


@pytest.mark.parametrize("module", [module for module in _MODULES if room(module) in _FLOORS["values"]])
def test_values_do_no_io(module: str) -> None:
    tree = ast.parse(_MODULES[module].read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not names & {"pathlib", "subprocess", "socket", "asyncio", "shutil", "tempfile", "io", "fcntl"}
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert "open" not in calls
