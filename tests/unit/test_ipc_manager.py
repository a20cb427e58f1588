# SPDX-License-Identifier: LGPL-2.1-or-later
"""The methods of io.flavourd.Manager over a real socket, with real workers, on devices of which nothing is to be
switched: held already, or refused. What the kernel decides is tested in the virtual machine.
"""

import asyncio
import fcntl
import grp
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from asyncvarlink import VarlinkInterfaceRegistry
from asyncvarlink.serviceinterface import VarlinkServiceInterface

from flavourd import __version__
from flavourd.desk import Desk
from flavourd.device import DeviceId
from flavourd.ipc import wire
from flavourd.ipc.call import Peer
from flavourd.ipc.feed import Feed
from flavourd.ipc.history import History
from flavourd.ipc.manager import Manager
from flavourd.keeper.keeper import Keeper
from flavourd.request import Origin, Request
from flavourd.survey import Survey

from .conftest import Tree
from .house import Caller, House, live

_NATIVE, _HELD, _GONE = (DeviceId("pci", f"0000:0{number}:00.0") for number in (1, 2, 9))
_FLAVOURS = """
flavours:
  vfio:
    description: for virtual machines
    proof: vfio-dev
    buses:
      pci: {alias_prefix: vfio_pci, needs_iommu_group: true, universal: {module: vfio_pci, driver: vfio-pci}}
"""


def pci(device: DeviceId, driver: str) -> dict[str, str]:
    place = f"sys/devices/pci0000:00/{device.name}"
    return {
        f"sys/bus/pci/devices/{device.name}": f"-> ../../../devices/pci0000:00/{device.name}",
        f"{place}/subsystem": "-> ../../../bus/pci",
        f"{place}/driver": f"-> ../../../bus/pci/drivers/{driver}",
        f"{place}/driver_override": "(null)\n",
        f"{place}/modalias": "pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00\n",
        f"{place}/iommu_group": "-> ../../../kernel/iommu_groups/7",
        f"sys/kernel/iommu_groups/7/devices/{device.name}": f"-> ../../../../devices/pci0000:00/{device.name}",
    }


def host(tree: Tree, settings: str = "access: {}") -> Path:
    return tree(
        pci(_NATIVE, "e1000e")
        | pci(_HELD, "vfio-pci")
        | {f"sys/devices/pci0000:00/{_HELD.name}/vfio-dev/vfio0/": ""}
        | {"proc/1/fd/": "", "proc/1/task/1/": ""}  # all processes can be seen
        | {"etc/flavourd/flavours.yaml": _FLAVOURS, "etc/flavourd/flavourd.yaml": settings}
    )


