# SPDX-License-Identifier: LGPL-2.1-or-later
"""Looks at devices: who sleeps there keeps nobody else waiting; with real workers."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import NoReturn

import pytest

from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.sight import Sight

from .gate import Gate

_DEADLINE = 60
_ONE, _OTHER = (DeviceId("pci", f"0000:0{number}:00.0") for number in (1, 2))
_AT_ONCE = 4


def run(test: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), _DEADLINE))


async def error(look: Coroutine[None, None, object]) -> FlavourError:
    with pytest.raises(FlavourError) as caught:
        await look
    assert caught.value.hint
    return caught.value


async def turns_of_the_loop() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_what_was_seen_comes_back_from_another_process() -> None:
    async def test() -> None:
        sight = Sight(())
        for look in (sight.look(os.getpid), sight.look_at(_ONE, os.getpid), sight.at_once(os.getpid)):
            assert await look != os.getpid()

    run(test)


def test_what_the_look_refuses_is_refused_in_its_words() -> None:
    def refuse() -> NoReturn:
        raise FlavourError(Code.NO_DEVICE, "there is none", "look elsewhere")

    async def test() -> None:
        refused = await error(Sight(()).look_at(_ONE, refuse))
        assert (refused.code, refused.sentence, refused.hint) == (Code.NO_DEVICE, "there is none", "look elsewhere")

    run(test)


def test_a_look_that_dies_or_fails_otherwise_is_told_as_a_bug() -> None:
    def fail() -> NoReturn:
        raise ZeroDivisionError("what nobody foresaw")

    async def test() -> None:
        sight = Sight(())
        killed = await error(sight.look(lambda: os.kill(os.getpid(), signal.SIGKILL)))
        assert killed.code is Code.INTERNAL
        failed = await error(sight.look_at(_ONE, fail))
        assert failed.code is Code.INTERNAL
        assert "what nobody foresaw" in failed.sentence

    run(test)


def test_a_look_for_which_there_is_no_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> NoReturn:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    async def test() -> None:
        monkeypatch.setattr(os, "fork", fork)
        assert (await error(Sight(()).look(os.getpid))).code is Code.HOST

    run(test)


def test_a_device_that_is_stuck_is_not_looked_at(tmp_path: Path) -> None:
    async def test() -> None:
        stuck = {_ONE}
        sight = Sight(stuck)
        refused = await error(sight.look_at(_ONE, (tmp_path / "looked").touch))
        assert refused.code is Code.STUCK
        assert str(_ONE) in refused.sentence
        assert not (tmp_path / "looked").exists()
        assert await sight.look_at(_OTHER, lambda: "seen") == "seen"
        stuck.clear()
        assert await sight.look_at(_ONE, lambda: "seen") == "seen"

    run(test)


def test_a_look_that_sleeps_in_the_kernel_is_told_so_and_nobody_looks_there_until_it_wakes(gate: Gate) -> None:
    async def test() -> None:
        sight = Sight(())
        slept = await error(sight.at_once(gate.wait, _ONE, seconds=0.2))
        assert slept.code is Code.STUCK
        assert str(_ONE) in slept.sentence
        assert "0.2 s" in slept.sentence
        pid = slept.hint.partition("/proc/")[2].partition("/")[0]
        assert os.path.exists(f"/proc/{pid}")  # noqa: PTH110
        assert (await error(sight.look_at(_ONE, os.getpid))).code is Code.STUCK
        assert await sight.look_at(_OTHER, lambda: "seen") == "seen"
        gate.let_on()
        while True:
            try:
                assert await sight.look_at(_ONE, lambda: "awake") == "awake"
            except FlavourError:
                await asyncio.sleep(0.01)
            else:
                break

    run(test)


def test_a_late_look_that_fails_in_the_end_disturbs_nobody(gate: Gate) -> None:
    def die() -> None:
        gate.wait()
        os.kill(os.getpid(), signal.SIGKILL)

    async def test() -> None:
        unforeseen: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unforeseen.append(context))
        sight = Sight(())
        await error(sight.at_once(die, _ONE, seconds=0.1))
        gate.let_on()
        while sight._asleep:
            await asyncio.sleep(0.01)
        assert unforeseen == []

    run(test)


def test_one_device_is_looked_at_by_one_at_a_time_so_that_it_takes_one_slot_of_all(gates: tuple[Gate, Gate]) -> None:
    first, second = gates

    async def test() -> None:
        sight = Sight(())
        looks = [asyncio.create_task(sight.look_at(_ONE, first.wait))]
        await first.arrival()
        looks += [asyncio.create_task(sight.look_at(_ONE, second.wait)) for _ in range(2 * _AT_ONCE)]
        await turns_of_the_loop()
        assert await sight.look_at(_OTHER, lambda: "seen") == "seen"
        first.let_on()
        await looks[0]
        # Who comes just when one ends does not look beside the next one either.
        late = asyncio.create_task(sight.look_at(_ONE, lambda: "seen"))
        await second.arrival()
        for _ in range(50):
            assert await sight.look_at(_OTHER, lambda: "seen") == "seen"
        assert not late.done()
        for _ in looks[1:]:
            second.let_on()
        await asyncio.gather(*looks, late)
        assert not sight._alone, "who is done with is forgotten"

    run(test)


def test_so_many_look_at_once_and_who_has_to_have_an_answer_waits_for_none_of_them(gate: Gate) -> None:
    async def test() -> None:
        sight = Sight(())
        looks = [asyncio.create_task(sight.look(gate.wait)) for _ in range(_AT_ONCE)]
        await gate.arrival()
        late = asyncio.create_task(sight.look(lambda: "seen"))
        assert await sight.at_once(lambda: "seen") == "seen"
        assert await sight.look_at(_ONE, lambda: "seen") == "seen", "looks at all devices do not stand in its way"
        assert not late.done()
        for _ in looks:
            gate.let_on()
        await asyncio.gather(*looks, late)

    run(test)


def test_who_looks_at_many_and_falls_asleep_is_not_followed_by_others_without_end(gate: Gate) -> None:
    async def test() -> None:
        sight = Sight(())
        for _ in range(_AT_ONCE):
            assert (await error(sight.at_once(gate.wait, seconds=0.1))).code is Code.STUCK
        refused = await error(sight.look_over(lambda: "seen"))
        assert (refused.code, "sleep in the kernel" in refused.sentence) == (Code.STUCK, True)
        assert await sight.look(lambda: "seen") == "seen", "what never waits for a device is looked at"
        for _ in range(_AT_ONCE):
            gate.let_on()
        while sight._sleepers:
            await asyncio.sleep(0.01)
        assert await sight.look_over(lambda: "seen") == "seen"

    run(test)


def test_devices_at_which_nobody_can_look_are_known(gate: Gate) -> None:
    async def test() -> None:
        sight = Sight({_OTHER})
        await error(sight.at_once(gate.wait, _ONE, seconds=0.1))
        assert sight.asleep == {_ONE, _OTHER}
        gate.let_on()
        while sight.asleep != {_OTHER}:
            await asyncio.sleep(0.01)

    run(test)
