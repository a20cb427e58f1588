# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the desk writes down, and what it goes on with after a crash; with real workers, on devices of which nothing is
to be written: they are where they are to be, or are refused.
"""

import asyncio
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flavourd.desk import Desk
from flavourd.device import Binding, DeviceId
from flavourd.errors import Code
from flavourd.journal import since_boot
from flavourd.outcome import Kind, Outcome
from flavourd.record import Record
from flavourd.request import Origin, Request
from flavourd.step import What

from .conftest import Tree
from .foreseen import run
from .full import full_at

_DEADLINE = 60
_ONE, _TWO, _GONE = (DeviceId("pci", f"0000:0{number}:00.0") for number in (1, 2, 9))
_FLAVOURS = """
flavours:
  vfio:
    description: for virtual machines
    proof: vfio-dev
    buses:
      pci: {universal: {module: vfio_pci, driver: vfio-pci}}
"""
_IN_FLAVOUR = {"vfio-dev/vfio0/": ""}


def pci(device: DeviceId, files: dict[str, str] | None = None) -> dict[str, str]:
    common = {
        "subsystem": "-> ../../../pci",
        "driver": "-> ../../drivers/e1000e",
        "driver_override": "(null)\n",
        "modalias": "pci:x\n",
    }
    return {f"sys/bus/pci/devices/{device.name}/{name}": text for name, text in (common | (files or {})).items()}


def in_use(device: DeviceId) -> dict[str, str]:
    """A PF with a VF."""
    vf = "0000:01:10.0"
    physfn = {f"sys/bus/pci/devices/{vf}/physfn": f"-> ../{device.name}"}
    return pci(device, {"sriov_totalvfs": "7\n", "virtfn0": f"-> ../{vf}"}) | physfn


class Room:
    """A desk of its own, and what was answered there."""

    def __init__(self, tree: Tree, settings: str = "access: {}", deadline: float = _DEADLINE) -> None:
        etc = {"etc/flavourd/flavours.yaml": _FLAVOURS, "etc/flavourd/flavourd.yaml": settings}
        self.root = tree(etc | {"proc/": "", "dev/": ""})
        self.answers: list[Outcome] = []
        self.desk = Desk(self.root, deadline, lambda _asked, _step: None, self.answers.append)
        self.journal = self.desk.host.journal
        self.journal.prepare()

    def record(self, device: DeviceId, *, unfinished: bool = False, original: str = "e1000e") -> Record:
        made = Record(
            device, self.instance(device), Binding(original), "vfio", override="vfio-pci", unfinished=unfinished
        )
        self.journal.save(made)
        return made

    def instance(self, device: DeviceId) -> int:
        return self.desk.host.sysfs.instance(device)

    def busy(self, key: str) -> int:
        """Hold the lock of a key, as a worker of an earlier daemon does; closing the descriptor lets others on."""
        fd = os.open(self.root / f"run/flavourd/locks/{key.replace('/', ':')}", os.O_CREAT | os.O_RDWR)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd

    def told(self) -> list[tuple[DeviceId, Kind, Code | None]]:
        return [(answer.request.device, answer.kind, answer.code) for answer in self.answers]

    def begun(self) -> list[DeviceId]:
        """What the next daemon would go on with."""
        return [request.device for requests in self.journal.unanswered() for request in requests]

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():
            await asyncio.sleep(0.001)

    async def finished(self) -> None:
        """All is answered, also what was stuck."""
        await self.until(lambda: not self.desk.turns.steps)
        await self.desk.turns.all_answered()


def ask(device: DeviceId, wanted: str = "vfio", origin: Origin = Origin.VARLINK, seqnum: int = 0) -> Request:
    return Request(device, wanted, origin, seqnum=seqnum)


# --- what is begun, and its end


def test_what_is_dropped_because_the_kernel_let_go_so_late_is_not_carried_out_at_the_next_start(tree: Tree) -> None:
    tree(pci(_ONE))

    async def test() -> None:
        room = Room(tree, "stuck: {then: drop}", deadline=0.2)
        lock = room.busy(str(_ONE))
        room.desk.ask([ask(_ONE)])
        await room.until(lambda: room.told() == [(_ONE, Kind.STUCK, Code.STUCK)])
        assert room.begun() == [_ONE]
        os.close(lock)
        await room.finished()
        assert room.told()[1:] == [(_ONE, Kind.REFUSED, Code.STUCK)]
        assert room.begun() == []

    run(test)


def test_what_was_refused_before_its_turn_ends_nothing_that_is_in_work(tree: Tree) -> None:
    tree(pci(_ONE, _IN_FLAVOUR))

    async def test() -> None:
        room = Room(tree, deadline=0.2)
        lock = room.busy(str(_ONE))
        room.desk.ask([ask(_ONE)])
        room.desk.ask([ask(_ONE, "default")])
        await room.until(lambda: len(room.answers) == 2)
        room.desk.ask([ask(_ONE, "default")])
        assert [code for _, _, code in room.told()] == [Code.STUCK] * 3
        assert room.begun() == [_ONE]
        os.close(lock)
        await room.finished()
        assert room.told()[3:] == [(_ONE, Kind.ALREADY, None)]
        assert room.begun() == []

    run(test)


def test_where_nothing_can_be_written_down_everybody_behind_who_is_stuck_is_answered_all_the_same(tree: Tree) -> None:
    tree(pci(_ONE, _IN_FLAVOUR))

    async def test() -> None:
        room = Room(tree, deadline=0.2)
        lock = room.busy(str(_ONE))
        room.desk.ask([ask(_ONE)])
        room.desk.take_on([ask(_ONE, origin=Origin.UEVENT, seqnum=number) for number in (1, 2, 3)])
        await room.until(lambda: room.desk.turns.waiting == 3)
        with full_at(0):
            await room.until(lambda: len(room.answers) == 4)
        assert [code for _, _, code in room.told()] == [Code.STUCK] * 4
        assert (room.desk.turns.open, set(room.desk.turns.stuck)) == (0, {_ONE})
        os.close(lock)
        await room.finished()
        room.desk.ask([ask(_ONE)])
        await room.finished()
        assert [kind for _, kind, _ in room.told()[4:]] == [Kind.ALREADY, Kind.ALREADY]

    run(test)


# --- the device that is meant


def test_a_request_is_for_the_device_that_stood_there_when_it_came(tree: Tree) -> None:
    root = tree(pci(_ONE, _IN_FLAVOUR))

    async def test() -> None:
        room = Room(tree)
        lock = room.busy(str(_ONE))
        for wanted in ("vfio", "vfio", "default"):
            room.desk.ask([ask(_ONE, wanted)])
        await room.until(lambda: room.desk.turns.waiting == 2)
        ((begun,),) = room.journal.unanswered()
        assert begun.instance == room.instance(_ONE)
        home = root / f"sys/bus/pci/devices/{_ONE.name}"
        home.rename(home.with_name("pulled"))  # kept, or the next one might get its inode
        tree(pci(_ONE, _IN_FLAVOUR))
        os.close(lock)
        await room.finished()
        assert room.told() == [(_ONE, Kind.REFUSED, Code.NO_DEVICE)] * 3
        room.desk.ask([ask(_ONE)])
        await room.finished()
        assert room.told()[3:] == [(_ONE, Kind.ALREADY, None)]

    run(test)


# --- keys


@pytest.mark.parametrize("serial", [True, False])
def test_devices_whose_way_back_leads_to_a_driver_that_wants_them_one_by_one_take_turns(
    tree: Tree, serial: bool
) -> None:
    for device in (_ONE, _TWO):
        tree(pci(device))

    async def test() -> None:
        room = Room(tree, f"serial_drivers: [{'ioatdma' if serial else 'other'}]")
        for device in (_ONE, _TWO):
            room.record(device, original="ioatdma")
            room.desk.ask([ask(device, "no such flavour")])
        await room.finished()
        assert [code for _, _, code in room.told()] == [Code.UNKNOWN_FLAVOUR] * 2
        locks = {path.name for path in (room.root / "run/flavourd/locks").iterdir()}
        assert ("driver ioatdma" in locks) is serial

    run(test)


def test_the_vfs_of_a_pf_are_at_work_at_the_same_time_and_the_pf_when_they_are_done(tree: Tree) -> None:
    vfs, pf = (_ONE, _TWO), DeviceId("pci", "0000:03:00.0")
    tree(pci(pf, {"sriov_totalvfs": "7\n"}))
    for vf in vfs:
        tree(pci(vf, {"physfn": f"-> ../{pf.name}"}))

    async def test() -> None:
        room = Room(tree)
        locks = [room.busy(str(vf)) for vf in vfs]
        for device in (*vfs, pf):
            room.desk.ask([ask(device, "no such flavour")])
        steps = room.desk.turns.steps
        await room.until(lambda: all(steps[vf].text.startswith("waiting for workers") for vf in vfs))
        assert steps[pf].what is What.WAITING
        for lock in reversed(locks):
            os.close(lock)
        await room.finished()
        assert {device for device, _, code in room.told()[:2] if code is Code.UNKNOWN_FLAVOUR} == {*vfs}
        assert room.told()[2] == (pf, Kind.REFUSED, Code.UNKNOWN_FLAVOUR)

    run(test)


def test_a_record_that_cannot_be_read_keeps_no_request_from_its_turn_which_tells_it(tree: Tree) -> None:
    tree(pci(_ONE))

    async def test() -> None:
        room = Room(tree)
        tree({f"run/flavourd/records/pci:{_ONE.name}.json": "{"})
        room.desk.ask([ask(_ONE)])
        await room.finished()
        assert room.told() == [(_ONE, Kind.REFUSED, Code.RECORD)]

    run(test)


# --- after a crash


def test_of_a_group_one_of_which_went_away_the_others_are_put_back_by_the_one_answer_that_all_get(tree: Tree) -> None:
    """Not at once: a worker that the dead daemon has left behind may still be at it."""
    tree(pci(_ONE))

    async def test() -> None:
        room = Room(tree)
        room.record(_ONE, unfinished=True)
        room.journal.begin([replace(ask(_GONE), instance=7), replace(ask(_ONE), instance=room.instance(_ONE))])
        lock = room.busy(str(_ONE))
        room.desk.recover()
        assert room.answers == []
        os.close(lock)
        await room.finished()
        assert room.told() == [(_GONE, Kind.REFUSED, Code.NO_DEVICE), (_ONE, Kind.UNDONE, Code.TOGETHER)]
        assert list(room.journal.records()) == []
        assert room.begun() == []

    run(test)


@pytest.mark.parametrize("origin", [Origin.POLICY, Origin.PUT_BACK])
def test_what_flavourd_had_begun_by_itself_is_put_back_and_nothing_else(tree: Tree, origin: Origin) -> None:
    """The policy may be another one by now, and what nobody asked for must not count as somebody's wish."""
    tree(pci(_ONE) | pci(_TWO, _IN_FLAVOUR))

    async def test() -> None:
        room = Room(tree)
        room.record(_ONE, unfinished=True)
        for device in (_ONE, _TWO):
            room.journal.begin([replace(ask(device, origin=origin), instance=room.instance(device))])
        room.desk.recover()
        await room.finished()
        assert [(answer.request.device, answer.request.origin) for answer in room.answers] == [(_ONE, Origin.PUT_BACK)]
        assert list(room.journal.records()) == []
        assert room.begun() == []

    run(test)


