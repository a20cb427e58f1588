# SPDX-License-Identifier: LGPL-2.1-or-later
"""Turns: order among those who share a key, none among others, and an answer to everybody; with real workers, but for
what is only about order, where thousands of them would take too long.
"""

import asyncio
import gc
import itertools
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest

from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.keys import Keys
from flavourd.outcome import Kind, Outcome
from flavourd.request import Origin, Request
from flavourd.step import Step, Tell, What
from flavourd.stuck import Stuck
from flavourd.turns import Start, Turns
from flavourd.use import Process
from flavourd.worker import Worker

from .gate import Gate

_DEADLINE = 60.0
ONE, OTHER, THIRD = (DeviceId("pci", f"0000:0{number}:00.0") for number in (1, 2, 3))
_GROUP = "IOMMU group 9"

Work = Callable[[Request, Tell], Outcome]
Answer = tuple[str, Kind, Code | None]


def request(device: DeviceId, wanted: str = "vfio") -> Request:
    return Request(device, wanted, Origin.UEVENT)


def run(test: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), _DEADLINE))


def done(asked: Request, _tell: Tell | None = None) -> Outcome:
    return Outcome(asked, Kind.SWITCHED, asked.wanted)


class Turned:
    """Turns whose workers do for each request what `work` says, and what they answered; `had_turn`: whether the
    request of each answer was begun. `count` waits for so many answers. `not_begun`: words whose requests are refused
    when their turn comes, and why.
    """

    def __init__(self, work: Work = done, deadline: float = _DEADLINE) -> None:
        self.answers: list[Outcome] = []
        self.had_turn: list[bool] = []
        self.told: list[tuple[str, Step]] = []
        self.asked_after: list[tuple[Request, int, Step]] = []
        self._work = work
        self._heard: list[Outcome] = []
        self._new = asyncio.Event()
        self.not_begun: dict[str, FlavourError] = {}
        self.turns = Turns(self.begin, self._told, self.answered, self.done, self.inquire, deadline)

    def take_on(self, *requests: Request, keys: Sequence[str] = (), shared: Sequence[str] = (), **rest: Any) -> None:
        """Together. keys: that they need alone, beside the devices' own."""
        alone = frozenset({*keys, *(str(each.device) for each in requests)})
        self.turns.take_on(requests, Keys(alone, frozenset(shared)), **rest)

    def begin(self, requests: Sequence[Request], _keys: Keys) -> Start | FlavourError:
        if requests[0].wanted in self.not_begun:
            return self.not_begun[requests[0].wanted]

        def work(tell: Callable[[tuple[int, Step]], None]) -> list[Outcome]:
            return [
                self._work(each, lambda step, number=number: tell((number, step)))  # type: ignore[misc]
                for number, each in enumerate(requests)
            ]

        return lambda told: Worker(work, told)

    async def inquire(self, asked: Request, pid: int, step: Step) -> Stuck:
        self.asked_after.append((asked, pid, step))
        return Stuck(asked, pid, "2026-11-22T11:00:00+00:00", step.text, "igb_remove", (Process(42, "qemu"),))

    def _told(self, asked: Request, step: Step) -> None:
        self.told.append((asked.wanted, step))

    def answered(self, outcomes: Sequence[Outcome]) -> None:
        self._heard += outcomes

    def done(self, outcomes: Sequence[Outcome], begun: bool) -> None:
        for outcome in outcomes:
            self._heard.remove(outcome)  # whoever waited for it has it
        self.answers += outcomes
        self.had_turn += [begun] * len(outcomes)
        self._new.set()

    async def until(self, number: int) -> None:
        while len(self.answers) < number:
            self._new.clear()
            await self._new.wait()

    async def count(self, number: int) -> list[Answer]:
        await self.until(number)
        return [(answer.request.wanted, answer.kind, answer.code) for answer in self.answers]

    async def step(self, device: DeviceId, text: str) -> None:
        """Wait until a device is at this step."""
        while self.turns.steps[device].text != text:
            await asyncio.sleep(0.001)

    async def nothing_is_left(self) -> None:
        """Whoever is done with is forgotten."""
        turns = self.turns
        await turns.all_answered()
        while turns._servers:
            await asyncio.sleep(0)
        assert (turns.open, turns.waiting) == (0, 0)
        assert (turns.steps, turns.stuck) == ({}, {})
        assert (turns._lines._keys, turns._lines._lines) == ({}, {})
        assert (turns._waiting, turns._sleeping, turns._not_done) == ({}, [], {})
        assert self._heard == []


class Puppet:
    """In place of a worker, without a process: it ends when the test ends it."""

    made: list["Puppet"]

    def __init__(self, work: Callable[[Callable[[Any], None]], Any], told: Callable[[Any], None]) -> None:
        self.pid = 4711
        self.done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._work, self._told = work, told
        Puppet.made.append(self)

    def end(self) -> None:
        self.done.set_result(self._work(self._told))

    def end_after(self, turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(self.end_after, turns - 1)
        else:
            self.end()


@pytest.fixture
def puppets(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Puppet]]:
    """Those that were made in place of workers."""
    monkeypatch.setattr(f"{__name__}.Worker", Puppet)
    Puppet.made = []
    yield Puppet.made
    Puppet.made = []


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0)


# --- order


def test_requests_of_one_device_are_answered_in_their_order() -> None:
    async def test() -> None:
        turned = Turned()
        for wanted in "abcde":
            turned.take_on(request(ONE, wanted))
        await turned.turns.all_answered()
        assert [answer.request.wanted for answer in turned.answers] == list("abcde")
        await turned.nothing_is_left()

    run(test)


