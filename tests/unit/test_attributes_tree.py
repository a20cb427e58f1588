# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which files driver_flavour there are, and by which numbers the kernel knows them."""

import shutil
from pathlib import Path

import pytest

from flavourd.attributes.inodes import Inodes
from flavourd.attributes.tree import CANDIDATES, ERROR, FILES, FLAVOUR, ROOT, Node, Tree
from flavourd.device import DeviceId

from . import conftest

_DEVICES = "sys/bus/pci/devices"
_ONE, _TWO = "0000:01:00.0", "0000:02:00.0"
_BUSES = frozenset({"pci"})


@pytest.fixture
def host(tree: conftest.Tree) -> Path:
    """As in sysfs, the bus has links to its devices."""
    return tree(
        {
            "sys/devices/1/": "",
            "sys/devices/2/": "",
            "sys/bus/usb/devices/1-1/": "",
            f"{_DEVICES}/{_ONE}": "-> ../../../devices/1",
            f"{_DEVICES}/{_TWO}": "-> ../../../devices/2",
        }
    )


def walk(tree: Tree, *names: str, buses: frozenset[str] = _BUSES) -> Node | None:
    node: Node | None = ROOT
    for name in names:
        node = tree.child(node, name, buses) if node else None
    return node


def found(tree: Tree, *names: str) -> Node:
    node = walk(tree, *names)
    assert node
    return node


def test_every_device_of_a_bus_that_has_flavours_has_three_files(host: Path) -> None:
    tree = Tree(host)
    todo, paths = [ROOT], []
    while todo:
        children = tree.children(todo.pop(), _BUSES)
        paths += ["/".join(child.path) for child in children]
        todo += [child for child in children if not child.file]
    devices = [f"pci/devices/{name}" for name in (_ONE, _TWO)]
    files = [f"{device}/{file}" for device in devices for file in (FLAVOUR, CANDIDATES, ERROR)]
    assert sorted(paths) == sorted(["pci", "pci/devices", *devices, *files])


def test_a_file_knows_its_device_and_a_directory_its_own(host: Path) -> None:
    tree = Tree(host)
    file = found(tree, "pci", "devices", _ONE, FLAVOUR)
    assert (file.device, file.file) == (DeviceId("pci", _ONE), FLAVOUR)
    device = found(tree, "pci", "devices", _ONE)
    assert (device.device, device.file) == (DeviceId("pci", _ONE), None)
    assert found(tree, "pci", "devices").device is None


@pytest.mark.parametrize(
    "names",
    [
        ("usb",),
        ("nope",),
        ("pci", "drivers"),
        ("pci", "devices", "0000:03:00.0"),
        ("pci", "devices", "."),
        ("pci", "devices", ".."),
        ("pci", "devices", ""),
        ("pci", "devices", "a\0b"),
        ("pci", "devices", "../devices"),
        ("pci", "devices", _ONE, "driver_override"),
        ("pci", "devices", _ONE, FLAVOUR, "x"),
    ],
)
def test_nothing_else_is_there(host: Path, names: tuple[str, ...]) -> None:
    assert walk(Tree(host), *names) is None


def test_a_bus_that_has_flavours_but_is_not_on_this_host_is_not_there(host: Path) -> None:
    assert walk(Tree(host), "cdx", buses=frozenset({"pci", "cdx"})) is None


def test_every_node_has_a_number_of_its_own_that_stays(host: Path) -> None:
    tree = Tree(host)
    nodes = [ROOT, found(tree, "pci"), found(tree, "pci", "devices")]
    for name in (_ONE, _TWO):
        nodes += [found(tree, "pci", "devices", name)]
        nodes += [found(tree, "pci", "devices", name, file) for file in FILES]
    numbers = [node.number for node in nodes]
    assert len(set(numbers)) == len(nodes)
    assert found(Tree(host), "pci", "devices", _TWO, ERROR).number == numbers[-1]


def test_another_device_at_the_same_address_is_another_node(host: Path) -> None:
    tree = Tree(host)
    before = found(tree, "pci", "devices", _ONE, FLAVOUR)
    assert tree.stands(before)
    (host / "sys/devices/3").mkdir()
    (host / _DEVICES / _ONE).unlink()
    assert not tree.stands(before)
    (host / _DEVICES / _ONE).symlink_to("../../../devices/3")
    after = found(tree, "pci", "devices", _ONE, FLAVOUR)
    assert not tree.stands(before)
    assert tree.stands(after)
    assert after.number != before.number


def test_a_gone_device_has_no_files_any_more(host: Path) -> None:
    tree = Tree(host)
    device = found(tree, "pci", "devices", _ONE)
    shutil.rmtree(host / "sys/devices/1")
    assert tree.child(device, FLAVOUR, _BUSES) is None
    assert tree.children(device, _BUSES) == []


# --- numbers


def test_the_file_that_is_written_gets_a_new_number_at_each_look_and_shows_the_same(host: Path) -> None:
    tree, inodes = Tree(host), Inodes()
    node = found(tree, "pci", "devices", _ONE, FLAVOUR)
    numbers = [inodes.looked_up(node) for _ in range(3)]
    assert len({*numbers, node.number}) == 4
    assert {inodes[number].number for number in numbers} == {node.number}


@pytest.mark.parametrize("names", [("pci",), ("pci", "devices", _ONE), ("pci", "devices", _ONE, CANDIDATES)])
def test_all_others_keep_theirs(host: Path, names: tuple[str, ...]) -> None:
    tree, inodes = Tree(host), Inodes()
    node = found(tree, *names)
    assert {inodes.looked_up(node), inodes.looked_up(node), inodes.listed(node)} == {node.number}


def test_what_the_kernel_has_forgotten_is_forgotten(host: Path) -> None:
    tree, inodes = Tree(host), Inodes()
    flavour = found(tree, "pci", "devices", _ONE, FLAVOUR)
    error = found(tree, "pci", "devices", _ONE, ERROR)
    for _ in range(1000):
        inodes.forget(inodes.looked_up(flavour), 1)
        inodes.looked_up(error)
        inodes.listed(error)
    assert inodes[error.number] == error
    inodes.forget(error.number, 1999)
    assert inodes[error.number] == error
    inodes.forget(error.number, 1)
    assert len(inodes) == 1
    inodes.forget(ROOT.number, 1)
    assert inodes[ROOT.number] == ROOT, "it is always there"
