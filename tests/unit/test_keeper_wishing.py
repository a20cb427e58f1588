# SPDX-License-Identifier: LGPL-2.1-or-later
"""When an explicit request is forgotten."""

from pathlib import Path

import pytest

from flavourd.device import DeviceId
from flavourd.keeper.wishing import Wishing
from flavourd.wishes import Wish, Wishes

from .conftest import Tree
from .test_keeper import _ONE, _TWO, At, Home, _udev_is_left_alone, at_home, pci, rule

__all__ = ["_udev_is_left_alone", "at_home"]
_GONE, _OTHER, _THERE = (DeviceId("pci", f"0000:0{number}:00.0") for number in range(3))


@pytest.mark.parametrize("each", [True, False])
def test_a_wish_goes_with_its_device_also_if_another_one_stands_there_now(tmp_path: Path, each: bool) -> None:
    wishes = Wishes(tmp_path)
    for device in (_GONE, _OTHER, _THERE):
        wishes.save(Wish(device, 7, "vfio", "", "varlink"))
    wishing = Wishing(tmp_path, {_GONE: 0, _OTHER: 8, _THERE: 7}.__getitem__)
    wishing.forget_gone([_GONE, _OTHER, _THERE] if each else None)
    assert list(wishes.devices()) == [_THERE]


@pytest.mark.parametrize("with_policy", [True, False])
def test_at_start_wishes_for_what_has_gone_meanwhile_are_forgotten(tree: Tree, at_home: At, with_policy: bool) -> None:
    tree(pci(_ONE))

    async def test(home: Home) -> None:
        wishes = Wishes(home.root)
        wishes.save(Wish(_TWO, 7, "default", "", "varlink"))
        wishes.save(Wish(_ONE, home.desk.host.sysfs.instance(_ONE), "default", "", "varlink"))
        home.write(*([rule(_ONE, "default")] if with_policy else []))
        await home.keeper.start()
        await home.quiet()
        assert list(wishes.devices()) == [_ONE]

    at_home(test)


def test_a_device_that_was_plugged_in_anew_before_its_removal_was_heard_has_none(tree: Tree, at_home: At) -> None:
    tree(pci(_ONE))

    async def test(home: Home) -> None:
        home.write(rule(_ONE, "default"))
        await home.keeper.start()
        await home.quiet()
        wishes = Wishes(home.root)
        wishes.save(Wish(_ONE, home.desk.host.sysfs.instance(_ONE) + 1, "vfio", "", "varlink"))
        home.keeper.heard([], [_ONE])
        assert list(wishes.devices()) == []

    at_home(test)