def test_who_shares_a_key_is_answered_in_order_whatever_the_device() -> None:
    async def test() -> None:
        turned = Turned()
        for wanted, device in zip("abcde", (ONE, OTHER, ONE, THIRD, OTHER), strict=True):
            turned.take_on(request(device, wanted), keys=[_GROUP])
        await turned.turns.all_answered()
        assert [answer.request.wanted for answer in turned.answers] == list("abcde")
        await turned.nothing_is_left()

    run(test)


def test_another_device_does_not_wait(gate: Gate) -> None:
    def work(asked: Request, _tell: Tell) -> Outcome:
        if asked.device == ONE:
            gate.wait()
        return done(asked)

    async def test() -> None:
        turned = Turned(work)
        turned.take_on(request(ONE, "slow"), keys=[_GROUP])
        turned.take_on(request(ONE, "next"), keys=[_GROUP])
        await gate.arrival()
        turned.take_on(request(OTHER, "quick"), keys=["IOMMU group 10"])
        assert await turned.count(1) == [("quick", Kind.SWITCHED, None)]
        gate.let_on()
        gate.let_on()
        assert [wanted for wanted, _, _ in await turned.count(3)] == ["quick", "slow", "next"]

    run(test)


def test_never_are_two_at_work_who_share_a_key() -> None:
    """Real workers, each of which tells when it began and when it ended."""

    def work(asked: Request, _tell: Tell) -> Outcome:
        began = time.monotonic_ns()
        for _ in range(100):
            os.sched_yield()
        return Outcome(asked, Kind.SWITCHED, asked.wanted, notes=(str(began), str(time.monotonic_ns())))

    async def test() -> None:
        dice = random.Random(7)
        turned = Turned(work)
        keys: dict[str, frozenset[str]] = {}
        for number in range(120):
            device = DeviceId("pci", f"{number % 20}")
            keys[str(number)] = frozenset(dice.sample("abcdefgh", dice.randint(0, 3)))
            turned.take_on(request(device, str(number)), keys=[*keys[str(number)]])
        await turned.turns.all_answered()
        spans = defaultdict(list)
        for answer in turned.answers:
            began, ended = map(int, answer.notes)
            for key in (*keys[answer.request.wanted], answer.request.device):
                spans[key].append((int(answer.request.wanted), began, ended))
        for spent in spans.values():
            in_order = sorted(spent)
            assert in_order == sorted(spent, key=lambda span: span[1]), "in the order in which they came"
            assert all(one[2] <= next_one[1] for one, next_one in itertools.pairwise(in_order))
        assert sum(len(spent) for spent in spans.values()) > 120
        await turned.nothing_is_left()

    run(test)


def test_those_who_share_a_key_leave_slots_for_others(puppets: list[Puppet]) -> None:
    async def test() -> None:
        turned = Turned()
        for number in range(64):
            turned.take_on(request(DeviceId("pci", f"0000:09:00.{number}"), f"VF {number}"), shared=["PF"])
        turned.take_on(request(THIRD, "stranger"))
        await until(lambda: turned.turns.steps[THIRD].what is What.BEGUN)
        assert len(puppets) == 13
        for number in range(65):
            while len(puppets) <= number:
                await asyncio.sleep(0)
            puppets[number].end()
        assert await turned.count(65)
        await turned.nothing_is_left()

    run(test)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_comes_in_whichever_order_everybody_is_answered_and_nobody_meets_whom_he_conflicts_with(
    puppets: list[Puppet], seed: int
) -> None:
    """Turns of one to three devices, some before all others, some withdrawn, some stuck."""
    dice = random.Random(seed)
    devices = [DeviceId("pci", str(number)) for number in range(dice.choice((3, 10, 60)))]

    class Watched(Turned):
        def __init__(self) -> None:
            super().__init__()
            self.at_work: dict[str, Keys] = {}
            self.begun: list[tuple[str, Keys]] = []

        def begin(self, requests: Sequence[Request], keys: Keys) -> Start:
            wanted = requests[0].wanted
            for others in self.at_work.values():
                assert not keys.between(others), "two are at work who conflict"
            self.at_work[wanted] = keys
            self.begun.append((wanted, keys))

            def work(_tell: object) -> list[Outcome]:
                del self.at_work[wanted]
                return list(map(done, requests))

            number = len(puppets)  # of the one that is made next
            asyncio.get_running_loop().call_soon(lambda: puppets[number].end_after(dice.choice((0, 0, 1, 3, 20))))
            return lambda told: Worker(work, told)

    async def test() -> None:
        turned, late, asked = Watched(), set(), []
        for number in range(300):
            what = dice.random()
            if what < 0.7:
                some = dice.sample(devices, dice.randint(1, 3))
                first = dice.random() < 0.1
                requests = [request(device, str(number)) for device in some]
                asked += requests
                if first:
                    late.add(str(number))
                deadline = 0.0 if dice.random() < 0.1 else None
                keys = dice.sample("abcdefgh", dice.choice((0, 0, 1, 2)))
                shared = dice.sample("abcdefgh", dice.choice((0, 1, 2)))
                turned.take_on(*requests, keys=keys, shared=shared, first=first, deadline=deadline)
            elif what < 0.75:
                victim = str(dice.randrange(number + 1))
                before, waiting = turned.turns.open, turned.turns.waiting
                gone = turned.turns.withdraw(lambda each: each.wanted == victim)  # noqa: B023 - called at once
                assert turned.turns.open == before - gone
                assert turned.turns.waiting == waiting - gone
            else:
                for _ in range(dice.randrange(8)):
                    await asyncio.sleep(0)
        await turned.nothing_is_left()
        answers = Counter(answer.request for answer in turned.answers if answer.kind is not Kind.STUCK)
        assert answers == Counter(asked), "one answer each, and one more to who was stuck"
        assert turned.at_work == {}
        for key in {key for _, keys in turned.begun for key in keys}:
            order = [
                (int(wanted), key in keys.alone) for wanted, keys in turned.begun if key in keys and wanted not in late
            ]
            for (before, alone), (after, alone_too) in itertools.combinations(order, 2):
                assert before < after or not (alone or alone_too)

    run(test)


