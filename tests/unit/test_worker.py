# SPDX-License-Identifier: LGPL-2.1-or-later
"""Workers: real processes, forked from a running event loop."""

import asyncio
import fcntl
import gc
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

from flavourd.worker import Worker, WorkerDied

from .gate import Gate

T = TypeVar("T")
_DEADLINE = 60  # far more than any of this takes


def run(work: Callable[[], T]) -> T:
    async def main() -> T:
        return await asyncio.wait_for(Worker(lambda _tell: work()).done, _DEADLINE)

    return asyncio.run(main())


def test_the_result_comes_back_from_another_process() -> None:
    pid, result = run(lambda: (os.getpid(), {"a": (1, None)}))
    assert pid != os.getpid()
    assert result == {"a": (1, None)}


def test_none_is_a_result_too() -> None:
    assert run(lambda: None) is None


def test_a_result_larger_than_the_pipe_comes_back_whole() -> None:
    size = 16 * 65536 + 1  # a pipe holds 65536 bytes
    assert run(lambda: b"x" * size) == b"x" * size


def fail() -> NoReturn:
    raise ZeroDivisionError("what nobody foresaw")


def leave() -> NoReturn:
    raise SystemExit(3)


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (fail, [r"Traceback", r"in fail\n", r"ZeroDivisionError: what nobody foresaw"]),
        (leave, [r"in leave\n", r"SystemExit: 3"]),
        (lambda: lambda: None, [r"Traceback", r"pickle"]),
        (kill_self, [r"the worker ended with status -9 and no answer"]),
        (lambda: os._exit(7), [r"the worker ended with status 7 and no answer"]),
    ],
    ids=["exception", "SystemExit", "a result that cannot be sent", "killed", "_exit"],
)
def test_a_worker_without_a_result_has_died_and_says_how(work: Callable[[], object], told: list[str]) -> None:
    with pytest.raises(WorkerDied) as caught:
        run(work)
    for words in told:
        caught.match(words)


def test_a_worker_that_is_killed_in_the_middle_of_its_work_has_died(gate: Gate) -> None:
    async def main() -> None:
        worker = Worker(lambda _tell: gate.wait())
        await gate.arrival()
        os.kill(worker.pid, signal.SIGKILL)
        await asyncio.wait_for(worker.done, _DEADLINE)

    with pytest.raises(WorkerDied, match="status -9"):
        asyncio.run(main())


def descriptors() -> list[str]:
    """Kind and name of what is open here beyond the standard streams."""
    links = [link for link in Path("/proc/self/fd").iterdir() if int(link.name) > 2]
    return [str(link.readlink()) for link in links if link.is_symlink()]  # the one that listed them is closed again


def test_a_worker_holds_no_descriptor_of_its_parent(tmp_path: Path) -> None:
    low = os.open(tmp_path / "file", os.O_CREAT)
    high = fcntl.fcntl(low, fcntl.F_DUPFD, 700)  # beyond the worker's pipe
    try:
        assert descriptors().count(str(tmp_path / "file")) == 2
        (only,) = run(descriptors)
    finally:
        os.close(low)
        os.close(high)
    assert only.startswith("pipe:")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_daemon_does_not_end_a_worker(gate: Gate, number: signal.Signals) -> None:
    def work() -> str:
        gate.wait()
        return "done"

    async def main() -> str:
        worker = Worker(lambda _tell: work())
        await gate.arrival()
        os.kill(worker.pid, number)
        gate.let_on()
        return await asyncio.wait_for(worker.done, _DEADLINE)

    assert asyncio.run(main()) == "done"


def test_two_workers_are_at_work_at_once(gates: tuple[Gate, Gate]) -> None:
    first, second = gates

    def work(gate: Gate, name: str) -> str:
        gate.wait()
        return name

    async def main() -> list[str]:
        workers = [Worker(lambda _tell: work(first, "first")), Worker(lambda _tell: work(second, "second"))]
        await first.arrival()
        await second.arrival()
        second.let_on()
        ended = [await asyncio.wait_for(workers[1].done, _DEADLINE)]
        assert not workers[0].done.done()
        first.let_on()
        return [*ended, await asyncio.wait_for(workers[0].done, _DEADLINE)]

    assert asyncio.run(main()) == ["second", "first"]


def test_a_worker_leaves_neither_a_zombie_nor_a_descriptor() -> None:
    async def main() -> int:
        before = len(os.listdir("/proc/self/fd"))
        worker = Worker(lambda _tell: None)
        await asyncio.wait_for(worker.done, _DEADLINE)
        assert len(os.listdir("/proc/self/fd")) == before
        return worker.pid

    with pytest.raises(ChildProcessError):
        os.waitpid(asyncio.run(main()), 0)


def test_a_worker_that_nobody_waits_for_any_more_ends_in_silence() -> None:
    async def main() -> list[object]:
        unforeseen: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unforeseen.append(context))
        worker = Worker(lambda _tell: None)
        worker.done.cancel()
        async with asyncio.timeout(_DEADLINE):
            while Path(f"/proc/{worker.pid}").exists():
                await asyncio.sleep(0)  # one turn of the loop, not a pause
        return unforeseen

    assert asyncio.run(main()) == []


def test_a_worker_collects_no_garbage_that_would_close_its_own_descriptors() -> None:
    assert gc.isenabled()
    assert run(gc.isenabled) is False
