# SPDX-License-Identifier: LGPL-2.1-or-later
"""udev's database, as systemd-udevd writes it."""

from flavourd.device import DeviceId
from flavourd.udevdb import UdevDatabase

from .conftest import Tree

_A = DeviceId("pci", "0000:01:00.0")


def test_properties_of_a_device_are_those_of_its_file(tree: Tree) -> None:
    text = "S:disk/x\nI:1234\nE:ID_MODEL=a=b\nE:EMPTY=\nE:BYTES=\udcff\u2028 c\nG:flavourd\nQ:flavourd\nV:1\n"
    words = UdevDatabase(tree({f"run/udev/data/+pci:{_A.name}": text})).properties(_A)
    assert words == {"ID_MODEL": "a=b", "EMPTY": "", "BYTES": "\N{REPLACEMENT CHARACTER}\u2028 c"}
    assert words["NO_SUCH_PROPERTY"] == ""


def test_a_device_without_a_file_has_no_properties(tree: Tree) -> None:
    for root in (tree({}), tree({"run/udev/data/": ""})):
        assert UdevDatabase(root).properties(_A) == {}


def test_tagged_are_the_devices_on_buses_by_name_and_neither_nodes_nor_interfaces(tree: Tree) -> None:
    names = [f"+pci:{_A.name}", "+platform:a:b", "+cdx:c0", "c8:1", "b8:0", "n3", "+", "+pci"]
    root = tree({f"run/udev/tags/flavourd/{name}": "" for name in names} | {"run/udev/tags/other/+pci:x": ""})
    assert list(UdevDatabase(root).tagged("flavourd")) == [
        DeviceId("cdx", "c0"),
        _A,
        DeviceId("platform", "a:b"),
    ]
    assert list(UdevDatabase(root).tagged("nobody-has-it")) == []