def test_those_who_share_a_key_are_at_work_together_and_who_wants_it_alone_comes_between_them(
    puppets: list[Puppet],
) -> None:
    async def test() -> None:
        turned = Turned()
        for number in range(3):
            turned.take_on(request(DeviceId("pci", str(number)), f"VF {number}"), shared=["PF"])
        turned.take_on(request(ONE, "PF"), keys=["PF"])
        turned.take_on(request(OTHER, "late VF"), shared=["PF"])
        turned.take_on(request(THIRD, "stranger"))
        await until(lambda: len(puppets) == 4)
        assert turned.turns.waiting == 2
        puppets[3].end()
        assert await turned.count(1) == [("stranger", Kind.SWITCHED, None)]
        for number in (2, 0, 1):
            assert len(puppets) == 4
            puppets[number].end()
        await until(lambda: len(puppets) == 5)
        assert (await turned.count(4))[1:] == [(f"VF {number}", Kind.SWITCHED, None) for number in (2, 0, 1)]
        puppets[4].end()
        await until(lambda: len(puppets) == 6)
        puppets[5].end()
        assert [wanted for wanted, _, _ in (await turned.count(6))[4:]] == ["PF", "late VF"]
        await turned.nothing_is_left()

    run(test)


def test_who_is_to_be_first_comes_before_all_that_wait_and_after_the_one_at_work(gate: Gate) -> None:
    def work(asked: Request, _tell: Tell) -> Outcome:
        if asked.wanted == "begun":
            gate.wait()
        return done(asked)

    async def test() -> None:
        turned = Turned(work)
        turned.take_on(request(ONE, "begun"), keys=[_GROUP])
        turned.take_on(request(ONE, "a"), keys=[_GROUP])
        turned.take_on(request(OTHER, "b"), keys=[_GROUP])
        await gate.arrival()
        turned.take_on(request(OTHER, "first"), keys=[_GROUP], first=True)
        gate.let_on()
        assert [wanted for wanted, _, _ in await turned.count(4)] == ["begun", "first", "a", "b"]
        await turned.nothing_is_left()

    run(test)


def test_more_requests_than_slots_are_all_answered() -> None:
    async def test() -> None:
        turned = Turned()
        for number in range(40):
            turned.take_on(request(DeviceId("pci", f"0000:{number:02x}:00.0")))
        await turned.turns.all_answered()
        assert len(turned.answers) == 40
        await turned.nothing_is_left()

    run(test)


def of_ten_devices(number: int) -> dict[str, list[str]]:
    return {"keys": [f"group {number % 5}"]}


def of_one_family(_number: int) -> dict[str, list[str]]:
    return {"shared": ["PF"]}


def of_one_family_whose_pf_comes_between(number: int) -> dict[str, list[str]]:
    return {"shared" if number % 50 else "keys": ["PF"]}


@pytest.mark.parametrize("keys", [of_ten_devices, of_one_family, of_one_family_whose_pf_comes_between])
def test_ten_thousand_requests_are_all_answered_in_order_and_cost_as_much_each_as_a_few(
    puppets: list[Puppet], monkeypatch: pytest.MonkeyPatch, keys: Callable[[int], dict[str, list[str]]]
) -> None:
    """Of what Turns itself does; a worker takes a thousand times as long."""

    async def seconds(number: int) -> float:
        turned = Turned()
        puppets.clear()
        gc.collect()
        gc.disable()  # it goes through all that this test keeps, again and again
        began = time.process_time()
        for wanted in range(number):
            turned.take_on(request(DeviceId("pci", str(wanted % 10)), str(wanted)), **keys(wanted))
        for begun in range(number):
            await until(lambda begun=begun: len(puppets) > begun)  # type: ignore[misc]
            puppets[begun].end()
        await turned.nothing_is_left()
        spent = time.process_time() - began
        gc.enable()
        assert len(turned.answers) == number
        served = [int(answer.request.wanted) for answer in turned.answers]
        for device in range(10):
            assert [each for each in served if each % 10 == device] == list(range(device, number, 10))
        return spent

    async def test() -> None:
        await seconds(500)
        few = min([await seconds(2_500) for _ in range(3)])
        many = min([await seconds(10_000) for _ in range(2)])
        assert many < 9 * few, "four times as many: quadratic would be sixteen times as long"

    monkeypatch.setattr("flavourd.turns._MOST_WAITING_FOR_A_DEVICE", 10_000)
    run(test)