def called_by(uid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever calls from now on counts as this user, in our own group."""
    monkeypatch.setattr(Peer, "of", lambda _connection: Peer(os.getpid(), uid, frozenset({os.getegid()})))


class Office:
    """Desk, feed, history and door, put together as the service does."""

    def __init__(self, root: Path, house: House, deadline: float) -> None:
        self.house, self.feed, self.history = house, Feed(), History(root)
        self.desk = Desk(
            root, deadline, lambda asked, step: self.feed.publish(wire.Step.of(asked, step)), self._answered
        )
        self.desk.host.journal.prepare()
        self.keeper = Keeper(root, self.desk)
        self.desk.ended = self.keeper.after
        registry: VarlinkInterfaceRegistry = house.registry
        registry.register_interface(
            VarlinkServiceInterface("flavourd", "flavourd", "1", "https://varlink.org", registry)
        )
        registry.register_interface(
            Manager(
                self.desk, self.keeper, self.feed, self.history, Survey(root), lambda: True, lambda: house.door.count
            )
        )

    def _answered(self, outcome: Any) -> None:
        told = wire.Outcome.of(outcome)
        self.history.add(told)
        self.feed.publish(told)

    async def ask(self, method: str, **rest: Any) -> Caller:
        caller = await self.house.caller()
        await caller.ask(f"io.flavourd.Manager.{method}", **rest)
        return caller

    async def told(self, method: str, **rest: Any) -> dict[str, Any]:
        """The one reply to a call; an error as {"error": name, …parameters}."""
        reply = await (await self.ask(method, **rest)).reply()
        assert reply is not None
        error = {"error": reply["error"].rpartition(".")[2]} if "error" in reply else {}
        return error | dict(reply.get("parameters", {}))


def in_office(
    root: Path,
    test: Callable[[Office], Coroutine[None, None, None]],
    may_change: bool = True,
    deadline: float = 60.0,
) -> None:
    async def inner(house: House) -> None:
        async with office(root, house, may_change, deadline) as made:
            await test(made)

    live(root, inner)


@asynccontextmanager
async def office(root: Path, house: House, may_change: bool, deadline: float) -> AsyncIterator[Office]:
    made = Office(root, house, deadline)
    if may_change:
        made.desk.changers = frozenset({os.getegid()})
    yield made
    await made.desk.turns.all_answered()


def test_all_devices_are_listed_with_flavour_and_state(tree: Tree) -> None:
    async def test(office: Office) -> None:
        devices = (await office.told("List"))["devices"]
        assert [(one["id"], one["flavour"], one["driver"], one["state"]) for one in devices] == [
            (str(_NATIVE), "default", "e1000e", None),
            (str(_HELD), "vfio", "vfio-pci", None),
        ]

    in_office(host(tree), test)


def test_callers_who_come_while_a_list_is_made_share_the_next_one(tree: Tree) -> None:
    async def test(office: Office) -> None:
        callers = [await office.ask("List") for _ in range(50)]
        replies = [await caller.reply() for caller in callers]
        assert all(reply == replies[0] for reply in replies)

    in_office(host(tree), test)


def test_a_device_is_described_by_any_of_its_names(tree: Tree) -> None:
    async def test(office: Office) -> None:
        for name in (str(_NATIVE), _NATIVE.name, "01:00.0"):
            told = await office.told("Describe", device=name)
            assert told["device"]["id"] == str(_NATIVE)
            assert told["members"] == [str(_NATIVE), str(_HELD)]
            assert (told["override"], told["record"], told["last"]) == (None, None, None)

    in_office(host(tree), test)


@pytest.mark.parametrize(
    ("method", "name", "code"),
    [
        (method, name, code)
        for method in ("Describe", "Explain")
        for name, code in ((str(_GONE), "no-device"), ("nonsense", "bad-name"), ("x/../..", "bad-name"))
    ],
)
def test_who_asks_about_what_is_no_device_is_refused(tree: Tree, method: str, name: str, code: str) -> None:
    async def test(office: Office) -> None:
        told = await office.told(method, device=name)
        assert (told["error"], told["code"]) == ("Refused", code)

    in_office(host(tree), test)


def test_without_a_flavour_every_one_is_explained(tree: Tree) -> None:
    async def test(office: Office) -> None:
        plans = (await office.told("Explain", device=str(_NATIVE)))["plans"]
        assert [(one["flavour"], one["kind"], one["driver"]) for one in plans] == [
            ("vfio", "switch", "e1000e"),
            ("default", "already", "e1000e"),
        ]
        (refused,) = (await office.told("Explain", device=str(_NATIVE), flavour="no"))["plans"]
        assert (refused["kind"], refused["code"]) == ("refused", "unknown-flavour")

    in_office(host(tree), test)


def test_a_dry_run_has_plans_for_all_devices_and_is_for_everybody(tree: Tree) -> None:
    async def test(office: Office) -> None:
        office.desk.changers = frozenset()
        told = await office.told("Set", devices=[str(_HELD), str(_NATIVE)], flavour="vfio", dry_run=True)
        assert [(one["device"], one["kind"]) for one in told["plans"]] == [
            (str(_HELD), "already"),
            (str(_NATIVE), "switch"),
        ]
        assert told["outcomes"] is None
        assert office.history.last(1) == []

    in_office(host(tree), test, may_change=False)


def test_setting_tells_each_step_and_outcome_and_in_the_end_all_of_them(tree: Tree) -> None:
    async def test(office: Office) -> None:
        caller = await office.ask("Set", more=True, devices=[str(_HELD), _HELD.name], flavour="vfio")
        replies: list[dict[str, Any]] = []
        while not replies or replies[-1].get("continues"):
            reply = await caller.reply()
            assert reply
            replies.append(reply)
        steps = [reply["parameters"]["step"]["what"] for reply in replies if reply["parameters"]["step"]]
        assert steps == ["waiting", "begun"]
        (outcome,) = replies[-1]["parameters"]["outcomes"]
        assert replies[-2]["parameters"]["outcomes"] == [outcome]
        assert (outcome["kind"], outcome["proof"], outcome["origin"]) == ("already", ["vfio0"], "varlink")
        assert outcome["asker"] == f"uid {os.geteuid()}, pid {os.getpid()}"
        assert (await office.told("History"))["outcomes"] == [outcome]
        assert (await office.told("Describe", device=str(_HELD)))["last"] == outcome

    in_office(host(tree), test)


def test_what_root_asks_on_behalf_of_another_bears_his_name_and_counts_as_asked_by_the_attribute(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    called_by(0, monkeypatch)

    async def test(office: Office) -> None:
        asker = "uid 1000, pid 4242"
        told = await office.told("Set", devices=[str(_HELD)], flavour="vfio", behalf=asker)
        (outcome,) = told["outcomes"]
        assert (outcome["kind"], outcome["origin"], outcome["asker"]) == ("already", "attribute", asker)
        told = await office.told("Set", devices=[str(_HELD)], flavour="no", behalf=asker)
        (outcome,) = told["outcomes"]
        assert (outcome["code"], outcome["origin"], outcome["asker"]) == ("unknown-flavour", "attribute", asker)

    in_office(host(tree), test)


@pytest.mark.parametrize("behalf", ["", "x" * 201, "a\nb", "a\x00", "\ud800"])
def test_who_is_asked_for_is_named_in_one_short_line(tree: Tree, behalf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called_by(0, monkeypatch)

    async def test(office: Office) -> None:
        told = await office.told("Set", devices=[str(_HELD)], flavour="vfio", behalf=behalf)
        assert (told["error"], told["code"]) == ("Refused", "bad-name")
        assert office.history.last(1) == []
        told = await office.told("Set", devices=[str(_HELD)], flavour="vfio", behalf="x" * 200)
        assert [one["asker"] for one in told["outcomes"]] == ["x" * 200]

    in_office(host(tree), test)


def test_who_may_change_and_is_not_root_may_ask_on_behalf_of_nobody(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = host(tree)
    called_by(1000, monkeypatch)

    async def test(office: Office) -> None:
        told = await office.told("Set", devices=[str(_HELD)], flavour="vfio", behalf="uid 0, pid 1")
        assert (told["error"], told["code"]) == ("NotPermitted", "not-permitted")
        assert office.history.last(1) == []
        told = await office.told("Set", devices=[str(_HELD)], flavour="vfio")
        assert [(one["origin"], one["asker"]) for one in told["outcomes"]] == [
            ("varlink", f"uid 1000, pid {os.getpid()}")
        ]

    in_office(root, test)


def test_a_set_that_one_device_refuses_is_not_done_and_tells_every_outcome(tree: Tree) -> None:
    root = host(tree)
    (root / f"sys/devices/pci0000:00/{_NATIVE.name}/secondary_bus_number").write_text("1\n")  # a bridge

    async def test(office: Office) -> None:
        told = await office.told("Set", devices=[str(_HELD), str(_NATIVE)], flavour="vfio")
        assert (told["error"], told["code"]) == ("NotDone", "bridge")
        assert {one["device"]: one["kind"] for one in told["outcomes"]} == {
            str(_HELD): "already",
            str(_NATIVE): "refused",
        }
        assert told["message"] and told["hint"]

    in_office(root, test)


@pytest.mark.parametrize(
    ("flavour", "error"),
    [("no", "NotDone"), ("", "NotDone"), ("\ud800", "Refused"), ("x" * 10_000, "Refused"), ("vfio\n", "Refused")],
)
def test_whatever_is_asked_for_is_refused_and_what_was_begun_is_ended(tree: Tree, flavour: str, error: str) -> None:
    """What no flavour can be called by does not even begin: history and journal would carry it."""
    root = host(tree)

    async def test(office: Office) -> None:
        told = await office.told("Set", devices=[str(_NATIVE)], flavour=flavour)
        assert told["error"] == error
        assert len(office.history.last(9)) == (error == "NotDone")
        assert list((root / "run/flavourd/begun").iterdir()) == []

    in_office(root, test)


def test_a_set_with_a_device_that_is_not_there_touches_none(tree: Tree) -> None:
    async def test(office: Office) -> None:
        told = await office.told("Set", devices=[str(_HELD), str(_GONE)], flavour="vfio")
        assert (told["error"], told["code"]) == ("Refused", "no-device")
        assert office.history.last(1) == []
        told = await office.told("Set", devices=[], flavour="vfio")
        assert (told["error"], told["code"]) == ("Refused", "bad-name"), "nothing is no success"

    in_office(host(tree), test)


def test_who_is_neither_root_nor_in_a_group_that_may_is_not_permitted(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = host(tree)
    monkeypatch.chdir(root)  # whose parents are for root alone

    async def test(office: Office) -> None:
        own = os.geteuid()
        root.chmod(0o755)
        (root / "socket").chmod(0o666)
        office.house.path = Path("socket")
        asked: list[tuple[str, dict[str, Any]]] = [
            ("Set", {"devices": [str(_HELD)], "flavour": "vfio"}),
            ("Reset", {"devices": [str(_HELD)]}),
            ("Set", {"devices": [str(_HELD)], "flavour": "vfio", "group": True}),
            ("Set", {"devices": [str(_HELD)], "flavour": "vfio", "behalf": "uid 0, pid 1"}),
            ("Set", {"devices": [str(_HELD)], "flavour": "vfio", "behalf": "uid 0, pid 1", "dry_run": True}),
            ("Cancel", {"devices": [str(_HELD)]}),
            ("Reload", {}),
        ]
        try:
            if own == 0:
                os.seteuid(65534)
            callers = [await office.house.caller() for _ in asked]
        finally:
            os.seteuid(own)
        for caller, (method, parameters) in zip(callers, asked, strict=True):
            await caller.ask(f"io.flavourd.Manager.{method}", **parameters)
            reply = await caller.reply()
            assert reply
            assert reply["error"] == "io.flavourd.Manager.NotPermitted"
            assert reply["parameters"]["code"] == "not-permitted"
        assert office.history.last(1) == []

    in_office(root, test, may_change=False)


def test_resetting_is_setting_to_default(tree: Tree) -> None:
    async def test(office: Office) -> None:
        told = await office.told("Reset", devices=[str(_NATIVE)])
        assert [(one["flavour"], one["kind"]) for one in told["outcomes"]] == [("default", "already")]
        plans = (await office.told("Reset", devices=[str(_HELD)], dry_run=True))["plans"]
        assert [(one["flavour"], one["kind"]) for one in plans] == [("default", "switch")]

    in_office(host(tree), test)


def test_a_monitor_hears_everything_from_its_first_reply_on(tree: Tree) -> None:
    async def test(office: Office) -> None:
        monitor = await office.ask("Monitor", more=True)
        assert await monitor.reply() == {
            "continues": True,
            "parameters": {"step": None, "outcome": None, "lost": None},
        }
        await office.told("Set", devices=[str(_HELD)], flavour="vfio")
        heard: list[dict[str, Any]] = []
        while not heard or not heard[-1]["outcome"]:
            reply = await monitor.reply()
            assert reply
            heard.append(reply["parameters"])
        assert [news["step"] and news["step"]["what"] for news in heard] == ["waiting", "begun", None]
        assert heard[-1]["outcome"]["kind"] == "already"
        monitor.leave()
        await office.house.until(lambda: not office.feed._listeners)

    in_office(host(tree), test)


def busy(root: Path, device: DeviceId) -> int:
    """Hold the device's lock, so that whoever is to switch it waits; closing the descriptor lets him on."""
    fd = os.open(root / f"run/flavourd/locks/{device.bus}:{device.name}", os.O_CREAT | os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def test_a_caller_who_goes_away_withdraws_what_waits_and_what_is_begun_goes_on_and_stays_written_down(
    tree: Tree,
) -> None:
    root = host(tree)

    async def test(office: Office) -> None:
        lock = busy(root, _HELD)
        office.desk.ask([Request(_HELD, "vfio", Origin.VARLINK, uuid="first")])
        await office.house.until(lambda: office.desk.turns.steps[_HELD].what == "begun")
        states = {one["id"]: one["state"] for one in (await office.told("List"))["devices"]}
        assert states == {str(_NATIVE): None, str(_HELD): "switching"}
        second = await office.ask("Set", devices=[str(_HELD)], flavour="default")
        await office.house.until(lambda: office.desk.turns.open == 2)
        second.leave()
        await office.house.until(lambda: office.desk.turns.open == 1)
        (withdrawn,) = office.history.last(10)
        assert (withdrawn.flavour, withdrawn.code) == ("default", "withdrawn")
        assert [begun.uuid for (begun,) in office.desk.host.journal.unanswered()] == ["first"]
        os.close(lock)
        await office.desk.turns.all_answered()
        assert [(one.uuid, one.kind) for one in office.history.last(1)] == [("first", "already")]
        assert list(office.desk.host.journal.unanswered()) == []

    in_office(root, test)


@pytest.mark.parametrize("behalf", [None, "uid 1000, pid 4242"])
def test_whoever_waits_when_the_daemon_is_stopped_is_told_so(
    tree: Tree, behalf: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    called_by(0, monkeypatch)
    root = host(tree)

    async def test(office: Office) -> None:
        lock = busy(root, _HELD)
        office.desk.ask([Request(_HELD, "vfio", Origin.VARLINK, uuid="first")])
        await office.house.until(lambda: office.desk.turns.steps[_HELD].what == "begun")
        waiting = await office.ask("Set", devices=[str(_HELD)], flavour="default", behalf=behalf)
        await office.house.until(lambda: office.desk.turns.open == 2)
        stopping = asyncio.create_task(office.desk.finish())
        reply = await waiting.reply()
        assert reply
        assert reply["parameters"]["code"] == "stopping"
        late = await office.told("Set", devices=[str(_HELD)], flavour="vfio")
        assert (late["error"], late["code"]) == ("NotDone", "stopping")
        assert not stopping.done()
        os.close(lock)
        await stopping

    in_office(root, test)


def test_the_status_says_what_there_is(tree: Tree) -> None:
    async def test(office: Office) -> None:
        await office.told("Set", devices=[str(_HELD)], flavour="vfio")
        told = await office.told("Status")
        assert (told["version"], told["ready"], told["open"], told["stuck"]) == (__version__, True, 0, [])
        assert told["counts"]["already"] == 1
        assert told["clients"] == 2
        assert [(one["name"], one["proof"]) for one in told["flavours"]] == [("vfio", "vfio-dev")]

    in_office(host(tree), test)


def test_a_reload_reads_the_configuration_anew_and_a_wrong_one_changes_nothing(tree: Tree) -> None:
    own = grp.getgrgid(os.getegid()).gr_name
    root = host(tree, f"access: {{change: [{own}]}}")

    async def test(office: Office) -> None:
        assert office.desk.changers == {os.getegid()}
        (root / "etc/flavourd/flavours.yaml").write_text(_FLAVOURS.replace("vfio:", "vm:"))
        assert await office.told("Reload") == {}
        assert office.desk.flavours.names == ("default", "vm")
        (root / "etc/flavourd/flavourd.yaml").write_text("access: {change: [no-such-group]}")
        told = await office.told("Reload")
        assert (told["error"], told["code"]) == ("Refused", "config")
        assert office.desk.changers == {os.getegid()}

    in_office(root, test, may_change=False)


# --- groups


def in_flavour(*devices: DeviceId) -> dict[str, str]:
    return {f"sys/devices/pci0000:00/{device.name}/vfio-dev/vfio{device.name}/": "" for device in devices}


def bridge(device: DeviceId) -> dict[str, str]:
    return pci(device, "pcieport") | {f"sys/devices/pci0000:00/{device.name}/secondary_bus_number": "1\n"}


_BRIDGE, _ALONE = DeviceId("pci", "0000:00:01.0"), DeviceId("pci", "0000:03:00.0")


def together(office: Office) -> list[list[str]]:
    """What is asked for from here on, each list together."""
    asked: list[list[str]] = []
    ask = office.desk.ask

    def listening(requests: Sequence[Request]) -> None:
        asked.append([str(request.device) for request in requests])
        ask(requests)

    office.desk.ask = listening  # type: ignore[method-assign]
    return asked


def test_a_group_is_set_whole_whichever_member_is_named_and_once_if_all_are(tree: Tree) -> None:
    root = host(tree)
    alone = {name: text.replace("iommu_groups/7", "iommu_groups/8") for name, text in pci(_ALONE, "vfio-pci").items()}
    tree({name.replace("iommu_groups/7", "iommu_groups/8"): text for name, text in alone.items()})
    tree(in_flavour(_NATIVE, _ALONE))
    group = [str(_NATIVE), str(_HELD)]

    async def test(office: Office) -> None:
        asked = together(office)
        for named in ([str(_NATIVE)], [str(_HELD)], [str(_HELD), str(_NATIVE)]):
            told = await office.told("Set", devices=named, flavour="vfio", group=True)
            assert sorted((one["device"], one["kind"]) for one in told["outcomes"]) == [
                (id_, "already") for id_ in group
            ]
            assert asked == [group], "in one transaction"
            asked.clear()
        told = await office.told("Set", devices=[str(_HELD), str(_ALONE), str(_NATIVE)], flavour="vfio", group=True)
        assert asked == [group, [str(_ALONE)]]
        assert len(told["outcomes"]) == 3
        asked.clear()
        await office.told("Set", devices=group, flavour="vfio")
        assert asked == [[device] for device in group], "each for itself, if no group was asked for"
        asked.clear()
        told = await office.told("Reset", devices=[str(_NATIVE)], group=True, dry_run=True)
        assert [one["device"] for one in told["plans"]] == group
        assert asked == []

    in_office(root, test)


def test_a_bridge_stays_with_the_host_and_one_that_is_named_is_told_so(tree: Tree) -> None:
    root = host(tree)
    tree(bridge(_BRIDGE) | in_flavour(_NATIVE))

    async def test(office: Office) -> None:
        asked = together(office)
        told = await office.told("Set", devices=[str(_NATIVE)], flavour="vfio", group=True)
        assert sorted(one["device"] for one in told["outcomes"]) == [str(_NATIVE), str(_HELD)]
        told = await office.told("Set", devices=[str(_BRIDGE), str(_NATIVE)], flavour="vfio", group=True)
        assert (told["error"], told["code"]) == ("NotDone", "bridge")
        assert {one["device"]: one["code"] for one in told["outcomes"]} == {
            str(_BRIDGE): "bridge",
            str(_NATIVE): "together",
            str(_HELD): "together",
        }
        assert asked[1] == [str(_NATIVE), str(_HELD), str(_BRIDGE)]

    in_office(root, test)


# --- cancelling


def test_what_waits_is_cancelled_whoever_asked_and_what_is_begun_goes_on(tree: Tree) -> None:
    root = host(tree)

    async def test(office: Office) -> None:
        lock = busy(root, _HELD)
        first = await office.ask("Set", devices=[str(_HELD)], flavour="vfio")
        await office.house.until(
            lambda: {id_: at.what for id_, at in office.desk.turns.steps.items()} == {_HELD: "begun"}
        )
        second = await office.ask("Set", devices=[str(_HELD)], flavour="default")
        third = await office.ask("Set", devices=[str(_NATIVE)], flavour="default")  # in the same IOMMU group
        await office.house.until(lambda: office.desk.turns.waiting == 2)
        status = await office.told("Status")
        assert (status["open"], status["waiting"]) == (3, 2)
        assert await office.told("Cancel", devices=[_HELD.name, str(_HELD)]) == {"withdrawn": 1}
        reply = await second.reply()
        assert reply
        assert reply["parameters"]["code"] == "withdrawn"
        assert await office.told("Cancel", devices=[str(_HELD)]) == {"withdrawn": 0}
        assert (await office.told("List"))["devices"][1]["state"] == "switching"
        os.close(lock)
        for caller in (first, third):
            reply = await caller.reply()
            assert reply
            assert [one["kind"] for one in reply["parameters"]["outcomes"]] == ["already"]

    in_office(root, test)


def test_what_goes_on_with_the_remains_of_a_crash_cannot_be_cancelled(tree: Tree) -> None:
    root = host(tree)

    async def test(office: Office) -> None:
        lock = busy(root, _HELD)
        first = await office.ask("Set", devices=[str(_HELD)], flavour="vfio")
        await office.house.until(lambda: bool(office.desk.turns.steps) and office.desk.turns.waiting == 0)
        for origin in (Origin.RECOVERY, Origin.PUT_BACK, Origin.RULE):
            office.desk.ask([Request(_HELD, "default", origin)])
        assert await office.told("Cancel", devices=[str(_HELD)]) == {"withdrawn": 1}
        assert [one.origin for one in office.history.last(9)] == ["rule"]
        os.close(lock)
        assert await first.reply()
        await office.desk.turns.all_answered()
        assert {one.origin: one.code for one in office.history.last(2)} == {
            "recovery": "overtaken",
            "put-back": "overtaken",
        }

    in_office(root, test)


@pytest.mark.parametrize(("devices", "code"), [([], "bad-name"), (["nonsense"], "bad-name")])
def test_who_cancels_what_is_no_device_is_refused(tree: Tree, devices: list[str], code: str) -> None:
    async def test(office: Office) -> None:
        told = await office.told("Cancel", devices=devices)
        assert (told["error"], told["code"]) == ("Refused", code)

    in_office(host(tree), test)


# --- in use, stuck


def test_a_device_that_is_in_use_is_refused_with_what_uses_it(tree: Tree) -> None:
    root = host(tree)
    place = f"sys/devices/pci0000:00/{_NATIVE.name}"
    tree({f"{place}/sriov_totalvfs": "7\n", f"{place}/virtfn0": f"-> ../{_ALONE.name}"} | pci(_ALONE, "igbvf"))

    async def test(office: Office) -> None:
        told = await office.told("Set", devices=[str(_NATIVE)], flavour="vfio")
        assert (told["error"], told["code"]) == ("NotDone", "in-use")
        (outcome,) = told["outcomes"]
        assert outcome["kind"] == "refused"
        assert [finding["guard"] for finding in outcome["findings"]] == ["vfs"]
        (plan,) = (await office.told("Explain", device=str(_NATIVE), flavour="vfio"))["plans"]
        assert (plan["kind"], plan["findings"]) == ("refused", outcome["findings"])
        (plan,) = (await office.told("Explain", device=str(_NATIVE), flavour="vfio", force=["vfs"]))["plans"]
        assert (plan["kind"], plan["findings"]) == ("switch", outcome["findings"])

    in_office(root, test)


def test_a_device_that_is_stuck_is_told_with_its_worker_wherever_it_is_looked_at(tree: Tree) -> None:
    """Stuck behind the lock of a worker that an earlier daemon has left behind."""
    root = host(tree)
    tree({"proc/4711/wchan": "igb_remove"})

    async def test(office: Office) -> None:
        lock = busy(root, _HELD)
        os.write(lock, b"4711")
        first = await office.ask("Set", devices=[str(_HELD)], flavour="vfio")
        kin = await office.ask("Set", devices=[str(_NATIVE)], flavour="default")
        reply = await kin.reply()
        assert reply
        assert reply["parameters"]["code"] == "kin-stuck"
        assert "IOMMU group 7" in reply["parameters"]["message"]
        (stuck,) = (await office.told("Status"))["stuck"]
        assert (stuck["device"], stuck["flavour"], stuck["pid"], stuck["wchan"]) == (
            str(_HELD),
            "vfio",
            4711,
            "igb_remove",
        )
        assert stuck["step"] == "waiting for worker 4711 of an earlier flavourd"
        listed = {one["id"]: one for one in (await office.told("List"))["devices"]}
        assert (listed[str(_HELD)]["state"], listed[str(_HELD)]["stuck"]) == ("stuck", stuck)
        assert listed[str(_HELD)]["step"] == stuck["step"]
        assert (listed[str(_NATIVE)]["state"], listed[str(_NATIVE)]["stuck"]) == (None, None)
        described = await office.told("Describe", device=str(_HELD))
        assert (described["complete"], described["device"]["stuck"]) == (False, stuck)
        reply = await first.reply()
        assert reply
        assert reply["parameters"]["code"] == "stuck"
        late = await office.told("Set", devices=[str(_HELD)], flavour="default")
        assert (late["error"], late["code"]) == ("NotDone", "stuck")
        os.close(lock)
        await office.house.until(lambda: not office.desk.turns.stuck)
        assert (await office.told("Status"))["stuck"] == []
        told = await office.told("Set", devices=[str(_HELD)], flavour="vfio")
        assert [one["kind"] for one in told["outcomes"]] == ["already"]
        assert list(office.desk.host.journal.unanswered()) == []

    in_office(root, test, deadline=0.5)
