# SPDX-License-Identifier: LGPL-2.1-or-later
"""Workers: real processes, forked from a running event loop."""

import asyncio
import fcntl
import gc
import os
import select
import signal
import stat
import subprocess
import sys
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
        async with asyncio.timeout(_DEADLINE):
            while len(os.listdir("/proc/self/fd")) != before:
                await asyncio.sleep(0)  # one turn of the loop, not a pause
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


def test_what_is_told_on_the_way_arrives_in_order_and_before_the_result() -> None:
    size = 3 * 65536  # a pipe holds 65536 bytes

    def work(tell: Callable[[object], None]) -> str:
        for number in range(100):
            tell(number)
        tell(b"x" * size)
        tell(None)
        return "result"

    async def main() -> list[object]:
        came: list[object] = []
        worker = Worker(work, came.append)
        worker.done.add_done_callback(lambda done: came.append(done.result()))
        await asyncio.wait_for(worker.done, _DEADLINE)
        await asyncio.sleep(0)
        return came

    assert asyncio.run(main()) == [*range(100), b"x" * size, None, "result"]


def test_what_is_told_arrives_while_the_work_goes_on(gate: Gate) -> None:
    def work(tell: Callable[[object], None]) -> None:
        tell("at work")
        gate.wait()

    async def main() -> None:
        came = asyncio.Event()
        worker = Worker(work, lambda _: came.set())
        await asyncio.wait_for(came.wait(), _DEADLINE)
        assert not worker.done.done()
        gate.let_on()
        await asyncio.wait_for(worker.done, _DEADLINE)

    asyncio.run(main())


def test_of_a_worker_that_is_killed_while_it_tells_what_came_whole_is_heard_and_nothing_else() -> None:
    def work(tell: Callable[[object], None]) -> None:
        tell("whole")
        (pipe,) = (int(name) for name in os.listdir("/proc/self/fd") if is_pipe(int(name)))
        os.write(pipe, (1000).to_bytes(4, sys.byteorder) + b"a part of a thousand bytes")
        kill_self()

    def is_pipe(number: int) -> bool:
        try:
            return number > 2 and stat.S_ISFIFO(os.fstat(number).st_mode)
        except OSError:  # the one that listed them is closed again
            return False

    async def main() -> list[object]:
        came: list[object] = []
        worker = Worker(work, came.append)
        with pytest.raises(WorkerDied, match="status -9"):
            await asyncio.wait_for(worker.done, _DEADLINE)
        return came

    assert asyncio.run(main()) == ["whole"]


def test_what_cannot_be_told_ends_the_work_and_says_why() -> None:
    async def main() -> None:
        worker = Worker(lambda tell: tell(lambda: None))
        await asyncio.wait_for(worker.done, _DEADLINE)

    with pytest.raises(WorkerDied, match="pickle"):
        asyncio.run(main())


# Starts a worker and ends, as a daemon does that is killed. Its worker waits for a word on the first FIFO, tells it to
# nobody, and passes it on.
_PARENT = """
import asyncio, os, sys
from pathlib import Path
from flavourd.worker import Worker

def work(tell):
    tell("at work")
    with open(sys.argv[1]) as words:
        word = words.readline()
    tell(word * 100_000)
    Path(sys.argv[2]).write_text(word)

async def main():
    Worker(work, lambda _: os._exit(0))
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_a_worker_goes_on_with_its_work_when_its_daemon_is_gone(tmp_path: Path) -> None:
    fifos = tmp_path / "there", tmp_path / "back"
    for fifo in fifos:
        os.mkfifo(fifo)
    # For both reading and writing: opening waits for nobody.
    there, back = (os.open(fifo, os.O_RDWR | os.O_NONBLOCK) for fifo in fifos)
    subprocess.run([sys.executable, "-c", _PARENT, *map(str, fifos)], check=True, timeout=_DEADLINE)
    os.write(there, b"a word\n")
    ready, _, _ = select.select([back], [], [], _DEADLINE)
    assert ready, "the worker has not come to its end"
    assert os.read(back, 100) == b"a word\n"
    os.close(there)
    os.close(back)