def test_of_who_asks_faster_than_the_kernel_switches_so_many_wait_and_the_next_are_refused(
    puppets: list[Puppet],
) -> None:
    async def test() -> None:
        turned = Turned()
        for number in range(256):
            turned.take_on(request(ONE, str(number)))
        assert turned.answers == []
        for _ in range(2):
            turned.take_on(request(ONE, "too many"))
            turned.take_on(request(OTHER, "beside it"), request(ONE, "together"))
        refused = await turned.count(6)
        assert {(kind, code) for _, kind, code in refused} == {(Kind.REFUSED, Code.TOO_MANY)}
        assert not any(turned.had_turn)
        assert [wanted for wanted, _, _ in refused[:3]] == ["too many", "beside it", "together"]
        assert all(answer.sentence and answer.hint for answer in turned.answers)
        assert OTHER not in turned.turns.steps

        turned.take_on(request(OTHER, "another device"))
        turned.take_on(request(ONE, "ours"), first=True)
        assert (turned.turns.open, len(turned.answers)) == (258, 6)
        await until(lambda: len(puppets) == 2)
        for number in range(258):
            await until(lambda number=number: len(puppets) > number)  # type: ignore[misc]
            puppets[number].end()
        assert all(kind is Kind.SWITCHED for _, kind, _ in (await turned.count(264))[6:])
        turned.take_on(request(ONE, "again"))
        await until(lambda: len(puppets) == 259)
        puppets[-1].end()
        assert (await turned.count(265))[-1] == ("again", Kind.SWITCHED, None)
        await turned.nothing_is_left()

    run(test)


# --- together


def test_what_was_asked_together_is_one_turn_of_one_worker_and_each_hears_its_own_steps() -> None:
    def work(asked: Request, tell: Tell) -> Outcome:
        tell(Step(What.BINDING, f"{asked.wanted} in {os.getpid()}"))
        return done(asked)

    class Together(Turned):
        def answered(self, outcomes: Sequence[Outcome]) -> None:
            together.append([outcome.request.wanted for outcome in outcomes])
            super().answered(outcomes)

    together: list[list[str]] = []

    async def test() -> None:
        turned = Together(work)
        turned.take_on(request(ONE, "a"), request(OTHER, "b"))
        turned.take_on(request(OTHER, "c"))
        assert (turned.turns.open, turned.turns.waiting) == (3, 3)
        await turned.turns.all_answered()
        assert together == [["a", "b"], ["c"]]
        own = {name: [step for wanted, step in turned.told if wanted == name] for name in "abc"}
        for name in "abc":
            assert [step.what for step in own[name]] == [What.WAITING, What.BEGUN, What.BINDING]
            assert own[name][2].text.startswith(f"{name} in ")
        pids = [own[name][2].text.rpartition(" ")[2] for name in "abc"]
        assert pids[0] == pids[1] != pids[2]
        await turned.nothing_is_left()

    run(test)


def test_a_worker_of_two_that_is_killed_loses_both() -> None:
    def work(asked: Request, _tell: Tell) -> Outcome:
        if asked.wanted == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        return done(asked)

    async def test() -> None:
        turned = Turned(work)
        turned.take_on(request(ONE, "well"), request(OTHER, "dies"))
        turned.take_on(request(ONE, "lives"))
        assert await turned.count(3) == [
            ("well", Kind.LOST, Code.INTERNAL),
            ("dies", Kind.LOST, Code.INTERNAL),
            ("lives", Kind.SWITCHED, None),
        ]

    run(test)


# --- stuck


def test_past_the_deadline_it_is_stuck_the_waiting_are_refused_and_the_end_is_told(gate: Gate) -> None:
    def work(asked: Request, _tell: Tell) -> Outcome:
        if asked.wanted == "hangs":
            gate.wait()
        return done(asked)

    async def test() -> None:
        turned = Turned(work, deadline=0.3)
        turned.take_on(request(ONE, "hangs"))
        turned.take_on(request(ONE, "waits"))
        assert await turned.count(2) == [("hangs", Kind.STUCK, Code.STUCK), ("waits", Kind.REFUSED, Code.STUCK)]
        assert set(turned.turns.stuck) == {ONE}
        await turned.turns.all_answered()
        turned.take_on(request(ONE, "late"))
        turned.take_on(request(ONE, "first"), first=True)
        assert (await turned.count(4))[2:] == [("late", Kind.REFUSED, Code.STUCK), ("first", Kind.REFUSED, Code.STUCK)]
        assert turned.turns.steps[ONE].what is What.BEGUN, "those who were refused change nothing"
        gate.let_on()
        assert (await turned.count(5))[-1] == ("hangs", Kind.SWITCHED, None)
        turned.take_on(request(ONE, "again"))
        assert (await turned.count(6))[-1] == ("again", Kind.SWITCHED, None)
        await turned.nothing_is_left()

    run(test)


def test_who_is_stuck_is_told_with_all_that_was_found_out_and_the_step_it_is_at(gate: Gate) -> None:
    def work(asked: Request, tell: Tell) -> Outcome:
        tell(Step(What.LOADING, "loading x"))
        tell(Step(What.UNBINDING, "unbinding from e1000e"))
        gate.wait()
        return done(asked)

    async def test() -> None:
        turned = Turned(work, 0.3)
        asked = request(ONE)
        turned.take_on(asked)
        await turned.turns.all_answered()
        ((about, pid, step),) = turned.asked_after
        assert (about, step) == (asked, Step(What.UNBINDING, "unbinding from e1000e"))
        (told,) = turned.answers
        assert told.kind is Kind.STUCK
        assert told.sentence == (
            f"the kernel has not answered within 0.3 s: worker {pid} sleeps in the kernel in igb_remove since "
            "2026-11-22T11:00:00+00:00, unbinding from e1000e; it is held by qemu (pid 42)"
        )
        assert f"/proc/{pid}/stack" in told.hint
        assert os.path.exists(f"/proc/{pid}")  # noqa: PTH110
        assert turned.turns.stuck[ONE].request == asked
        assert turned.turns.steps[ONE].text == "unbinding from e1000e"
        gate.let_on()
        await turned.count(2)
        await turned.nothing_is_left()

    run(test)


