# SPDX-License-Identifier: LGPL-2.1-or-later
"""Callers who ask about the policy while devices sleep, go with others, or are gone."""

import os
from pathlib import Path

import pytest

from flavourd.device import DeviceId
from flavourd.keeper.memories import Memories
from flavourd.policy import persisted
from flavourd.step import Step, What

from .conftest import Tree
from .test_ipc_manager import _GONE, _HELD, _NATIVE, Office, host, in_office
from .test_ipc_policies import _udev_is_left_alone, files, keeping, rule, write

__all__ = ["_udev_is_left_alone"]


def sleeps(root: Path, device: DeviceId) -> None:
    """Who reads its driver_override waits for ever."""
    override = root / f"sys/devices/pci0000:00/{device.name}/driver_override"
    override.unlink()
    os.mkfifo(override)


@pytest.mark.parametrize("state", ["stuck", "asleep", "in work"])
def test_the_difference_is_told_without_the_devices_at_which_nobody_can_look(tree: Tree, state: str) -> None:
    root = host(tree)
    sleeps(root, _HELD)

    async def test(office: Office) -> None:
        match state:
            case "stuck":
                office.desk.turns.stuck[_HELD] = None  # type: ignore[assignment]
            case "asleep":
                office.desk.sight._asleep.add(_HELD)
            case _:
                office.desk.turns.steps[_HELD] = Step(What.UNBINDING, "unbinding")
        write(root, rule(_NATIVE, more=", group: true"))  # the one that sleeps is in the group, too
        told = await office.told("DiffPolicy")
        assert [each["device"] for each in told["verdicts"]] == [str(_NATIVE)]
        assert told["unseen"] == [str(_HELD)]

    in_office(root, test)


def test_a_device_that_goes_with_its_group_is_matched_by_the_rule_of_the_other_member(tree: Tree) -> None:
    root = host(tree)
    write(root, rule(_NATIVE, more=", group: true, mode: observe"))

    async def test(office: Office) -> None:
        verdict = (await office.told("MatchPolicy", device=str(_HELD)))["verdict"]
        assert (verdict["rule"]["name"], verdict["flavour"], verdict["means"]) == ("mine", "vfio", "observed")
        assert "another member of its IOMMU group" in verdict["text"]
        write(root, rule(_NATIVE, more=", mode: observe"))
        verdict = (await office.told("MatchPolicy", device=str(_HELD)))["verdict"]
        assert (verdict["rule"], verdict["means"]) == (None, "none")

    keeping(root, test)


def test_that_nothing_is_known_of_a_member_that_sleeps_is_told(tree: Tree) -> None:
    root = host(tree)
    sleeps(root, _NATIVE)
    write(root, rule(_NATIVE, more=", group: true"))

    async def test(office: Office) -> None:
        office.desk.sight._asleep.add(_NATIVE)
        told = await office.told("MatchPolicy", device=str(_HELD))
        assert (told["error"], told["code"]) == ("Refused", "stuck")
        assert str(_NATIVE) in told["message"]

    in_office(root, test)


def test_a_list_finds_out_once_who_is_contested(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def contested(memories: object) -> list[DeviceId]:
        asked.append(memories)
        return [_NATIVE]

    async def test(office: Office) -> None:
        monkeypatch.setattr(Memories, "contested", property(contested))
        listed = (await office.told("List"))["devices"]
        assert [one["state"] for one in listed] == ["contested", None]
        assert len(asked) == 1

    in_office(host(tree), test)


# --- what was persisted for hardware that is gone


def test_the_file_of_hardware_that_is_gone_can_be_taken_away(tree: Tree) -> None:
    root = host(tree)
    name = persisted.file_name(_GONE)
    write(root, rule(_GONE), name)

    async def test(office: Office) -> None:
        for refused in ({"dry_run": True}, {"persist": False}):
            told = await office.told("Reset", **{"devices": [str(_GONE)], "persist": True, **refused})
            assert told["code"] == "no-device"
        told = await office.told("Set", devices=[str(_GONE)], flavour="vfio", persist=True)
        assert told["code"] == "no-device"
        assert files(root) == [name]

        told = await office.told("Reset", devices=[str(_NATIVE), str(_GONE)], persist=True)
        native, gone = told["outcomes"]
        assert (native["device"], native["kind"]) == (str(_NATIVE), "already")
        assert (gone["device"], gone["kind"], gone["flavour"]) == (str(_GONE), "already", "default")
        assert (gone["headline"], gone["notes"]) == (f"there is no device {_GONE}", [f"{name} is gone"])
        assert files(root) == []
        assert (await office.told("Status"))["policy"]["rules"] == 0
        assert (await office.told("Reset", devices=[str(_GONE)], persist=True))["code"] == "no-device"

    keeping(root, test)


def test_and_only_by_who_may(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = host(tree)
    monkeypatch.chdir(root)  # whose parents are for root alone
    write(root, rule(_GONE), persisted.file_name(_GONE))

    async def test(office: Office) -> None:
        own = os.geteuid()
        root.chmod(0o755)
        (root / "socket").chmod(0o666)
        office.house.path = Path("socket")
        try:
            if own == 0:
                os.seteuid(65534)
            caller = await office.house.caller()
        finally:
            os.seteuid(own)
        await caller.ask("io.flavourd.Manager.Reset", devices=[str(_GONE)], persist=True)
        reply = await caller.reply()
        assert reply
        assert reply["error"] == "io.flavourd.Manager.NotPermitted"
        assert files(root) == [persisted.file_name(_GONE)]

    keeping(root, test, may_change=False)
