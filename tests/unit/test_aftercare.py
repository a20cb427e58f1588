# SPDX-License-Identifier: LGPL-2.1-or-later
"""When devices that were left half switched are put back, and what is told of it; on a clock that the test turns."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import replace

import pytest

from flavourd.aftercare import Aftercare
from flavourd.device import DeviceId
from flavourd.errors import Code
from flavourd.flavour import DEFAULT
from flavourd.outcome import Kind, Outcome
from flavourd.request import Origin, Request

_ONE, _OTHER = (DeviceId("pci", f"0000:0{number}:00.0") for number in (1, 2))


class _Loop(asyncio.SelectorEventLoop):
    """Its time passes only when somebody says so."""

    now = 0.0

    def time(self) -> float:
        return self.now


class Ward:
    """Aftercare of those devices that are half done, and what it has asked for: when, which device, whether first."""

    def __init__(self, *half_done: DeviceId) -> None:
        self.half_done = set(half_done)
        self.asked: list[tuple[float, DeviceId, bool]] = []
        self.aftercare = Aftercare(lambda device: device in self.half_done, self._put_back)

    def _put_back(self, device: DeviceId, first: bool) -> None:
        self.asked.append((asyncio.get_running_loop().time(), device, first))

    def end(self, kind: Kind, code: Code | None = None, *, device: DeviceId = _ONE, put_back: bool = False) -> bool:
        """A request has ended so; whether it is told."""
        request = Request(device, DEFAULT, Origin.PUT_BACK if put_back else Origin.VARLINK)
        outcome = Outcome(request, kind, DEFAULT, code=code)
        told = not self.aftercare.repeats(outcome)
        self.aftercare.after(outcome)
        return told

    def refuse(self, code: Code = Code.IN_USE, *, device: DeviceId = _ONE) -> bool:
        """The way back was refused; whether it is told."""
        return self.end(Kind.REFUSED, code, device=device, put_back=True)

    async def wait(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, _Loop)
        for _ in range(round(10 * seconds)):
            loop.now = round(loop.now + 0.1, 1)
            for _ in range(2):  # once for the timers that are due, once for what they do
                await asyncio.sleep(0)


def run(test: Callable[[], Coroutine[None, None, None]]) -> None:
    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(test())


def test_what_a_worker_that_died_left_half_done_is_put_back_at_once_and_before_all_others() -> None:
    async def test() -> None:
        ward = Ward(_ONE)
        ward.end(Kind.LOST)
        assert ward.asked == [(0, _ONE, True)]
        await ward.wait(1000)
        assert len(ward.asked) == 1, "its own end says how it goes on"

    run(test)


@pytest.mark.parametrize("kind", Kind)
def test_where_nothing_is_half_done_nothing_is_put_back(kind: Kind) -> None:
    async def test() -> None:
        ward = Ward(_OTHER)
        for put_back in (False, True):
            ward.end(kind, put_back=put_back)
        await ward.wait(1000)
        assert ward.asked == []

    run(test)


@pytest.mark.parametrize("kind", [Kind.SWITCHED, Kind.ALREADY])
def test_what_is_where_it_was_asked_to_be_stays_there_even_if_that_could_not_be_written_down(kind: Kind) -> None:
    async def test() -> None:
        ward = Ward(_ONE)
        ward.end(kind)
        await ward.wait(1000)
        assert ward.asked == []

    run(test)


def test_a_way_back_that_is_refused_is_tried_again_and_again_after_longer_and_longer_pauses() -> None:
    async def test() -> None:
        ward = Ward(_ONE)
        ward.refuse()
        for number in range(1, 13):
            while len(ward.asked) < number:
                await ward.wait(0.1)
            ward.refuse()
        times = [0, *(round(when) for when, _, _ in ward.asked)]
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
        assert {(device, first) for _, device, first in ward.asked} == {(_ONE, False)}, "nobody waits for it in vain"

    run(test)


@pytest.mark.parametrize("kind", [Kind.LOST, Kind.UNDONE, Kind.GONE])
def test_however_the_way_back_ends_it_is_tried_again_as_long_as_the_device_is_half_done(kind: Kind) -> None:
    async def test() -> None:
        ward = Ward(_ONE)
        ward.end(kind, put_back=True)
        assert ward.asked == [], "not at once: a worker that dies each time would be started without end"
        await ward.wait(1.1)
        assert [device for _, device, _ in ward.asked] == [_ONE]

    run(test)


def test_however_many_requests_of_a_device_are_refused_there_is_one_attempt_and_its_pause_does_not_grow() -> None:
    async def test() -> None:
        ward = Ward(_ONE)
        for _ in range(50):
            ward.end(Kind.REFUSED, Code.IN_USE)
        await ward.wait(1000)
        assert [when for when, _, _ in ward.asked] == [1]
        ward.refuse()
        for _ in range(50):
            ward.end(Kind.REFUSED, Code.IN_USE)
        await ward.wait(1000)
        assert [round(when) for when, _, _ in ward.asked] == [1, 1001]

    run(test)


def test_each_device_has_its_own_pauses() -> None:
    async def test() -> None:
        ward = Ward(_ONE, _OTHER)
        for _ in range(4):
            ward.refuse()
        ward.refuse(device=_OTHER)
        await ward.wait(20)
        assert [(round(when), device) for when, device, _ in ward.asked] == [(1, _OTHER), (8, _ONE)]

    run(test)


def test_when_somebody_else_has_brought_it_somewhere_nothing_is_tried_any_more_and_the_pauses_begin_anew() -> None:
    async def test() -> None:
        ward = Ward(_ONE)
        for _ in range(5):
            ward.refuse()
        ward.half_done.clear()
        ward.end(Kind.SWITCHED)
        await ward.wait(1000)
        assert ward.asked == []
        ward.half_done.add(_ONE)
        ward.refuse()
        await ward.wait(1.1)
        assert len(ward.asked) == 1

    run(test)


def test_what_is_no_longer_half_done_when_its_time_comes_is_left_alone() -> None:
    async def test() -> None:
        ward = Ward(_ONE)
        ward.refuse()
        ward.half_done.clear()
        await ward.wait(1000)
        assert ward.asked == []

    run(test)


def test_the_same_refusal_of_the_way_back_is_told_once() -> None:
    async def test() -> None:
        ward = Ward(_ONE, _OTHER)
        assert [ward.refuse() for _ in range(3)] == [True, False, False]
        assert ward.refuse(device=_OTHER), "of another device"
        assert [ward.refuse(Code.RELEASING) for _ in range(2)] == [True, False], "for another reason"
        assert ward.refuse(), "for the first reason again"

    run(test)


def test_what_somebody_asked_for_is_told_each_time_and_the_next_refusal_of_the_way_back_too() -> None:
    async def test() -> None:
        ward = Ward(_ONE)
        ward.refuse()
        assert all(ward.end(Kind.REFUSED, Code.IN_USE) for _ in range(3))
        assert [ward.refuse() for _ in range(2)] == [True, False]

    run(test)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.REFUSED])
def test_any_other_end_of_the_way_back_is_told_and_so_is_the_next_refusal(kind: Kind) -> None:
    async def test() -> None:
        ward = Ward(_ONE)
        ward.refuse()
        assert all(ward.end(kind, put_back=True) for _ in range(2))
        assert [ward.refuse() for _ in range(2)] == [True, False]

    run(test)


# --- what the policy asks for in vain


def _policy(kind: Kind, sentence: str, code: Code = Code.IN_USE, instance: int = 7) -> Outcome:
    return Outcome(Request(_ONE, "vfio", Origin.POLICY, instance=instance), kind, "vfio", code=code, sentence=sentence)


@pytest.mark.parametrize("kind", [Kind.REFUSED, Kind.UNDONE])
def test_why_a_rule_fails_is_told_when_that_changes(kind: Kind) -> None:
    care = Aftercare(lambda _device: False, lambda _device, _first: None)
    told = []
    for outcome in (
        _policy(kind, "a"),
        _policy(kind, "a"),
        _policy(kind, "b"),
        _policy(kind, "b", Code.ALL_REFUSED),
        _policy(kind, "b", Code.ALL_REFUSED, instance=8),
        _policy(Kind.SWITCHED, ""),
        _policy(Kind.SWITCHED, ""),
        _policy(kind, "b", Code.ALL_REFUSED, instance=8),
    ):
        told.append(not care.repeats(outcome))
        care.after(outcome)
    assert told == [True, False, True, True, True, True, True, True]


def test_what_somebody_asks_for_is_told_each_time() -> None:
    care = Aftercare(lambda _device: False, lambda _device, _first: None)
    for _ in range(2):
        outcome = replace(_policy(Kind.REFUSED, "a"), request=Request(_ONE, "vfio", Origin.VARLINK))
        assert not care.repeats(outcome)
        care.after(outcome)