def test_kin_of_who_is_stuck_is_refused_by_name_and_key_and_all_others_are_served(gate: Gate) -> None:
    def work(asked: Request, _tell: Tell) -> Outcome:
        if asked.wanted == "hangs":
            gate.wait()
        return done(asked)

    async def test() -> None:
        turned = Turned(work, deadline=0.3)
        turned.take_on(request(ONE, "hangs"), keys=[_GROUP, f"PF {ONE}"])
        turned.take_on(request(OTHER, "kin"), keys=[_GROUP, f"PF {ONE}"])
        turned.take_on(request(ONE, "own"), keys=[_GROUP, f"PF {ONE}"])
        turned.take_on(request(OTHER, "far"), request(THIRD, "kin by another"), keys=[_GROUP])
        await turned.until(5)
        turned.take_on(request(THIRD, "late kin"), keys=[f"PF {ONE}", "IOMMU group 11"])
        by_wanted = {answer.request.wanted: answer for answer in turned.answers}
        assert {wanted: answer.code for wanted, answer in by_wanted.items()} == {
            "hangs": Code.STUCK,
            "kin": Code.KIN_STUCK,
            "own": Code.STUCK,
            "far": Code.KIN_STUCK,
            "kin by another": Code.KIN_STUCK,
            "late kin": Code.KIN_STUCK,
        }
        shared = {"kin": f"{_GROUP} and PF {ONE}", "far": _GROUP, "late kin": f"PF {ONE}"}
        for wanted, keys in shared.items():
            start = f"it shares {keys} with {ONE}, which is stuck in the kernel: worker "
            assert by_wanted[wanted].sentence.startswith(start)
            assert by_wanted[wanted].hint
        assert by_wanted["own"].sentence.startswith(f"an earlier switch of {ONE} is still stuck in the kernel: worker ")
        assert set(turned.turns.steps) == set(turned.turns.stuck) == {ONE}

        turned.take_on(request(THIRD, "unrelated"), keys=["IOMMU group 11"])
        assert (await turned.count(7))[-1] == ("unrelated", Kind.SWITCHED, None)
        gate.let_on()
        assert (await turned.count(8))[-1] == ("hangs", Kind.SWITCHED, None)
        turned.take_on(request(OTHER, "healed"), keys=[_GROUP])
        assert (await turned.count(9))[-1] == ("healed", Kind.SWITCHED, None)
        await turned.nothing_is_left()

    run(test)


def test_who_only_shares_a_key_with_who_is_stuck_is_served_and_who_wants_it_alone_is_refused(
    puppets: list[Puppet],
) -> None:
    async def test() -> None:
        turned = Turned()
        pf = f"PF {ONE}"
        turned.take_on(request(OTHER, "stuck VF"), shared=[pf], deadline=0)
        turned.take_on(request(ONE, "PF behind"), keys=[pf])
        turned.take_on(request(THIRD, "VF behind the PF"), shared=[pf])
        assert await turned.count(2) == [
            ("stuck VF", Kind.STUCK, Code.STUCK),
            ("PF behind", Kind.REFUSED, Code.KIN_STUCK),
        ]
        assert f"it shares {pf} with {OTHER}, which is stuck" in turned.answers[1].sentence
        turned.take_on(request(ONE, "late PF"), keys=[pf])
        turned.take_on(request(OTHER, "own"), shared=[pf])
        turned.take_on(request(DeviceId("pci", "late"), "late VF"), shared=[pf])
        assert (await turned.count(4))[2:] == [
            ("late PF", Kind.REFUSED, Code.KIN_STUCK),
            ("own", Kind.REFUSED, Code.STUCK),
        ]
        await until(lambda: len(puppets) == 3)
        for puppet in reversed(puppets):
            puppet.end()
        assert sorted((await turned.count(7))[4:]) == [
            ("VF behind the PF", Kind.SWITCHED, None),
            ("late VF", Kind.SWITCHED, None),
            ("stuck VF", Kind.SWITCHED, None),
        ]
        await turned.nothing_is_left()

    run(test)


def test_the_vfs_of_a_pf_that_is_stuck_are_refused(puppets: list[Puppet]) -> None:
    async def test() -> None:
        turned = Turned()
        turned.take_on(request(ONE, "stuck PF"), keys=["PF"], deadline=0)
        turned.take_on(request(OTHER, "VF behind"), shared=["PF"])
        turned.take_on(request(THIRD, "stranger"))
        assert await turned.count(2) == [
            ("stuck PF", Kind.STUCK, Code.STUCK),
            ("VF behind", Kind.REFUSED, Code.KIN_STUCK),
        ]
        turned.take_on(request(THIRD, "late VF"), shared=["PF"])
        assert (await turned.count(3))[-1] == ("late VF", Kind.REFUSED, Code.KIN_STUCK)
        for puppet in puppets:
            puppet.end()
        await turned.nothing_is_left()

    run(test)


def test_of_two_that_are_stuck_together_both_are_and_the_end_of_both_is_told(gate: Gate) -> None:
    def work(asked: Request, tell: Tell) -> Outcome:
        if asked.device == OTHER:
            tell(Step(What.UNBINDING, "unbinding from nvme"))
            gate.wait()
        return done(asked)

    async def test() -> None:
        turned = Turned(work, 0.3)
        turned.take_on(request(ONE, "a"), request(OTHER, "b"))
        assert await turned.count(2) == [("a", Kind.STUCK, Code.STUCK), ("b", Kind.STUCK, Code.STUCK)]
        ((about, _, step),) = turned.asked_after
        assert (about.device, step.text) == (OTHER, "unbinding from nvme"), "the one at which the worker sleeps"
        assert set(turned.turns.stuck) == {ONE, OTHER}
        assert len(set(turned.turns.stuck.values())) == 1
        gate.let_on()
        assert (await turned.count(4))[2:] == [("a", Kind.SWITCHED, None), ("b", Kind.SWITCHED, None)]
        await turned.nothing_is_left()

    run(test)


