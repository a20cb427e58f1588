# SPDX-License-Identifier: LGPL-2.1-or-later
"""When the policy is looked at and what is asked for then; with a real desk and real workers, on devices that are where
they are to be, or are refused: what the kernel decides is tested in the virtual machine.
"""

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from dataclasses import replace

import pytest

from flavourd import logs
from flavourd.desk import Desk
from flavourd.device import PARKED, DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.keeper import memory
from flavourd.keeper.keeper import Keeper
from flavourd.outcome import Kind, Outcome
from flavourd.request import Origin, Request
from flavourd.udevrules import UdevRules
from flavourd.verdict import Means
from flavourd.wishes import Wish, Wishes

from .conftest import Tree

_DEADLINE = 60
_ONE, _TWO, _THREE = (DeviceId("pci", f"0000:0{number}:00.0") for number in (1, 2, 3))
_FLAVOURS = """
flavours:
  vfio:
    description: for virtual machines
    proof: vfio-dev
    buses:
      pci: {alias_prefix: vfio_pci, needs_iommu_group: true, universal: {module: vfio_pci, driver: vfio-pci}}
"""
# Nothing of the flavour takes a device without an IOMMU group.
_REFUSED = (Kind.REFUSED, Code.NO_IOMMU_GROUP)


def pci(device: DeviceId, driver: str = "e1000e", override: str = "(null)", vendor: str = "8086") -> dict[str, str]:
    place = f"sys/devices/pci0000:00/{device.name}"
    held = {f"{place}/vfio-dev/vfio0/": ""} if driver == "vfio-pci" else {}
    bound = {f"{place}/driver": f"-> ../../../bus/pci/drivers/{driver}"} if driver else {}
    return {
        f"sys/bus/pci/devices/{device.name}": f"-> ../../../devices/pci0000:00/{device.name}",
        f"{place}/subsystem": "-> ../../../bus/pci",
        f"{place}/driver_override": f"{override}\n",
        f"{place}/modalias": "pci:x\n",
        f"{place}/vendor": f"0x{vendor}\n",
        f"{place}/device": "0x10d3\n",
        **held,
        **bound,
    }


def rule(device: DeviceId, flavour: str = "vfio", more: str = "") -> str:
    return f'  - {{flavour: {flavour}, match: {{address: "{device.name}"}}{more}}}\n'


