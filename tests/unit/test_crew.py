# SPDX-License-Identifier: LGPL-2.1-or-later
"""Workers that stay: real processes, forked from a running event loop."""

import asyncio
import gc
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from pickle import PicklingError
from typing import Any

import pytest

from flavourd import crew as module
from flavourd.crew import Crew, Errand
from flavourd.worker import WorkerDied

from .foreseen import run
from .gate import Gate

_DEADLINE = 60  # far more than any of this takes
Tell = Callable[[Any], None]


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE_SECONDS", float(_DEADLINE))


def who(job: object, tell: Tell) -> tuple[object, int]:
    tell(job)
    return job, os.getpid()


async def gone(pid: int) -> None:
    while Path(f"/proc/{pid}").exists():
        await asyncio.sleep(0)  # one turn of the loop, not a pause


def nobody(_: object) -> None:
    pass


def test_the_next_job_is_done_by_the_same_worker_and_each_hears_its_own() -> None:
    async def test() -> None:
        crew: Crew[object, tuple[object, int]] = Crew()
        told: list[tuple[int, object]] = []
        answers = []
        jobs = [(number, "x" * 10_000) for number in range(3)]
        for number, job in enumerate(jobs):
            errand = crew.send(who, job, partial(lambda number, what: told.append((number, what)), number))
            answers.append((await errand.done, errand.pid))
        assert answers == [((job, answers[0][1]), answers[0][1]) for job in jobs]
        assert told == list(enumerate(jobs))

    run(test)


def test_a_job_that_comes_while_the_worker_is_at_one_gets_another(gates: tuple[Gate, Gate]) -> None:
    async def test() -> None:
        first, second = gates
        crew: Crew[int, int] = Crew()

        def work(number: int, _tell: Tell) -> int:
            gates[number].wait()
            return os.getpid()

        both = [crew.send(work, number, nobody) for number in (0, 1)]
        await first.arrival()
        await second.arrival()
        assert both[0].pid != both[1].pid
        second.let_on()
        assert await both[1].done == both[1].pid
        assert not both[0].done.done()
        first.let_on()
        assert await both[0].done == both[0].pid

    run(test)


def test_who_was_forked_for_other_work_is_let_go() -> None:
    async def test() -> None:
        crew: Crew[object, tuple[object, int]] = Crew()
        before = crew.send(who, "before", nobody)
        await before.done
        after = crew.send(lambda job, tell: who(job, tell), "after", nobody)
        assert (await after.done)[0] == "after"
        assert after.pid != before.pid
        await gone(before.pid)

    run(test)


def test_in_the_end_all_go_who_wait_and_nobody_is_waited_for_who_is_at_work(gate: Gate) -> None:
    async def test() -> None:
        crew: Crew[bool, None] = Crew()

        def work(waits: bool, _tell: Tell) -> None:
            if waits:
                gate.wait()

        errands = [crew.send(work, waits, nobody) for waits in (False, False, True)]
        await gate.arrival()
        await asyncio.gather(*(errand.done for errand in errands[:2]))
        await crew.finish()
        for errand in errands[:2]:
            await gone(errand.pid)
        assert not errands[2].done.done()
        gate.let_on()
        await errands[2].done
        await crew.finish()
        await gone(errands[2].pid)
        await crew.finish()

    run(test)


def test_no_more_wait_for_a_job_than_may_be_at_work_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_IDLE", 2)

    async def test() -> None:
        crew: Crew[object, tuple[object, int]] = Crew()
        errands = [crew.send(who, number, nobody) for number in range(4)]
        await asyncio.gather(*(errand.done for errand in errands))
        while sum(Path(f"/proc/{errand.pid}").exists() for errand in errands) > 2:
            await asyncio.sleep(0)  # one turn of the loop, not a pause
        again = [crew.send(who, number, nobody) for number in range(3)]
        await asyncio.gather(*(errand.done for errand in again))
        assert len({errand.pid for errand in again} & {errand.pid for errand in errands}) == 2

    run(test)


def test_nobody_stays_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_JOBS", 3)

    async def test() -> None:
        crew: Crew[object, tuple[object, int]] = Crew()
        pids = [(await crew.send(who, number, nobody).done)[1] for number in range(5)]
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 2]
        await gone(pids[0])

    run(test)


def test_a_job_that_cannot_be_told_harms_nobody() -> None:
    async def test() -> None:
        crew: Crew[object, tuple[object, int]] = Crew()
        first = crew.send(who, "job", nobody)
        await first.done
        with pytest.raises((AttributeError, PicklingError)):
            crew.send(who, lambda: None, nobody)
        assert await crew.send(who, "next", nobody).done == ("next", first.pid)

    run(test)