def test_who_wakes_while_it_is_inquired_was_never_stuck(puppets: list[Puppet]) -> None:
    class Asking(Turned):
        async def inquire(self, asked: Request, pid: int, step: Step) -> Stuck:
            self.take_on(request(ONE, "behind"))
            puppets[0].end()
            return await super().inquire(asked, pid, step)

    async def test() -> None:
        turned = Asking()
        turned.take_on(request(ONE, "wakes"), deadline=0)
        await until(lambda: len(puppets) == 2)
        puppets[1].end()
        assert await turned.count(2) == [("wakes", Kind.SWITCHED, None), ("behind", Kind.SWITCHED, None)]
        assert len(turned.asked_after) == 1
        await turned.nothing_is_left()

    run(test)


def test_a_deadline_of_nothing_is_past_at_once_and_holds_for_that_one_alone(gate: Gate) -> None:
    """A daemon before this one has waited for it long enough."""

    def work(asked: Request, _tell: Tell) -> Outcome:
        gate.wait()
        return done(asked)

    async def test() -> None:
        turned = Turned(work)
        turned.take_on(request(ONE, "recovered"), deadline=0)
        assert await turned.count(1) == [("recovered", Kind.STUCK, Code.STUCK)]
        assert "within 60 s" in turned.answers[0].sentence
        gate.let_on()
        await turned.count(2)
        turned.take_on(request(ONE, "next"))
        await gate.arrival()
        gate.let_on()
        assert (await turned.count(3))[-1] == ("next", Kind.SWITCHED, None)
        assert turned.turns.deadline == _DEADLINE

    run(test)


# --- beginning, ending


def test_with_each_answer_it_is_told_whether_its_request_was_begun(gate: Gate) -> None:
    """Only what was begun is written down as such, so only that has an end to be written down."""

    def work(asked: Request, _tell: Tell) -> Outcome:
        if asked.wanted == "hangs":
            gate.wait()
        if asked.wanted == "refused":  # for the reason for which others are refused that were never begun
            return Outcome(asked, Kind.REFUSED, asked.wanted, code=Code.STUCK)
        return done(asked)

    async def test() -> None:
        turned = Turned(work, deadline=0.3)
        turned.take_on(request(ONE, "hangs"))
        for wanted in ("withdrawn", "behind"):
            turned.take_on(request(ONE, wanted))
        turned.turns.withdraw(lambda each: each.wanted == "withdrawn")
        await turned.until(3)
        turned.take_on(request(ONE, "late"))
        gate.let_on()
        await turned.until(5)
        turned.take_on(request(ONE, "refused"))
        answers = await turned.count(6)
        assert [(wanted, kind, had) for (wanted, kind, _), had in zip(answers, turned.had_turn, strict=True)] == [
            ("withdrawn", Kind.REFUSED, False),
            ("hangs", Kind.STUCK, True),
            ("behind", Kind.REFUSED, False),
            ("late", Kind.REFUSED, False),
            ("hangs", Kind.SWITCHED, True),
            ("refused", Kind.REFUSED, True),
        ]
        await turned.nothing_is_left()

    run(test)


def test_a_worker_that_is_killed_is_told_as_lost_and_the_next_has_its_turn() -> None:
    def work(asked: Request, _tell: Tell) -> Outcome:
        if asked.wanted == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        return done(asked)

    async def test() -> None:
        turned = Turned(work)
        turned.take_on(request(ONE, "dies"))
        turned.take_on(request(ONE, "lives"))
        assert await turned.count(2) == [("dies", Kind.LOST, Code.INTERNAL), ("lives", Kind.SWITCHED, None)]
        assert "if it has left anything half done, that is put back" in turned.answers[0].hint

    run(test)


@pytest.mark.parametrize(("error", "code"), [(OSError(28, "full"), Code.HOST), (KeyError("bug"), Code.INTERNAL)])
def test_requests_that_cannot_begin_are_answered_too(error: Exception, code: Code) -> None:
    class Failing(Turned):
        def begin(self, requests: Sequence[Request], keys: Keys) -> Start | FlavourError:
            if requests[0].wanted == "fails":
                raise error
            return super().begin(requests, keys)

    async def test() -> None:
        turned = Failing()
        turned.take_on(request(ONE, "fails"), request(OTHER, "too"))
        turned.take_on(request(ONE, "works"))
        await turned.turns.all_answered()
        assert [(answer.kind, answer.code) for answer in turned.answers] == [
            (Kind.REFUSED, code),
            (Kind.REFUSED, code),
            (Kind.SWITCHED, None),
        ]
        assert all(turned.had_turn), "it may stand in the journal"
        await turned.nothing_is_left()

    run(test)


def test_who_is_told_of_an_end_sees_how_many_are_open_and_may_take_on_another_that_counts() -> None:
    class Again(Turned):
        def done(self, outcomes: Sequence[Outcome], begun: bool) -> None:
            (outcome,) = outcomes
            seen.append((outcome.request.wanted, self.turns.open))
            if outcome.request.wanted == "a":
                self.take_on(request(ONE, "first"), first=True)

    seen: list[tuple[str, int]] = []

    async def test() -> None:
        turned = Again()
        for wanted in "ab":
            turned.take_on(request(ONE, wanted))
        await turned.turns.all_answered()
        assert seen == [("a", 1), ("first", 1), ("b", 0)]

        seen.clear()
        turned.take_on(request(ONE, "a"))
        await turned.turns.all_answered()
        assert seen == [("a", 0), ("first", 0)], "all are answered only when what was taken on meanwhile is too"

    run(test)


