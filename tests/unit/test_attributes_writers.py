# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who has given up a write that the kernel keeps him asleep for: real processes, asleep as FUSE's writers are."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from flavourd.attributes.writers import Writer

_DEADLINE = 60  # far more than any of this takes

# Who calls vfork(2) sleeps as one who waits for FUSE does, until his child lets him on (proc_pid_status(5): State D).
# The child shares his stack, so he must never go on: he is killed first.
_ASLEEP = """
import ctypes, signal, sys
for name in sys.argv[1].split(","):
    if name not in ("SIGKILL", "SIGSTOP"):
        signal.signal(getattr(signal, name), lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, [getattr(signal, name) for name in sys.argv[2:]])
libc = ctypes.PyDLL(None)
if libc.vfork() == 0:
    libc.pause()
"""
_CAUGHT = "SIGINT,SIGTERM,SIGUSR1,SIGALRM,SIGHUP,SIGCHLD,SIGCONT,SIGURG,SIGWINCH,SIGTSTP"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def status(pid: int, name: str) -> str:
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith(f"{name}:"))


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()))


@contextmanager
def process(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(words, start_new_session=True, stdin=subprocess.PIPE) as started:
        try:
            yield started
        finally:
            everybody = [started.pid]
            for pid in everybody:
                with suppress(OSError):
                    everybody += children(pid)
            for pid in everybody:  # parents first
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@contextmanager
def asleep(*blocked: str) -> Iterator[int]:
    with process(sys.executable, "-c", _ASLEEP, _CAUGHT, *blocked) as started:
        until(lambda: bool(children(started.pid)))
        until(lambda: status(started.pid, "State").startswith("D"))
        yield started.pid


@contextmanager
def writer(pid: int) -> Iterator[Writer]:
    found = Writer(7, pid)
    try:
        yield found
    finally:
        found.close()


def send(pid: int, name: str) -> None:
    """A signal that waits until he wakes."""
    os.kill(pid, signal.Signals[name])
    bit = 1 << (signal.Signals[name] - 1)
    until(lambda: bool((int(status(pid, "ShdPnd"), 16) | int(status(pid, "SigPnd"), 16)) & bit))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_who_has_a_signal_that_ends_programs_has_given_up_even_if_he_catches_it(name: str) -> None:
    with asleep() as pid, writer(pid) as who:
        assert who.is_there()
        assert not who.has_given_up()
        send(pid, name)
        assert who.has_given_up()


@pytest.mark.parametrize("name", ["SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGTSTP", "SIGALRM", "SIGUSR1"])
def test_a_signal_that_does_nothing_or_stops_or_is_caught_is_no_reason(name: str) -> None:
    with asleep() as pid, writer(pid) as who:
        send(pid, name)
        assert not who.has_given_up()


def test_a_signal_that_he_does_not_want_to_hear_of_is_no_reason() -> None:
    with asleep("SIGTERM") as pid, writer(pid) as who:
        send(pid, "SIGTERM")
        assert not who.has_given_up()
        send(pid, "SIGINT")
        assert who.has_given_up()


def test_who_is_gone_is_not_who_waits_whether_or_not_his_parent_has_looked() -> None:
    with process("cat") as started, writer(started.pid) as who:
        assert who.is_there()
        started.kill()
        until(lambda: status(started.pid, "State").startswith("Z"))
        assert not who.is_there()
        started.wait()
        assert not who.is_there()
        assert not who.has_given_up()


def test_all_descendants_are_seen_at_the_first_look() -> None:
    """The one between may be gone at the second."""
    words = ("sh", "-c", 'sh -c \'"$@" & wait\' sh "$@" & wait', "sh", sys.executable, "-c", _ASLEEP, _CAUGHT)
    with process(*words) as started:
        until(lambda: bool(children(started.pid)))
        (middle,) = children(started.pid)
        until(lambda: bool(children(middle)))
        (child,) = children(middle)
        until(lambda: bool(children(child)))
        until(lambda: status(child, "State").startswith("D"))
        with writer(started.pid) as who:
            assert who.is_there()
            os.kill(middle, signal.SIGKILL)
            started.kill()
            started.wait()
            assert not who.has_given_up()
            send(child, "SIGINT")
            assert who.has_given_up()
        for grandchild in (*children(child), child):
            os.kill(grandchild, signal.SIGKILL)


def test_a_child_that_writes_to_the_file_that_its_parent_has_opened_is_looked_after() -> None:
    words = ("sh", "-c", '"$@" & wait', "sh", sys.executable, "-c", _ASLEEP, _CAUGHT)
    with process(*words) as started, writer(started.pid) as who:
        until(lambda: bool(children(started.pid)))
        (child,) = children(started.pid)
        until(lambda: bool(children(child)))
        until(lambda: status(child, "State").startswith("D"))
        assert not who.has_given_up()
        send(child, "SIGINT")
        assert who.has_given_up()


def test_who_is_gone_and_has_left_it_to_his_child_has_not_given_up() -> None:
    with process("sh", "-c", "sleep 1000 & read wait") as started, writer(started.pid) as who:
        until(lambda: bool(children(started.pid)))
        (child,) = children(started.pid)
        try:
            assert not who.has_given_up()
            started.kill()
            started.wait()
            assert not who.has_given_up()
        finally:
            os.kill(child, signal.SIGKILL)
        until(lambda: not who.is_there())


def test_who_runs_has_not_given_up_whatever_he_gets() -> None:
    code = "import signal; signal.signal(signal.SIGUSR1, lambda *_: None)\nprint(flush=True)\nwhile True: pass"
    with process(sys.executable, "-c", code) as started, writer(started.pid) as who:
        for _ in range(100):
            assert not who.has_given_up()


def test_a_thread_is_its_process() -> None:
    told: list[Writer] = []
    thread = threading.Thread(target=lambda: told.append(Writer(7, threading.get_native_id())))
    thread.start()
    thread.join()
    (who,) = told
    assert str(who) == f"uid 7, pid {os.getpid()}"
    assert not who.has_given_up(), "the thread has ended, and the process has not"
    who.close()


def test_of_who_cannot_be_seen_nothing_is_known(tmp_path: Path) -> None:
    for who in (Writer(7, 0), Writer(7, os.getpid(), tmp_path)):
        assert (who.is_there(), str(who)) == (False, "uid 7, pid 0")
        who.close()


def test_no_descriptor_is_left_open() -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(10):
        with process("sh", "-c", "sleep 1000 & read wait") as started, writer(started.pid) as who:
            until(lambda pid=started.pid: bool(children(pid)))  # type: ignore[misc]
            assert who.is_there()
    assert os.listdir("/proc/self/fd") == before
