# SPDX-License-Identifier: LGPL-2.1-or-later
"""Turns: order within a device, none between devices, and an answer to everybody; with real workers."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine

import pytest

from flavourd.device import DeviceId
from flavourd.errors import Code
from flavourd.outcome import Kind, Outcome
from flavourd.request import Origin, Request
from flavourd.step import Step, Tell, What
from flavourd.turns import Turns

from .gate import Gate

_DEADLINE = 60.0
ONE, OTHER = DeviceId("pci", "0000:01:00.0"), DeviceId("pci", "0000:02:00.0")


def request(device: DeviceId, wanted: str = "vfio") -> Request:
    return Request(device, wanted, Origin.UEVENT)


def run(test: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), _DEADLINE))


def ignored(_asked: Request, _step: Step) -> None:
    """For who does not look at the steps."""


def done(asked: Request) -> Outcome:
    return Outcome(asked, Kind.SWITCHED, asked.wanted)


class Turned:
    """Turns whose workers do what `work` says, and what they answered; `count` waits for so many answers."""

    def __init__(self, work: Callable[[Request], Outcome], deadline: float = _DEADLINE) -> None:
        self.answers: list[Outcome] = []
        self.told: list[tuple[str, What]] = []
        self._new = asyncio.Event()
        self.turns = Turns(lambda asked: lambda _tell: work(asked), self._answered, self._told, deadline)

    def _told(self, asked: Request, step: Step) -> None:
        self.told.append((asked.wanted, step.what))

    def _answered(self, outcome: Outcome) -> None:
        self.answers.append(outcome)
        self._new.set()

    async def count(self, number: int) -> list[tuple[str, Kind, Code | None]]:
        while len(self.answers) < number:
            self._new.clear()
            await self._new.wait()
        return [(answer.request.wanted, answer.kind, answer.code) for answer in self.answers]


def test_requests_of_one_device_are_answered_in_their_order() -> None:
    async def test() -> None:
        turned = Turned(done)
        for wanted in "abcde":
            turned.turns.take_on(request(ONE, wanted))
        await turned.turns.all_answered()
        assert [answer.request.wanted for answer in turned.answers] == list("abcde")
        assert turned.turns.open == 0

    run(test)


def test_another_device_does_not_wait(gate: Gate) -> None:
    def work(asked: Request) -> Outcome:
        if asked.device == ONE:
            gate.wait()
        return done(asked)

    async def test() -> None:
        turned = Turned(work)
        turned.turns.take_on(request(ONE, "slow"))
        turned.turns.take_on(request(ONE, "next"))
        await gate.arrival()
        turned.turns.take_on(request(OTHER, "quick"))
        assert await turned.count(1) == [("quick", Kind.SWITCHED, None)]
        gate.let_on()
        gate.let_on()
        assert [wanted for wanted, _, _ in await turned.count(3)] == ["quick", "slow", "next"]

    run(test)


def test_past_the_deadline_it_is_stuck_the_waiting_are_refused_and_the_end_is_told(gate: Gate) -> None:
    def work(asked: Request) -> Outcome:
        if asked.wanted == "hangs":
            gate.wait()
        return done(asked)

    async def test() -> None:
        turned = Turned(work, deadline=0.3)
        turned.turns.take_on(request(ONE, "hangs"))
        turned.turns.take_on(request(ONE, "waits"))
        assert await turned.count(2) == [("hangs", Kind.STUCK, Code.STUCK), ("waits", Kind.REFUSED, Code.STUCK)]
        assert turned.turns.stuck == {ONE}
        await turned.turns.all_answered()
        turned.turns.take_on(request(ONE, "late"))
        assert (await turned.count(3))[-1] == ("late", Kind.REFUSED, Code.STUCK)
        gate.let_on()
        assert (await turned.count(4))[-1] == ("hangs", Kind.SWITCHED, None)
        assert turned.turns.stuck == set()
        turned.turns.take_on(request(ONE, "again"))
        assert (await turned.count(5))[-1] == ("again", Kind.SWITCHED, None)

    run(test)


def test_a_worker_that_is_killed_is_told_as_lost_and_the_next_has_its_turn() -> None:
    def work(asked: Request) -> Outcome:
        if asked.wanted == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        return done(asked)

    async def test() -> None:
        turned = Turned(work)
        turned.turns.take_on(request(ONE, "dies"))
        turned.turns.take_on(request(ONE, "lives"))
        assert await turned.count(2) == [("dies", Kind.LOST, Code.INTERNAL), ("lives", Kind.SWITCHED, None)]

    run(test)


@pytest.mark.parametrize(("error", "code"), [(OSError(28, "full"), Code.HOST), (KeyError("bug"), Code.INTERNAL)])
def test_a_request_that_cannot_begin_is_answered_too(error: Exception, code: Code) -> None:
    async def test() -> None:
        answers: list[Outcome] = []

        def begin(asked: Request) -> Callable[[Tell], Outcome]:
            if asked.wanted == "fails":
                raise error
            return lambda _tell: done(asked)

        turns = Turns(begin, answers.append, ignored, _DEADLINE)
        turns.take_on(request(ONE, "fails"))
        turns.take_on(request(ONE, "works"))
        await turns.all_answered()
        assert [(answer.kind, answer.code) for answer in answers] == [(Kind.REFUSED, code), (Kind.SWITCHED, None)]

    run(test)


def test_what_waits_can_be_dropped_and_what_has_begun_is_answered(gate: Gate) -> None:
    def work(asked: Request) -> Outcome:
        gate.wait()
        return done(asked)

    async def test() -> None:
        turned = Turned(work)
        for wanted in "abc":
            turned.turns.take_on(request(ONE, wanted))
        await gate.arrival()
        turned.turns.drop_waiting()
        assert turned.turns.open == 1
        gate.let_on()
        await turned.turns.all_answered()
        assert await turned.count(1) == [("a", Kind.SWITCHED, None)]

    run(test)


def test_more_requests_than_slots_are_all_answered() -> None:
    async def test() -> None:
        turned = Turned(done)
        for number in range(40):
            turned.turns.take_on(request(DeviceId("pci", f"0000:{number:02x}:00.0")))
        await turned.turns.all_answered()
        assert len(turned.answers) == 40

    run(test)


def test_who_is_told_of_an_answer_sees_how_many_are_open_and_may_take_on_another_that_counts() -> None:
    async def test() -> None:
        seen: list[tuple[str, int]] = []

        def answered(outcome: Outcome) -> None:
            seen.append((outcome.request.wanted, turns.open))
            if outcome.request.wanted == "a":
                turns.take_on(request(ONE, "first"), first=True)

        turns = Turns(lambda asked: lambda _tell: done(asked), answered, ignored, _DEADLINE)
        for wanted in "ab":
            turns.take_on(request(ONE, wanted))
        await turns.all_answered()
        assert seen == [("a", 1), ("first", 1), ("b", 0)]

        seen.clear()
        turns.take_on(request(ONE, "a"))
        await turns.all_answered()
        assert seen == [("a", 0), ("first", 0)], "all are answered only when what was taken on meanwhile is too"

    run(test)


def test_steps_are_told_in_order_first_those_of_the_turn_then_the_workers_own() -> None:
    async def test() -> None:
        seen: list[tuple[str, Step]] = []

        def work(tell: Tell, asked: Request) -> Outcome:
            for number in range(3):
                tell(Step(What.BINDING, f"{asked.wanted} {number}"))
            return done(asked)

        turns = Turns(
            lambda asked: lambda tell: work(tell, asked),
            lambda outcome: seen.append((outcome.request.wanted, Step(What.REFUSED, "the answer"))),
            lambda asked, step: seen.append((asked.wanted, step)),
            _DEADLINE,
        )
        turns.take_on(request(ONE, "a"))
        turns.take_on(request(ONE, "b"))
        await turns.all_answered()
        for name in "ab":
            own = [step for wanted, step in seen if wanted == name]
            assert [step.what for step in own] == [What.WAITING, What.BEGUN, *[What.BINDING] * 3, What.REFUSED]
            assert [step.text for step in own][2:5] == [f"{name} {number}" for number in range(3)]
            assert own[1].text == "reading the device"
        assert [wanted for wanted, step in seen if step.what is not What.WAITING] == ["a"] * 5 + ["b"] * 5

    run(test)


def test_the_last_step_of_a_device_is_known_until_it_is_done_with(gate: Gate) -> None:
    async def test() -> None:
        def work(tell: Tell, asked: Request) -> Outcome:
            tell(Step(What.BINDING, "binding to x"))
            gate.wait()
            return done(asked)

        turns = Turns(lambda asked: lambda tell: work(tell, asked), lambda _: None, ignored, _DEADLINE)
        turns.take_on(request(ONE))
        assert turns.steps[ONE].what is What.WAITING
        await gate.arrival()
        while turns.steps[ONE].what is not What.BINDING:
            await asyncio.sleep(0.001)
        assert set(turns.steps) == {ONE}
        gate.let_on()
        await turns.all_answered()
        await asyncio.sleep(0)
        assert turns.steps == {}

    run(test)


def test_of_a_device_that_is_stuck_the_answer_names_the_step_it_is_stuck_in(gate: Gate) -> None:
    async def test() -> None:
        answers: list[Outcome] = []

        def work(tell: Tell, asked: Request) -> Outcome:
            tell(Step(What.LOADING, "loading x"))
            tell(Step(What.UNBINDING, "unbinding from e1000e"))
            gate.wait()
            return done(asked)

        turns = Turns(lambda asked: lambda tell: work(tell, asked), answers.append, ignored, 0.3)
        turns.take_on(request(ONE))
        await turns.all_answered()
        assert answers[0].kind is Kind.STUCK
        assert "unbinding from e1000e" in answers[0].sentence
        assert "loading" not in answers[0].sentence
        assert turns.steps[ONE].text == "unbinding from e1000e"
        gate.let_on()

    run(test)


def test_what_is_withdrawn_is_refused_if_its_turn_has_not_come_and_nothing_else(gate: Gate) -> None:
    def work(asked: Request) -> Outcome:
        if asked.wanted == "begun":
            gate.wait()
        return done(asked)

    async def test() -> None:
        turned = Turned(work)
        asked = [request(ONE, "begun"), request(ONE, "mine"), request(ONE, "foreign"), request(OTHER, "mine too")]
        for each in asked[:3]:
            turned.turns.take_on(each)
        await gate.arrival()
        turned.turns.take_on(asked[3])
        mine = [asked[0], asked[1], asked[3], request(DeviceId("pci", "0000:03:00.0"), "never taken on")]
        for _ in range(2):
            turned.turns.withdraw(mine)
        assert await turned.count(2) == [
            ("mine", Kind.REFUSED, Code.WITHDRAWN),
            ("mine too", Kind.REFUSED, Code.WITHDRAWN),
        ]
        gate.let_on()
        assert (await turned.count(4))[2:] == [("begun", Kind.SWITCHED, None), ("foreign", Kind.SWITCHED, None)]
        await turned.turns.all_answered()
        assert turned.turns.open == 0
        turned.turns.take_on(request(OTHER, "again"))
        assert (await turned.count(5))[-1] == ("again", Kind.SWITCHED, None)

    run(test)


def test_an_equal_request_of_somebody_else_is_not_withdrawn(gate: Gate) -> None:
    def work(asked: Request) -> Outcome:
        gate.wait()
        return done(asked)

    async def test() -> None:
        turned = Turned(work)
        turned.turns.take_on(request(ONE, "begun"))
        mine, his = (Request(ONE, "vfio", Origin.VARLINK, uuid=uuid) for uuid in ("mine", "his"))
        for each in (his, mine):
            turned.turns.take_on(each)
        await gate.arrival()
        turned.turns.withdraw([mine])
        assert [answer.request for answer in turned.answers] == [mine]
        for _ in range(2):
            gate.let_on()
        await turned.count(3)
        assert turned.answers[-1].request == his

    run(test)


def test_who_drops_what_waits_is_told_what_it_was_and_nobody_is_answered(gate: Gate) -> None:
    def work(asked: Request) -> Outcome:
        gate.wait()
        return done(asked)

    async def test() -> None:
        turned = Turned(work)
        waiting = [request(ONE, "b"), request(ONE, "c")]
        for each in (request(ONE, "a"), *waiting):
            turned.turns.take_on(each)
        await gate.arrival()
        assert turned.turns.drop_waiting() == waiting
        assert turned.turns.drop_waiting() == []
        gate.let_on()
        await turned.turns.all_answered()
        assert [answer.request.wanted for answer in turned.answers] == ["a"]

    run(test)