def test_between_its_answer_and_what_is_written_down_a_device_counts_as_in_work(puppets: list[Puppet]) -> None:
    """Or a pass of the policy could ask for it before it knows what was asked for explicitly."""

    async def test() -> None:
        seen: list[object] = []

        class Watched(Turned):
            def answered(self, outcomes: Sequence[Outcome]) -> None:
                super().answered(outcomes)
                asyncio.get_running_loop().call_soon(lambda: seen.append(ONE in self.turns.steps))

            def done(self, outcomes: Sequence[Outcome], begun: bool) -> None:
                super().done(outcomes, begun)
                seen.append("done")

        turned = Watched()
        turned.take_on(request(ONE))
        await until(lambda: bool(puppets))
        puppets[0].end()
        await turned.nothing_is_left()
        assert seen == [True, "done"]

    run(test)


def test_an_answer_that_cannot_be_told_keeps_nobody_waiting(puppets: list[Puppet]) -> None:
    async def test() -> None:
        class Mute(Turned):
            def answered(self, outcomes: Sequence[Outcome]) -> None:
                raise RuntimeError("no")

        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        turned = Mute()
        turned.take_on(request(ONE))
        await until(lambda: bool(puppets))
        puppets[0].end()
        await turned.turns.all_answered()
        assert turned.turns.open == 0
        await until(lambda: not turned.turns._servers)
        gc.collect()
        assert [str(each["exception"]) for each in told] == ["no"]
        assert turned.answers == []

    run(test)


def test_steps_are_told_in_order_first_those_of_the_turn_then_the_workers_own() -> None:
    def work(asked: Request, tell: Tell) -> Outcome:
        for number in range(3):
            tell(Step(What.BINDING, f"{asked.wanted} {number}"))
        return done(asked)

    async def test() -> None:
        turned = Turned(work)
        turned.take_on(request(ONE, "a"))
        turned.take_on(request(ONE, "b"))
        await turned.turns.all_answered()
        for name in "ab":
            own = [step for wanted, step in turned.told if wanted == name]
            assert [step.what for step in own] == [What.WAITING, What.BEGUN, *[What.BINDING] * 3]
            assert [step.text for step in own][2:] == [f"{name} {number}" for number in range(3)]
            assert own[1].text == "reading the device"
        assert [wanted for wanted, step in turned.told if step.what is not What.WAITING] == ["a"] * 4 + ["b"] * 4

    run(test)


def test_the_last_step_of_a_device_is_known_until_it_is_done_with(gate: Gate) -> None:
    def work(asked: Request, tell: Tell) -> Outcome:
        tell(Step(What.BINDING, "binding to x"))
        gate.wait()
        return done(asked)

    async def test() -> None:
        turned = Turned(work)
        turned.take_on(request(ONE))
        assert turned.turns.steps[ONE].what is What.WAITING
        await turned.step(ONE, "binding to x")
        assert set(turned.turns.steps) == {ONE}
        gate.let_on()
        await turned.turns.all_answered()
        assert turned.turns.steps == {}

    run(test)


def test_who_comes_or_goes_behind_changes_nothing_of_the_step_of_the_one_at_work(gate: Gate) -> None:
    def work(asked: Request, tell: Tell) -> Outcome:
        tell(Step(What.BINDING, "binding to x"))
        gate.wait()
        return done(asked)

    async def test() -> None:
        turned = Turned(work)
        turned.take_on(request(ONE, "a"))
        await turned.step(ONE, "binding to x")
        turned.take_on(request(ONE, "b"))
        assert turned.turns.steps[ONE].text == "binding to x"
        turned.turns.withdraw(lambda each: each.wanted == "b")
        assert turned.turns.steps[ONE].text == "binding to x"
        turned.take_on(request(ONE, "c"))
        turned.turns.drop_waiting()
        assert turned.turns.steps[ONE].text == "binding to x"
        gate.let_on()
        await turned.nothing_is_left()

    run(test)


# --- withdrawing and dropping


def test_what_is_withdrawn_is_refused_if_its_turn_has_not_come_and_nothing_else(gate: Gate) -> None:
    def work(asked: Request, _tell: Tell) -> Outcome:
        if asked.wanted == "begun":
            gate.wait()
        return done(asked)

    async def test() -> None:
        turned = Turned(work)
        mine = [request(ONE, "begun"), request(ONE, "mine"), request(OTHER, "mine too")]
        for each in (mine[0], mine[1], request(ONE, "foreign")):
            turned.take_on(each)
        await gate.arrival()
        turned.take_on(mine[2])
        assert turned.turns.withdraw(lambda each: each in mine) == 2
        assert turned.turns.withdraw(lambda each: each in mine) == 0
        assert await turned.count(2) == [
            ("mine", Kind.REFUSED, Code.WITHDRAWN),
            ("mine too", Kind.REFUSED, Code.WITHDRAWN),
        ]
        gate.let_on()
        assert (await turned.count(4))[2:] == [("begun", Kind.SWITCHED, None), ("foreign", Kind.SWITCHED, None)]
        turned.take_on(request(OTHER, "again"))
        assert (await turned.count(5))[-1] == ("again", Kind.SWITCHED, None)
        await turned.nothing_is_left()

    run(test)