class Home:
    """A desk and a keeper of its policy. `answers`: all outcomes, `told`: what was told beside them."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.root = tree({"etc/flavourd/flavours.yaml": _FLAVOURS, "proc/": "", "dev/": "", "sys/bus/pci/drivers/": ""})
        self.answers: list[Outcome] = []
        self.told: list[tuple[Code, int, str]] = []
        self.desk = Desk(self.root, _DEADLINE, lambda _asked, _step: None, self.answers.append)
        self.desk.host.journal.prepare()
        self.keeper = Keeper(self.root, self.desk)
        self.desk.ended = self.keeper.after

    def write(self, *rules: str) -> None:
        self._tree({"etc/flavourd/policy.d/a.yaml": "rules:\n" + "".join(rules) if rules else ""})
        for path in ("etc/flavourd/policy.d", "etc/flavourd/policy.d/a.yaml"):
            (self.root / path).chmod(0o755)

    async def quiet(self) -> None:
        while True:
            await self.keeper.settled()
            await self.desk.turns.all_answered()
            if self.keeper.idle:
                return

    def outcomes(self) -> list[tuple[DeviceId, str, Kind, Code | None]]:
        found = [(each.request.device, each.request.wanted, each.kind, each.code) for each in self.answers]
        self.answers.clear()
        return found

    def means(self, device: DeviceId) -> Means | None:
        verdict = self.keeper.memories.verdicts.get(device)
        return verdict.means if verdict else None

    def becomes(self, device: DeviceId, driver: str, override: str) -> None:
        """Somebody rebinds the device."""
        place = self.root / f"sys/devices/pci0000:00/{device.name}"
        (place / "driver").unlink(missing_ok=True)
        shutil.rmtree(place / "vfio-dev", ignore_errors=True)
        (place / "driver_override").write_text(f"{override}\n", encoding="ascii")
        if driver:
            (place / "driver").symlink_to(f"../../../bus/pci/drivers/{driver}")
        if driver == "vfio-pci":
            (place / "vfio-dev/vfio0").mkdir(parents=True)

    def asked(self, device: DeviceId, wanted: str, origin: Origin = Origin.VARLINK) -> None:
        """Somebody asks for it, and it is there already."""
        self.desk.ask([Request(device, wanted, origin)])


@pytest.fixture(autouse=True)
def _udev_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UdevRules, "reload", lambda _self: None)


@pytest.fixture
def at_home(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Home], Coroutine[None, None, None]]], None]:
    def run(test: Callable[[Home], Coroutine[None, None, None]]) -> None:
        unforeseen: list[object] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: unforeseen.append(context))
            home = Home(tree)

            def tell(error: FlavourError, priority: int = logs.ERROR, _fields: object = None) -> None:
                if error.code is not Code.INDEX_UNREADABLE:  # the tree has no modules
                    home.told.append((error.code, priority, str(error)))

            monkeypatch.setattr(logs, "tell_trouble", tell)
            await asyncio.wait_for(test(home), _DEADLINE)
            home.keeper.stop()
            await home.quiet()

        asyncio.run(main())
        assert unforeseen == [], f"the daemon would have ended: {unforeseen}"

    return run


At = Callable[[Callable[[Home], Coroutine[None, None, None]]], None]


# --- at start


def test_at_start_what_is_not_as_the_policy_says_is_asked_for_and_nothing_else_is_touched(
    tree: Tree, at_home: At
) -> None:
    tree(pci(_ONE) | pci(_TWO, "vfio-pci", "vfio-pci") | pci(_THREE))

    async def test(home: Home) -> None:
        home.write(rule(_ONE), rule(_TWO))
        await home.keeper.start()
        await home.quiet()
        (answer,) = home.answers
        assert (answer.request.device, answer.request.origin, answer.kind, answer.code) == (
            _ONE,
            Origin.POLICY,
            *_REFUSED,
        )
        assert answer.request.rule == f"{home.root}/etc/flavourd/policy.d/a.yaml:2"
        assert [home.means(device) for device in (_ONE, _TWO, _THREE)] == [Means.CHANGE, Means.SATISFIED, None]
        assert "flavourd" in (home.root / "run/udev/rules.d/85-flavourd-policy.rules").read_text()

    at_home(test)


def test_without_a_policy_nothing_is_looked_at_and_no_rules_are_made(tree: Tree, at_home: At) -> None:
    tree(pci(_ONE))

    async def test(home: Home) -> None:
        await home.keeper.start()
        await home.quiet()
        home.keeper.heard([(_ONE, "add")], [_TWO])
        assert home.keeper.idle
        assert (home.answers, home.told, home.desk.kept) == ([], [], None)
        assert not (home.root / "run/udev/rules.d").exists()

    at_home(test)


def test_a_policy_that_cannot_be_used_is_told_and_the_daemon_serves(tree: Tree, at_home: At) -> None:
    tree(pci(_ONE))

    async def test(home: Home) -> None:
        home.write("  - {flavor: vfio}\n")
        await home.keeper.start()
        await home.quiet()
        ((code, priority, text),) = home.told
        assert (code, priority) == (Code.POLICY, logs.ERROR)
        assert "a.yaml:2:6" in text
        assert home.keeper.force.error
        assert home.keeper.force.since is None
        home.write(rule(_ONE))
        await home.keeper.reload()
        await home.quiet()
        assert home.outcomes() == [(_ONE, "vfio", *_REFUSED)]
        assert home.keeper.force.error is None

    at_home(test)


def test_what_was_there_at_start_is_present_and_what_comes_later_inserted(tree: Tree, at_home: At) -> None:
    tree(pci(_ONE))

    async def test(home: Home) -> None:
        home.write('  - {flavour: vfio, match: {vendor: "8086"}, present: keep}\n')
        await home.keeper.start()
        await home.quiet()
        tree(pci(_TWO))
        home.keeper.heard([(_TWO, "add")], [])
        await home.quiet()
        assert (home.means(_ONE), home.means(_TWO)) == (Means.KEPT, Means.CHANGE)
        assert home.outcomes() == [(_TWO, "vfio", *_REFUSED)]

    at_home(test)


# --- reload


def test_a_broken_policy_leaves_the_good_one_in_force(tree: Tree, at_home: At) -> None:
    tree(pci(_ONE))

    async def test(home: Home) -> None:
        home.write(rule(_ONE, more=", mode: observe"))
        await home.keeper.start()
        home.write("  - {flavour: vfoi}\n")
        with pytest.raises(FlavourError, match="vfoi"):
            await home.keeper.reload()
        await home.quiet()
        assert len(home.keeper.force.policy.rules) == 1
        assert home.keeper.force.error
        assert home.means(_ONE) is Means.OBSERVED

    at_home(test)


def test_a_device_that_no_rule_matches_any_more_is_left_and_forgotten(tree: Tree, at_home: At) -> None:
    tree(pci(_ONE, "vfio-pci", "vfio-pci"))

    async def test(home: Home) -> None:
        home.write(rule(_ONE))
        await home.keeper.start()
        await home.quiet()
        assert home.means(_ONE) is Means.SATISFIED
        for rules in ([rule(_TWO)], []):
            home.write(*rules)
            await home.keeper.reload()
            await home.quiet()
            assert home.means(_ONE) is None
        assert home.answers == []
        assert not (home.root / "run/udev/rules.d/85-flavourd-policy.rules").exists()

    at_home(test)


def test_what_failed_is_tried_again_when_the_policy_is_read_anew_and_told_once(tree: Tree, at_home: At) -> None:
    tree(pci(_ONE))

    async def test(home: Home) -> None:
        home.write(rule(_ONE))
        await home.keeper.start()
        await home.quiet()
        heard: list[Outcome] = []

        def ended(outcome: Outcome) -> None:
            heard.append(outcome)
            home.keeper.after(outcome)

        home.desk.ended = ended
        home.keeper.look([_ONE])
        await home.quiet()
        assert heard == [], "it is too early"
        await home.keeper.reload()
        await home.quiet()
        assert [outcome.code for outcome in heard] == [Code.NO_IOMMU_GROUP]
        assert home.outcomes() == [(_ONE, "vfio", *_REFUSED)], "told once"

    at_home(test)


# --- others


def test_who_changes_a_device_is_told_of_and_it_is_mended_after_a_pause(tree: Tree, at_home: At) -> None:
    tree(pci(_ONE, "vfio-pci", "vfio-pci"))

    async def test(home: Home) -> None:
        home.write(rule(_ONE))
        await home.keeper.start()
        await home.quiet()
        tree({"etc/driverctl.d/pci-0000:01:00.0": "e1000e\n"})
        home.becomes(_ONE, "e1000e", "e1000e")
        home.keeper.look([_ONE])
        await home.quiet()
        ((code, priority, text),) = home.told
        assert (code, priority) == (Code.CONTESTED, logs.WARNING)
        for words in (str(_ONE), "driver e1000e has it now", "driver_override says e1000e", "driverctl", "a.yaml:2"):
            assert words in text
        assert home.answers == []
        while not home.answers:
            await asyncio.sleep(0.01)
        assert home.outcomes() == [(_ONE, "vfio", *_REFUSED)]
        assert len(home.told) == 1

    at_home(test)


def test_events_of_a_device_have_it_looked_at_and_the_slow_timer_needs_none(tree: Tree, at_home: At) -> None:
    tree(pci(_ONE, "vfio-pci", "vfio-pci") | {"etc/flavourd/flavourd.yaml": "reconcile_seconds: 1\n"})

    async def test(home: Home) -> None:
        home.write(rule(_ONE))
        await home.keeper.start()
        await home.quiet()
        home.becomes(_ONE, "e1000e", "(null)")
        while not home.told:  # nobody has heard of it
            await asyncio.sleep(0.01)
        assert home.told[0][0] is Code.CONTESTED
        home.becomes(_ONE, "vfio-pci", "vfio-pci")
        home.desk.settings = replace(home.desk.settings, reconcile_seconds=0)
        await home.keeper.reload()
        await home.quiet()
        home.told.clear()
        home.becomes(_ONE, "e1000e", "(null)")
        home.keeper.heard([(_ONE, "unbind"), (_ONE, "bind")], [])
        while not home.told:
            await asyncio.sleep(0.01)

    at_home(test)


def test_whoever_changes_it_again_and_again_has_it_in_the_end_and_that_is_told_once(
    tree: Tree, at_home: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_FIRST_PAUSE", 0.001)
    tree(pci(_ONE, "vfio-pci", "vfio-pci"))

    async def test(home: Home) -> None:
        home.write(rule(_ONE))
        await home.keeper.start()
        await home.quiet()
        for _ in range(5):
            home.becomes(_ONE, "e1000e", "(null)")
            home.keeper.look([_ONE])
            await home.quiet()
            home.becomes(_ONE, "vfio-pci", "vfio-pci")
            home.keeper.look([_ONE])
            await home.quiet()
        home.becomes(_ONE, "e1000e", "(null)")
        home.answers.clear()
        for devices in ([_ONE], None):
            home.keeper.look(devices)
            await home.quiet()
        assert home.keeper.memories.contested == [_ONE]
        assert home.answers == []
        assert [priority for _, priority, _ in home.told].count(logs.ERROR) == 1
        assert home.told[-1][0] is Code.CONTESTED

        home.becomes(_ONE, "vfio-pci", "vfio-pci")
        home.asked(_ONE, "vfio")
        await home.quiet()
        assert home.keeper.memories.contested == []
        assert home.means(_ONE) is Means.SATISFIED

    at_home(test)


def test_who_comes_in_between_while_a_device_is_switched_counts_too(tree: Tree, at_home: At) -> None:
    tree(pci(_ONE))

    async def test(home: Home) -> None:
        home.write(rule(_ONE))
        await home.keeper.start()
        await home.quiet()
        request = home.answers[0].request
        for _ in range(5):
            home.keeper.after(Outcome(request, Kind.UNDONE, "vfio", code=Code.CONTESTED))
        await home.quiet()
        assert home.keeper.memories.contested == [_ONE]
        assert [(code, priority) for code, priority, _ in home.told] == [(Code.CONTESTED, logs.ERROR)]

    at_home(test)


def test_what_is_only_preferred_is_left_to_who_changed_it_even_when_the_policy_is_read_anew(
    tree: Tree, at_home: At
) -> None:
    tree(pci(_ONE, "vfio-pci", "vfio-pci"))

    async def test(home: Home) -> None:
        home.write(rule(_ONE, more=", mode: prefer"))
        await home.keeper.start()
        await home.quiet()
        home.becomes(_ONE, "e1000e", "(null)")
        for _ in range(2):
            await home.keeper.reload()
            await home.quiet()
        assert home.means(_ONE) is Means.LEFT
        ((code, _, text),) = home.told
        assert code is Code.CONTESTED
        assert "left" in text
        assert home.answers == []

    at_home(test)


def test_an_explicit_request_that_came_true_wins_until_the_device_is_another(tree: Tree, at_home: At) -> None:
    tree(pci(_ONE))

    async def test(home: Home) -> None:
        home.asked(_ONE, "default", Origin.UEVENT)
        await home.quiet()
        home.write(rule(_ONE))
        await home.keeper.start()
        await home.quiet()
        assert home.means(_ONE) is Means.LEFT
        assert home.outcomes() == [(_ONE, "default", Kind.ALREADY, None)]
        again = Keeper(home.root, home.desk)
        await again.start()
        await again.settled()
        assert again.memories.verdicts[_ONE].means is Means.LEFT, "also after a restart"
        again.stop()
        shutil.rmtree(home.root / f"sys/devices/pci0000:00/{_ONE.name}")
        (home.root / f"sys/bus/pci/devices/{_ONE.name}").unlink()
        home.keeper.heard([], [_ONE])
        assert list(Wishes(home.root).devices()) == []
        assert home.means(_ONE) is None

    at_home(test)


def test_a_request_that_failed_is_no_wish(tree: Tree, at_home: At) -> None:
    tree(pci(_ONE))

    async def test(home: Home) -> None:
        home.asked(_ONE, "vfio")
        await home.quiet()
        assert list(Wishes(home.root).devices()) == []

    at_home(test)


def test_what_the_policy_asked_for_is_no_wish(tree: Tree, at_home: At) -> None:
    tree(pci(_ONE))

    async def test(home: Home) -> None:
        home.desk.ask([Request(_ONE, "default", Origin.POLICY)])
        await home.quiet()
        assert list(Wishes(home.root).devices()) == []

    at_home(test)


def test_a_wish_of_a_device_that_stood_there_before_does_not_count(tree: Tree, at_home: At) -> None:
    tree(pci(_ONE))

    async def test(home: Home) -> None:
        Wishes(home.root).save(Wish(_ONE, 1, "default", "", ""))
        home.write(rule(_ONE))
        await home.keeper.start()
        await home.quiet()
        assert home.means(_ONE) is Means.CHANGE

    at_home(test)


# --- what is refused before it is asked for


def test_other_hardware_than_expected_is_told_once_and_left_alone(tree: Tree, at_home: At) -> None:
    tree(pci(_ONE))

    async def test(home: Home) -> None:
        home.write(rule(_ONE, more=', expect: {vendor: "10de"}'), '  - {flavour: vfio, match: {vendor: "8086"}}\n')
        await home.keeper.start()
        await home.quiet()
        home.keeper.look()
        await home.quiet()
        ((code, _, text),) = home.told
        assert code is Code.UNEXPECTED
        assert "10de" in text
        assert home.answers == []

    at_home(test)


def test_a_rule_that_would_change_too_many_changes_none(tree: Tree, at_home: At) -> None:
    tree(pci(_ONE) | pci(_TWO))

    async def test(home: Home) -> None:
        home.write('  - {flavour: vfio, match: {vendor: "8086"}, max-changes: 1}\n')
        await home.keeper.start()
        await home.quiet()
        assert [code for code, _, _ in home.told] == [Code.MAX_CHANGES]
        assert home.answers == []

    at_home(test)


def test_the_endpoints_of_a_group_go_together_though_a_rule_is_for_one_of_them(tree: Tree, at_home: At) -> None:
    members = {
        f"sys/kernel/iommu_groups/7/devices/{one.name}": f"-> ../../../../devices/pci0000:00/{one.name}"
        for one in (_ONE, _TWO)
    }
    links = {
        f"sys/devices/pci0000:00/{one.name}/iommu_group": "-> ../../../kernel/iommu_groups/7" for one in (_ONE, _TWO)
    }
    tree(pci(_ONE) | pci(_TWO) | members | links)

    async def test(home: Home) -> None:
        asked: list[list[DeviceId]] = []
        home.desk.ask = lambda requests: asked.append([request.device for request in requests])  # type: ignore[method-assign]
        home.write(rule(_ONE, more=", group: true"))
        await home.keeper.start()
        await home.quiet()
        assert asked == [[_ONE, _TWO]]
        home.write(rule(_ONE, more=", group: true"), rule(_TWO, "default"))
        await home.keeper.reload()
        await home.quiet()
        assert asked == [[_ONE, _TWO]]
        assert [code for code, _, _ in home.told] == [Code.TOGETHER]

    at_home(test)


# --- parked


def test_what_is_parked_and_does_not_get_its_flavour_gets_its_native_driver_back(tree: Tree, at_home: At) -> None:
    tree(pci(_ONE, "", PARKED) | pci(_TWO, "", PARKED) | pci(_THREE, "", PARKED))

    async def test(home: Home) -> None:
        asked: list[tuple[DeviceId, str]] = []
        home.desk.ask = lambda requests: asked.extend((each.device, each.wanted) for each in requests)  # type: ignore[method-assign]
        home.write(rule(_ONE), rule(_TWO, more=", mode: observe"))
        await home.keeper.start()
        await home.quiet()
        assert sorted(asked) == [(_ONE, "vfio"), (_TWO, "default"), (_THREE, "default")]

    at_home(test)


# --- SR-IOV


def test_vfs_that_have_been_made_are_looked_at_with_the_answer(tree: Tree, at_home: At) -> None:
    tree(pci(_ONE) | {f"sys/devices/pci0000:00/{_ONE.name}/sriov_totalvfs": "7\n"})

    async def test(home: Home) -> None:
        home.write(rule(_TWO))
        await home.keeper.start()
        await home.quiet()
        tree(pci(_TWO, "") | {f"sys/devices/pci0000:00/{_ONE.name}/virtfn0": f"-> ../{_TWO.name}"})
        home.asked(_ONE, "default")
        await home.quiet()
        assert home.outcomes()[1:] == [(_TWO, "vfio", *_REFUSED)]
        assert home.desk.kept
        assert home.desk.kept(_TWO)
        assert not home.desk.kept(_ONE)

    at_home(test)
