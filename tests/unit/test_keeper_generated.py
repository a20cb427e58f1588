# SPDX-License-Identifier: LGPL-2.1-or-later
"""To which devices udev's new rules are applied at once."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from flavourd.device import DeviceId
from flavourd.keeper import generated
from flavourd.keeper.generated import Generated
from flavourd.keeper.look import Eyes
from flavourd.policy.flavours import read_flavours
from flavourd.policy.language import DeviceNode, Match, PlacedRule, Policy, Rule
from flavourd.udevrules import UdevRules

from .conftest import Tree
from .test_keeper import _FLAVOURS

_KNOWN, _UNKNOWN, _NEW_KERNEL, _VF = (DeviceId("pci", f"0000:0{number}:00.0") for number in range(1, 5))
_NODE = DeviceNode(group="36")


class Udev:
    """`triggered`: what was asked of udevadm since it was last read. `looks`: processes that were started."""

    looks = 0

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root, self._triggered = root, list[list[str]]()
        monkeypatch.setattr(UdevRules, "reload", lambda _self: None)
        monkeypatch.setattr(generated, "_trigger", self._triggered.append)
        self.rules = Generated(root, self._look)

    def of(self, *rules: Rule) -> None:
        placed = tuple(PlacedRule(number, rule, "a.yaml", number) for number, rule in enumerate(rules))
        flavours = read_flavours(self._root)
        self.rules.of(Eyes.on(self._root, flavours, Policy(placed, ("a.yaml",))))

    def triggered(self, nodes: dict[DeviceId, DeviceNode]) -> list[list[str]]:
        self._triggered.clear()
        asyncio.run(self.rules.have(nodes))
        return [*self._triggered]

    async def _look(self, work: Callable[[], None]) -> None:
        self.looks += 1
        work()


@pytest.fixture
def udev(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Udev:
    place = "sys/devices/pci0000:00"
    devices = {
        f"sys/bus/pci/devices/{one.name}": f"-> ../../../devices/pci0000:00/{one.name}"
        for one in (_KNOWN, _UNKNOWN, _NEW_KERNEL)
    }
    directories = {f"{place}/{one.name}/vendor": "0x8086\n" for one in (_KNOWN, _UNKNOWN)}
    serials = {
        f"{place}/{_NEW_KERNEL.name}/serial_number": "00-80-ee-00-00-00-41-80\n",
        f"run/udev/data/+pci:{_KNOWN.name}": "E:FLAVOUR_SERIAL=00-80-ee-00-00-00-41-80\n",
    }
    root = tree({"etc/flavourd/flavours.yaml": _FLAVOURS, **devices, **directories, **serials})
    return Udev(root, monkeypatch)


def test_serial_numbers_are_asked_for_where_they_are_not_known_and_only_for_other_rules(udev: Udev) -> None:
    """To an admin's own rules another event is another request."""
    by_serial = Rule("vfio", match=Match(serial=("00-80-ee-00-00-00-41-80",)))
    udev.of(by_serial)
    assert udev.triggered({}) == [["--subsystem-match=pci", f"--sysname-match={_UNKNOWN.name}"]]
    nodes = ["--subsystem-match=vfio", "--subsystem-match=vfio-dev"]
    assert udev.triggered({_VF: _NODE}) == [nodes], "no device of the bus, for only nodes are others"
    assert udev.triggered({_VF: _NODE}) == []
    udev.of(by_serial, by_serial)
    assert udev.triggered({_VF: _NODE}) == [["--subsystem-match=pci", f"--sysname-match={_UNKNOWN.name}"]]
    assert udev.triggered({}) == [], "nothing is given to anybody any more"


def test_without_rules_by_serial_no_device_is_triggered(udev: Udev) -> None:
    udev.of(Rule("vfio"))
    assert udev.triggered({}) == []


def test_who_has_no_rules_and_no_files_starts_no_process(udev: Udev) -> None:
    udev.triggered({})
    assert udev.looks == 0
    udev.of(Rule("vfio", match=Match(vendor="8086")))
    udev.triggered({_VF: _NODE})
    udev.of()
    udev.triggered({})
    assert udev.looks == 2, "what it has written it takes away"