def test_an_equal_request_of_somebody_else_is_not_withdrawn(gate: Gate) -> None:
    def work(asked: Request, _tell: Tell) -> Outcome:
        gate.wait()
        return done(asked)

    async def test() -> None:
        turned = Turned(work)
        turned.take_on(request(ONE, "begun"))
        mine, his = (Request(ONE, "vfio", Origin.VARLINK, uuid=uuid) for uuid in ("mine", "his"))
        for each in (his, mine):
            turned.take_on(each)
        await gate.arrival()
        assert turned.turns.withdraw(lambda each: each.uuid == "mine") == 1
        assert [answer.request for answer in turned.answers] == [mine]
        for _ in range(2):
            gate.let_on()
        await turned.count(3)
        assert turned.answers[-1].request == his

    run(test)


def test_what_is_not_to_be_begun_when_its_turn_comes_is_refused_untouched_and_the_next_one_has_its_turn(
    puppets: list[Puppet],
) -> None:
    async def test() -> None:
        turned = Turned()
        turned.not_begun["gone"] = FlavourError(Code.WITHDRAWN, "who asked has gone")
        turned.take_on(request(ONE, "begun"))
        turned.take_on(request(ONE, "gone"), request(OTHER, "with it"))
        turned.take_on(request(ONE, "behind"))
        await until(lambda: len(puppets) == 1)
        puppets[0].end()
        assert await turned.count(3) == [
            ("begun", Kind.SWITCHED, None),
            ("gone", Kind.REFUSED, Code.WITHDRAWN),
            ("with it", Kind.REFUSED, Code.WITHDRAWN),
        ]
        assert turned.had_turn == [True, False, False]
        await until(lambda: len(puppets) == 2)
        puppets[1].end()
        assert (await turned.count(4))[-1] == ("behind", Kind.SWITCHED, None)
        assert [word for word, step in turned.told if step.what is What.BEGUN] == ["begun", "behind"]
        await turned.nothing_is_left()

    run(test)


def test_what_was_asked_together_is_withdrawn_together(puppets: list[Puppet]) -> None:
    async def test() -> None:
        turned = Turned()
        turned.take_on(request(ONE, "begun"))
        turned.take_on(request(ONE, "a"), request(OTHER, "b"))
        turned.take_on(request(OTHER, "c"))
        await until(lambda: len(puppets) == 1)
        assert turned.turns.waiting == 3, "c stands behind b, which waits for a"
        assert turned.turns.withdraw(lambda each: each.device == OTHER and each.wanted == "b") == 2
        assert await turned.count(2) == [("a", Kind.REFUSED, Code.WITHDRAWN), ("b", Kind.REFUSED, Code.WITHDRAWN)]
        await until(lambda: len(puppets) == 2)
        puppets[1].end()
        assert (await turned.count(3))[-1] == ("c", Kind.SWITCHED, None), "nobody stands before it any more"
        assert turned.turns.withdraw(lambda _each: True) == 0, "what has begun is not withdrawn, none of it"
        puppets[0].end()
        await turned.nothing_is_left()

    run(test)


def test_what_waits_for_a_slot_can_be_withdrawn_and_dropped_and_leaves_its_keys(puppets: list[Puppet]) -> None:
    async def test() -> None:
        turned = Turned()
        for number in range(20):
            turned.take_on(request(DeviceId("pci", str(number)), str(number)))
        turned.take_on(request(DeviceId("pci", "19"), "behind"))
        await until(lambda: len(puppets) == 16)
        assert turned.turns.waiting == 5
        assert turned.turns.withdraw(lambda each: each.wanted in ("3", "17", "19")) == 2
        assert turned.turns.waiting == 3
        assert [request.wanted for request in turned.turns.drop_waiting()] == ["16", "18", "behind"]
        assert (turned.turns.open, turned.turns.waiting) == (16, 0)
        turned.take_on(request(DeviceId("pci", "17"), "again"))
        for puppet in puppets[:16]:
            puppet.end()
        await until(lambda: len(puppets) == 17)
        puppets[16].end()
        answers = await turned.count(19)
        assert [wanted for wanted, _, code in answers if code is Code.WITHDRAWN] == ["17", "19"]
        assert answers[-1] == ("again", Kind.SWITCHED, None)
        await turned.nothing_is_left()

    run(test)


def test_what_waits_can_be_dropped_and_what_has_begun_is_answered(gate: Gate) -> None:
    def work(asked: Request, _tell: Tell) -> Outcome:
        gate.wait()
        return done(asked)

    async def test() -> None:
        turned = Turned(work)
        waiting = [request(ONE, "b"), request(ONE, "c"), request(OTHER, "d")]
        turned.take_on(request(ONE, "a"))
        turned.take_on(waiting[0])
        turned.take_on(*waiting[1:])
        await gate.arrival()
        assert turned.turns.waiting == 3
        assert turned.turns.drop_waiting() == waiting
        assert turned.turns.drop_waiting() == []
        assert (turned.turns.open, turned.turns.waiting) == (1, 0)
        gate.let_on()
        await turned.turns.all_answered()
        assert await turned.count(1) == [("a", Kind.SWITCHED, None)]
        await turned.nothing_is_left()

    run(test)


def test_when_nothing_has_begun_all_are_answered_as_soon_as_what_waits_is_dropped(puppets: list[Puppet]) -> None:
    async def test() -> None:
        turned = Turned()
        turned.take_on(request(ONE, "a"))
        assert len(turned.turns.drop_waiting()) == 1
        await turned.nothing_is_left()
        assert (turned.answers, puppets) == ([], [])

    run(test)