def test_what_is_told_may_fail_and_the_result_comes_all_the_same() -> None:
    """That ends the daemon, which waits for its workers."""
    unforeseen: list[object] = []

    async def test() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unforeseen.append(context["exception"]))
        crew: Crew[object, tuple[object, int]] = Crew()
        error = ZeroDivisionError()

        def told(_what: object) -> None:
            raise error

        assert (await crew.send(who, "job", told).done)[0] == "job"
        assert unforeseen == [error]

    run(test)


def test_a_job_that_is_longer_than_a_pipe_is_done_by_a_new_worker() -> None:
    async def test() -> None:
        crew: Crew[object, tuple[object, int]] = Crew()
        before = crew.send(who, "before", nobody)
        await before.done
        after = crew.send(who, "x" * 70_000, nobody)
        assert (await after.done)[0] == "x" * 70_000
        await gone(before.pid)

    run(test)


def test_who_has_nothing_to_do_for_a_while_goes_and_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.01)

    async def test() -> None:
        open_before = len(os.listdir("/proc/self/fd"))
        crew: Crew[object, tuple[object, int]] = Crew()
        errand = crew.send(who, "job", nobody)
        await errand.done
        await gone(errand.pid)
        while len(os.listdir("/proc/self/fd")) != open_before:
            await asyncio.sleep(0)  # one turn of the loop, not a pause
        again = crew.send(who, "job", nobody)
        assert (await again.done) == ("job", again.pid)

    run(test)


def fail(_job: object, _tell: Tell) -> tuple[object, int]:
    raise ZeroDivisionError("what nobody foresaw")


def leave(_job: object, _tell: Tell) -> tuple[object, int]:
    os._exit(7)


@pytest.mark.parametrize(("work", "words"), [(fail, "what nobody foresaw"), (leave, "status 7")])
def test_who_fails_says_how_and_gets_no_other_job(
    work: Callable[[object, Tell], tuple[object, int]], words: str
) -> None:
    async def test() -> None:
        crew: Crew[object, tuple[object, int]] = Crew()
        errand = crew.send(work, "job", nobody)
        with pytest.raises(WorkerDied, match=words):
            await errand.done
        await gone(errand.pid)
        assert (await crew.send(who, "next", nobody).done)[0] == "next"

    run(test)


def test_who_is_killed_while_it_waits_is_replaced_whether_that_was_heard_of_or_not() -> None:
    async def test() -> None:
        crew: Crew[object, tuple[object, int]] = Crew()
        for heard in (True, False):
            errand = crew.send(who, "job", nobody)
            await errand.done
            os.kill(errand.pid, signal.SIGKILL)
            if heard:
                await gone(errand.pid)
            else:  # it is dead, and nobody has taken notice
                os.waitid(os.P_PID, errand.pid, os.WEXITED | os.WNOWAIT)
            after = crew.send(who, "next", nobody)
            assert await after.done == ("next", after.pid)
            assert after.pid != errand.pid

    run(test)


def test_who_is_killed_at_a_later_job_has_died(gate: Gate) -> None:
    async def test() -> None:
        crew: Crew[bool, None] = Crew()

        def work(waits: bool, _tell: Tell) -> None:
            if waits:
                gate.wait()

        await crew.send(work, False, nobody).done
        errand = crew.send(work, True, nobody)
        await gate.arrival()
        os.kill(errand.pid, signal.SIGKILL)
        with pytest.raises(WorkerDied, match="status -9"):
            await errand.done

    run(test)


def test_a_worker_that_waits_ends_with_its_daemon() -> None:
    there, here = os.pipe()
    daemon = os.fork()
    if not daemon:
        os.close(there)

        async def main() -> None:
            crew: Crew[object, tuple[object, int]] = Crew()
            _, pid = await crew.send(who, "job", nobody).done
            os.write(here, str(pid).encode())

        asyncio.run(main())
        os._exit(0)
    os.close(here)
    pid = int(os.read(there, 100))
    os.waitpid(daemon, 0)
    os.close(there)
    deadline = time.monotonic() + _DEADLINE
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline


def test_what_a_job_leaves_behind_is_collected_and_what_was_the_daemons_is_not() -> None:
    async def test() -> None:
        def work(_job: object, _tell: Tell) -> tuple[bool, bool]:
            return gc.isenabled(), gc.get_freeze_count() > 0

        crew: Crew[object, tuple[bool, bool]] = Crew()
        errand: Errand[tuple[bool, bool]] = crew.send(work, None, nobody)
        assert await errand.done == (True, True)

    run(test)