def test_what_is_recovered_waits_for_the_worker_that_was_left_behind_no_longer_than_it_would_have(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flavourd.desk._SUCCESSOR_SECONDS", 0.2)
    tree(pci(_ONE, _IN_FLAVOUR))
    tree(pci(_TWO, _IN_FLAVOUR))

    async def test() -> None:
        room = Room(tree)
        for device in (_ONE, _TWO):  # long ago: at the boot of this machine
            room.journal.begin([replace(ask(device), instance=room.instance(device), begun=0.1)])
        lock = room.busy(str(_ONE))
        now = since_boot()
        asked = [ask(_ONE), *(replace(ask(device), begun=now - 10) for device in (_ONE, _TWO))]
        patience = [room.desk._patience(each) for each in asked]
        assert patience == [_DEADLINE, pytest.approx(_DEADLINE - 10, abs=5), _DEADLINE], (
            "nobody is at work with the last"
        )
        room.desk.recover()
        await room.until(lambda: len(room.answers) == 2)
        assert set(room.told()) == {(_ONE, Kind.STUCK, Code.STUCK), (_TWO, Kind.ALREADY, None)}
        os.close(lock)
        await room.finished()
        assert room.told()[2:] == [(_ONE, Kind.ALREADY, None)]

    run(test)


def test_what_is_recovered_and_refused_before_its_turn_is_not_carried_out_at_a_later_start(tree: Tree) -> None:
    group = {"iommu_group": "-> ../../../../kernel/iommu_groups/7"}
    for device in (_ONE, _TWO):
        tree(pci(device, group | _IN_FLAVOUR))

    async def test() -> None:
        room = Room(tree, deadline=0.3)
        for device in (_ONE, _TWO):
            room.journal.begin([replace(ask(device), instance=room.instance(device))])
        lock = room.busy(str(_ONE))
        room.desk.recover()
        await room.until(lambda: len(room.answers) == 2)
        assert room.told()[1] == (_TWO, Kind.REFUSED, Code.KIN_STUCK)
        assert room.begun() == [_ONE]
        os.close(lock)
        await room.finished()
        assert room.begun() == []

    run(test)


def test_what_is_gone_or_stands_there_no_more_is_forgotten_and_what_is_in_work_settles_its_record_itself(
    tree: Tree,
) -> None:
    root = tree(pci(_ONE, _IN_FLAVOUR))
    tree(pci(_TWO))

    async def test() -> None:
        room = Room(tree)
        one, two = room.record(_ONE), room.record(_TWO)
        room.journal.save(replace(one, device=_GONE))
        room.desk.forget_gone()
        assert list(room.journal.records()) == [one, two]
        lock = room.busy(str(_ONE))
        room.desk.ask([ask(_ONE)])
        await room.until(lambda: room.desk.turns.waiting == 0)
        room.journal.save(replace(two, instance=two.instance + 1))
        shutil.rmtree(root / f"sys/bus/pci/devices/{_ONE.name}")
        room.desk.forget_gone()
        assert list(room.journal.records()) == [one]
        os.close(lock)
        await room.finished()
        assert room.told() == [(_ONE, Kind.REFUSED, Code.NO_DEVICE)]
        assert list(room.journal.records()) == []

    run(test)


def test_what_keeps_a_device_from_its_way_back_is_told_once_and_it_is_tried_until_it_goes(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flavourd.aftercare._FIRST_PAUSE", 0.02)
    monkeypatch.setattr("flavourd.aftercare._LONGEST_PAUSE", 0.02)
    root = tree(in_use(_ONE))

    async def test() -> None:
        room = Room(tree)
        room.record(_ONE, unfinished=True, original="igb")
        attempts: list[DeviceId] = []
        put_back = room.desk._aftercare._put_back

        def listening(device: DeviceId, first: bool) -> None:
            attempts.append(device)
            put_back(device, first)

        room.desk._aftercare._put_back = listening
        room.desk.recover()
        await room.until(lambda: len(attempts) > 3)
        assert room.told() == [(_ONE, Kind.REFUSED, Code.IN_USE)]
        assert room.desk.counts[Kind.REFUSED] == 1
        await room.until(lambda: not room.desk.turns.steps)
        room.record(_ONE, unfinished=True)  # its own driver holds it: nothing is taken from anybody
        await room.until(lambda: len(room.answers) == 2)
        assert room.told()[1] == (_ONE, Kind.SWITCHED, None)
        number = len(attempts)
        await room.finished()
        assert list(room.journal.records()) == []
        assert not room.desk._aftercare._timers
        assert len(attempts) == number
        assert (root / f"sys/bus/pci/devices/{_ONE.name}/virtfn0").is_symlink()

    run(test)


# --- who waits in the kernel


@contextmanager
def module(room: Room) -> Iterator[Callable[[], list[str]]]:
    """A pipe in place of its node; gives what has been written to it since the last time."""
    os.mkfifo(room.root / "dev/driver_flavour")
    end = os.open(room.root / "dev/driver_flavour", os.O_RDONLY | os.O_NONBLOCK)
    room.desk.listen()
    yield lambda: os.read(end, 1 << 16).decode().splitlines()
    os.close(end)


def ticketed(device: DeviceId, ticket: int, wanted: str = "vfio") -> Request:
    return Request(device, wanted, Origin.ATTRIBUTE, seqnum=ticket, ticket=ticket)


def test_whoever_waits_in_the_kernel_is_asked_for_when_his_turn_comes_and_gets_every_end(tree: Tree) -> None:
    tree(pci(_ONE, _IN_FLAVOUR))

    async def test() -> None:
        room = Room(tree)
        with module(room) as written:
            assert written() == ["flavours", "pci vfio - vfio-dev"]
            room.desk.take_on([ticketed(_ONE, 1), ticketed(_ONE, 2, "no such flavour"), ask(_ONE)])
            await room.finished()
            assert written() == ["begin 1", "answer 1 0", "begin 2", f"answer 2 {errno.EINVAL}"]
            room.desk.reload()
            assert written() == ["flavours", "pci vfio - vfio-dev"]

    run(test)


def test_at_the_deadline_he_is_sent_away_and_what_comes_of_it_later_is_told_to_whom_it_may_concern(tree: Tree) -> None:
    tree(pci(_ONE, _IN_FLAVOUR))

    async def test() -> None:
        room = Room(tree, deadline=0.2)
        with module(room) as written:
            lock = room.busy(str(_ONE))
            room.desk.take_on([ticketed(_ONE, 1), ticketed(_ONE, 2)])
            await room.until(lambda: len(room.answers) == 2)
            assert written()[2:] == ["begin 1", f"answer 1 {errno.ETIMEDOUT}", f"answer 2 {errno.ETIMEDOUT}"]
            os.close(lock)
            await room.finished()
            assert written() == ["answer 1 0"]

    run(test)


def test_who_waits_in_the_kernel_while_it_is_stopped_is_told_so_and_not_served_at_the_next_start(tree: Tree) -> None:
    tree(pci(_ONE, _IN_FLAVOUR))

    async def test() -> None:
        room = Room(tree)
        with module(room) as written:
            lock = room.busy(str(_ONE))
            waiting = ticketed(_ONE, 2)
            room.desk.take_on([ticketed(_ONE, 1), waiting])
            await room.until(lambda: room.desk.turns.waiting == 1)
            stopping = asyncio.create_task(room.desk.finish())
            await asyncio.sleep(0)
            assert room.told() == [(_ONE, Kind.REFUSED, Code.STOPPING)]
            os.close(lock)
            await stopping
            assert written()[2:] == ["begin 1", f"answer 2 {errno.EAGAIN}", "answer 1 0"]
            assert written() == [], "the node is closed"
        again = Room(tree)
        again.desk.take_on([waiting], from_before=True)
        assert (again.answers, again.desk.turns.open) == ([], 0)

    run(test)


def test_what_udev_has_forgotten_for_a_writers_sake_is_told_when_it_is_stopped(tree: Tree) -> None:
    tree(pci(_ONE, _IN_FLAVOUR) | pci(_TWO, _IN_FLAVOUR))

    async def test() -> None:
        room = Room(tree)
        with module(room):
            locks = [room.busy(str(_ONE)), room.busy(str(_TWO))]
            displaced, kept = ask(_ONE, origin=Origin.UEVENT, seqnum=2), ask(_TWO, origin=Origin.UEVENT, seqnum=6)
            in_work = [ticketed(_ONE, 1), ticketed(_TWO, 4)]
            room.desk.take_on([*in_work, displaced, ticketed(_ONE, 3), ticketed(_TWO, 5), kept])
            await room.until(lambda: room.desk.turns.waiting == 4)
            stopping = asyncio.create_task(room.desk.finish())
            await asyncio.sleep(0)
            assert [each.request.seqnum for each in room.answers] == [2, 3, 5]
            assert {code for _, _, code in room.told()} == {Code.STOPPING}
            for lock in locks:
                os.close(lock)
            await stopping

    run(test)


def test_what_a_writer_wanted_from_an_earlier_daemon_is_not_done(tree: Tree) -> None:
    tree(pci(_ONE, _IN_FLAVOUR))

    async def test() -> None:
        room = Room(tree)
        room.desk.take_on([ticketed(_ONE, 3)], from_before=True)
        assert room.told() == [(_ONE, Kind.REFUSED, Code.WITHDRAWN)]
        room.desk.take_on([ticketed(_ONE, 3)])
        assert len(room.answers) == 1, "it was taken"
        room.desk.take_on([ticketed(_ONE, 4)])  # as it is injected where there is no module
        room.desk.take_on([ask(_ONE, origin=Origin.UEVENT, seqnum=5)], from_before=True)
        await room.finished()
        assert [kind for _, kind, _ in room.told()[1:]] == [Kind.ALREADY] * 2

    run(test)


def test_when_requests_were_lost_all_who_wait_in_the_kernel_are_sent_away(tree: Tree) -> None:
    async def test() -> None:
        room = Room(tree)
        with module(room) as written:
            written()
            room.desk.listen(missed=True)
            assert written() == ["flavours", "pci vfio - vfio-dev", "dismiss"]

    run(test)


def test_who_waits_is_served_although_his_event_came_after_a_later_one_of_his_device(tree: Tree) -> None:
    tree(pci(_ONE, _IN_FLAVOUR))

    async def test() -> None:
        room = Room(tree)
        with module(room) as written:
            written()
            room.desk.take_on([ticketed(_ONE, 5)])
            room.desk.take_on([ticketed(_ONE, 4, "no such flavour"), ticketed(_ONE, 5)])
            room.desk.take_on([ticketed(_ONE, 4)])
            room.desk.take_on([ask(_ONE, origin=Origin.UEVENT, seqnum=3)])
            await room.finished()
            assert written() == ["begin 4", "begin 5", "answer 5 0", "begin 4", f"answer 4 {errno.EINVAL}"]
            assert len(room.answers) == 2
            assert room.journal.taken(_ONE) == 5, "what is older is not taken for new after a restart"

    run(test)


def test_without_the_module_an_event_that_is_not_new_is_nothing_whatever_its_ticket(tree: Tree) -> None:
    tree(pci(_ONE, _IN_FLAVOUR))

    async def test() -> None:
        room = Room(tree)
        room.desk.take_on([ticketed(_ONE, 5), ticketed(_ONE, 4)])
        await room.finished()
        assert len(room.answers) == 1

    run(test)


def test_while_it_is_stopped_who_writes_in_the_kernel_is_told_so_and_others_ask_again_at_the_next_start(
    tree: Tree,
) -> None:
    tree(pci(_ONE, _IN_FLAVOUR) | pci(_TWO, _IN_FLAVOUR))

    async def test() -> None:
        room = Room(tree)
        with module(room) as written:
            lock = room.busy(str(_ONE))
            room.desk.take_on([ticketed(_ONE, 1)])
            await room.until(lambda: room.desk.turns.waiting == 0)
            stopping = asyncio.create_task(room.desk.finish())
            await asyncio.sleep(0)
            later = ask(_TWO, origin=Origin.UEVENT, seqnum=3)
            room.desk.take_on([ticketed(_TWO, 2), later])
            assert written()[2:] == ["begin 1", f"answer 2 {errno.EAGAIN}"]
            os.close(lock)
            await stopping
            assert room.told() == [(_TWO, Kind.REFUSED, Code.STOPPING), (_ONE, Kind.ALREADY, None)]
        again = Room(tree)
        again.desk.take_on([ticketed(_TWO, 2), later], from_before=True)
        await again.finished()
        assert again.told() == [(_TWO, Kind.ALREADY, None)]

    run(test)


def test_who_stops_puts_nothing_back_any_more_for_the_next_one_does(tree: Tree) -> None:
    tree(in_use(_ONE))

    async def test() -> None:
        room = Room(tree)
        made = room.record(_ONE, unfinished=True, original="igb")
        lock = room.busy(str(_ONE))
        room.desk.recover()
        await room.until(lambda: room.desk.turns.waiting == 0)
        stopping = asyncio.create_task(room.desk.finish())
        await asyncio.sleep(0)
        os.close(lock)
        await stopping
        assert room.told() == [(_ONE, Kind.REFUSED, Code.IN_USE)]
        assert not room.desk._aftercare._timers
        assert list(room.journal.unfinished()) == [made]

    run(test)


def test_since_when_it_is_stuck_is_told_by_what_is_written_down_so_that_the_next_daemon_tells_the_same(
    tree: Tree,
) -> None:
    tree(pci(_ONE, _IN_FLAVOUR))

    async def test() -> None:
        room = Room(tree, deadline=0.5)
        lock = room.busy(str(_ONE))
        room.desk.ask([replace(ask(_ONE), begun=0.0)])
        await room.until(lambda: room.begun() == [_ONE])
        room.journal.begin([replace(ask(_ONE), instance=room.instance(_ONE), begun=0.1)])
        await room.until(lambda: len(room.answers) == 1)
        (stuck,) = room.desk.turns.stuck.values()
        boot = datetime.now(UTC) - timedelta(seconds=since_boot())
        assert abs(datetime.fromisoformat(stuck.since) - boot) < timedelta(seconds=5)
        os.close(lock)
        await room.finished()

    run(test)
