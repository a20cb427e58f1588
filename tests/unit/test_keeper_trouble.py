# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the keeper does where something fails, or comes in between: nothing stays parked, nothing outlives its policy,
and nobody is blamed for what others were allowed to do.
"""

import asyncio
import os
from collections.abc import Callable

import pytest

from flavourd import logs
from flavourd.device import PARKED, DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.keeper import looking, memory, patience
from flavourd.keeper.keeper import Keeper
from flavourd.keeper.timers import Timers
from flavourd.outcome import Kind, Outcome
from flavourd.request import Origin, Request
from flavourd.step import Step
from flavourd.udevrules import UdevRules
from flavourd.verdict import Means

from .conftest import Tree
from .test_keeper import _ONE, _THREE, _TWO, At, Home, at_home, pci, rule

__all__ = ["at_home"]
_RULES = "run/udev/rules.d/85-flavourd-policy.rules"
_PARKED_ONE = pci(_ONE, "", PARKED) | {"sys/bus/pci/drivers_probe": "", _RULES: "of the early service\n"}


@pytest.fixture(autouse=True)
def _udev_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UdevRules, "reload", lambda _self: None)


@pytest.fixture(autouse=True)
def _nobody_waits_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSES", (0.001, 0.001))
    monkeypatch.setattr(looking, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(memory, "_FIRST_PAUSE", 0.001)


def is_parked(home: Home, device: DeviceId) -> bool:
    return PARKED in (home.root / f"sys/devices/pci0000:00/{device.name}/driver_override").read_text()


def listen(home: Home) -> list[tuple[DeviceId, str]]:
    """What is asked for from now on, which nobody carries out."""
    asked: list[tuple[DeviceId, str]] = []
    home.desk.ask = lambda requests: asked.extend((each.device, each.wanted) for each in requests)  # type: ignore[method-assign]
    return asked


# --- without a policy


@pytest.mark.parametrize("content", ["  - {flavor: vfio}\n", None])
def test_without_a_policy_that_can_be_used_nothing_stays_parked(tree: Tree, at_home: At, content: str | None) -> None:
    """The early service has parked it by a policy that is another one by now."""
    tree(_PARKED_ONE)

    async def test(home: Home) -> None:
        home.write(*([content] if content else []))
        await home.keeper.start()
        await home.quiet()
        assert not is_parked(home, _ONE)
        assert (home.root / "sys/bus/pci/drivers_probe").read_text() == _ONE.name
        assert not (home.root / _RULES).exists()
        assert home.means(_ONE) is None
        assert len(home.told) == (1 if content else 0)

    at_home(test)


def test_what_keeps_the_policy_from_being_read_may_pass(tree: Tree, at_home: At) -> None:
    tree(pci(_ONE, "vfio-pci", "vfio-pci"))

    async def test(home: Home) -> None:
        home.write(rule(_ONE))
        read, failures = home.keeper.force.on_disk, [Code.STUCK, Code.HOST]

        async def on_disk() -> object:
            if failures:
                raise FlavourError(failures.pop(), "not now")
            return await read()

        home.keeper.force.on_disk = on_disk  # type: ignore[method-assign, assignment]
        await home.keeper.start()
        await home.quiet()
        assert home.means(_ONE) is Means.SATISFIED
        assert home.told == []

    at_home(test)


def test_what_the_policy_had_asked_for_and_has_not_begun_is_not_done_by_another_policy(tree: Tree, at_home: At) -> None:
    devices = [DeviceId("pci", f"0000:{number:02x}:00.0") for number in range(1, 40)]
    for device in devices:
        tree(pci(device))

    async def test(home: Home) -> None:
        home.write('  - {flavour: vfio, match: {vendor: "8086"}}\n')
        await home.keeper.start()
        await home.keeper.settled()
        home.desk.ask([Request(devices[-1], "vfio", Origin.VARLINK)])
        assert home.desk.turns.waiting > 1
        home.write()
        await home.keeper.reload()
        assert home.desk.turns.waiting == 1, "what somebody has asked for himself"
        await home.quiet()
        assert len(home.answers) < len(devices)
        assert Code.WITHDRAWN not in {answer.code for answer in home.answers}

    at_home(test)


# --- what fails


def test_a_way_back_that_fails_is_tried_again(tree: Tree, at_home: At) -> None:
    tree(_PARKED_ONE | {"etc/flavourd/flavourd.yaml": "reconcile_seconds: 0\n"})

    async def test(home: Home) -> None:
        home.write(rule(_TWO))
        begin, failures = home.desk.turns._begin, [1, 2]

        def failing(*asked: object) -> object:
            if failures:
                failures.pop()
                raise OSError(12, os.strerror(12))
            return begin(*asked)  # type: ignore[arg-type]

        home.desk.turns._begin = failing  # type: ignore[assignment]
        await home.keeper.start()
        while is_parked(home, _ONE):
            await asyncio.sleep(0.001)
        await home.quiet()
        assert [answer.kind for answer in home.answers] == [Kind.REFUSED, Kind.SWITCHED], "the same is told once"

    at_home(test)


def test_a_look_that_fails_is_tried_again_before_anybody_hears_that_all_is_done(tree: Tree, at_home: At) -> None:
    tree(pci(_ONE, "vfio-pci", "vfio-pci") | pci(_TWO))

    async def test(home: Home) -> None:
        home.write(rule(_ONE))
        look_over, failures = home.desk.sight.look_over, [1, 2]

        async def failing(work: Callable[[], object]) -> object:
            if failures:
                failures.pop()
                raise FlavourError(Code.HOST, "no worker could be started")
            return await look_over(work)

        home.desk.sight.look_over = failing  # type: ignore[method-assign, assignment]
        await home.keeper.start()
        await home.quiet()
        assert home.means(_ONE) is Means.SATISFIED
        assert home.told == []
        failures += [1, 2, 3, 4, 5, 6, 7]
        home.keeper.memories.forget(_ONE)
        home.keeper.look()
        await home.keeper.settled()
        assert home.told[0][:2] == (Code.HOST, logs.WARNING)
        while home.means(_ONE) is None:
            await asyncio.sleep(0.001)

    at_home(test)


def test_a_device_that_sleeps_is_looked_at_when_it_wakes_and_keeps_nobody_waiting_until_then(
    tree: Tree, at_home: At
) -> None:
    tree(pci(_ONE, "vfio-pci", "vfio-pci") | pci(_TWO, "vfio-pci", "vfio-pci"))

    async def test(home: Home) -> None:
        home.write(rule(_ONE), rule(_TWO))
        home.desk.sight._asleep.add(_TWO)
        await home.keeper.start()
        await home.quiet()
        assert (home.means(_ONE), home.means(_TWO)) == (Means.SATISFIED, None)
        home.desk.sight._asleep.clear()
        while home.means(_TWO) is None:
            await asyncio.sleep(0.001)
        assert home.told == []

    at_home(test)


def test_who_was_refused_behind_one_that_is_stuck_is_tried_again_when_it_is_free(
    tree: Tree, at_home: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_FIRST_PAUSE", 0.3)
    tree(pci(_ONE) | {"etc/flavourd/flavourd.yaml": "reconcile_seconds: 0\n"})

    async def test(home: Home) -> None:
        home.write(rule(_ONE))
        asked = listen(home)
        await home.keeper.start()
        await home.quiet()
        request = Request(_ONE, "vfio", Origin.POLICY, rule="x")
        home.keeper.after(Outcome(request, Kind.REFUSED, "vfio", code=Code.KIN_STUCK))
        await home.quiet()
        assert asked == [(_ONE, "vfio")]
        home.keeper.after(Outcome(Request(_TWO, "vfio", Origin.VARLINK), Kind.UNDONE, "vfio", code=Code.BUSY))
        while len(asked) < 2:
            await asyncio.sleep(0.001)

    at_home(test)


# --- what comes in between


@pytest.mark.parametrize("ended", [True, False])
def test_an_explicit_switch_in_the_middle_of_a_look_is_nobodys_theft(tree: Tree, at_home: At, ended: bool) -> None:
    tree(pci(_ONE, "vfio-pci", "vfio-pci"))

    async def test(home: Home) -> None:
        home.write(rule(_ONE))
        await home.keeper.start()
        await home.quiet()
        look_at = home.desk.sight.look_at
        asked = listen(home)

        async def meanwhile(device: DeviceId, work: Callable[[], object]) -> object:
            home.desk.sight.look_at = look_at  # type: ignore[method-assign]
            home.becomes(_ONE, "", "(null)")
            found = await look_at(device, work)
            home.becomes(_ONE, "e1000e", "(null)")
            request = Request(_ONE, "default", Origin.VARLINK, instance=home.desk.host.sysfs.instance(_ONE))
            if ended:
                home.keeper.after(Outcome(request, Kind.SWITCHED, "default"))
            else:
                home.desk.turns.steps[_ONE] = Step("begun", "reading the device")  # type: ignore[arg-type]
            return found

        home.desk.sight.look_at = meanwhile  # type: ignore[method-assign, assignment]
        home.keeper.look([_ONE])
        await home.keeper.settled()
        if not ended:
            del home.desk.turns.steps[_ONE]
            request = Request(_ONE, "default", Origin.VARLINK, instance=home.desk.host.sysfs.instance(_ONE))
            home.keeper.after(Outcome(request, Kind.SWITCHED, "default"))
        await home.quiet()
        assert (home.told, asked, home.means(_ONE)) == ([], [], Means.LEFT)

    at_home(test)


def test_what_happens_all_the_time_does_not_put_the_look_off_for_ever() -> None:
    async def test() -> None:
        due: list[DeviceId | None] = []
        timers = Timers(asyncio.get_running_loop(), due.append)
        timers.within(0.05, _ONE)
        while not due:
            timers.within(0.05, _ONE)
            await asyncio.sleep(0.01)
        timers.within(3600, _ONE)
        timers.within(0.001, _ONE)
        while len(due) < 2:
            await asyncio.sleep(0.001)
        timers.within(0.001, None)
        timers.stop()
        await asyncio.sleep(0.01)
        assert due == [_ONE, _ONE]

    asyncio.run(asyncio.wait_for(test(), 60))


# --- what is only preferred or observed


def test_what_a_rule_prefers_is_not_done_again_by_a_daemon_that_starts_anew(tree: Tree, at_home: At) -> None:
    place = f"sys/devices/pci0000:00/{_ONE.name}"
    tree(pci(_ONE) | {f"{place}/sriov_totalvfs": "7\n", f"{place}/virtfn0": f"-> ../{_THREE.name}"})
    tree(pci(_TWO, "vfio-pci", "vfio-pci"))

    async def test(home: Home) -> None:
        home.write(rule(_ONE, "default", ", vfs: 1, mode: prefer"), rule(_TWO, more=", mode: prefer"))
        await home.keeper.start()
        await home.quiet()
        assert (home.means(_ONE), home.means(_TWO)) == (Means.SATISFIED, Means.SATISFIED)
        home.keeper.stop()
        (home.root / place / "virtfn0").unlink()
        home.becomes(_TWO, "e1000e", "(null)")

        async def means() -> list[Means]:
            again = Keeper(home.root, home.desk)
            await again.start()
            await again.settled()
            again.stop()
            return [again.memories.verdicts[device].means for device in (_ONE, _TWO)]

        listen(home)
        assert await means() == [Means.LEFT, Means.LEFT]
        home.write(rule(_ONE, "default", ", vfs: 2, mode: prefer"), rule(_TWO))
        assert await means() == [Means.CHANGE, Means.CHANGE], "that is another wish"

    at_home(test)


@pytest.mark.parametrize(
    ("more", "driver", "given"),
    [
        ("", "vfio-pci", True),
        ("", "e1000e", True),  # before it is switched
        (", mode: prefer", "vfio-pci", True),
        (", mode: observe", "vfio-pci", False),
        (", mode: observe", "e1000e", False),
        (", present: keep", "e1000e", False),
    ],
)
def test_nodes_are_given_away_only_where_the_rule_decides(
    tree: Tree, at_home: At, more: str, driver: str, given: bool
) -> None:
    tree(pci(_ONE, driver, driver if driver == "vfio-pci" else "(null)"))

    async def test(home: Home) -> None:
        listen(home)
        home.write(rule(_ONE, more=f'{more}, device-node: {{group: "36"}}'))
        await home.keeper.start()
        await home.quiet()
        assert (home.root / "run/udev/rules.d/86-flavourd-nodes.rules").exists() == given

    at_home(test)
