# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is read from and written to the files driver_flavour, and which error a program gets."""

import asyncio
import errno
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from flavourd.attributes import files as module
from flavourd.attributes.calls import Flavourd
from flavourd.attributes.files import Files
from flavourd.attributes.tree import CANDIDATES, ERROR, FLAVOUR, ROOT, Node
from flavourd.attributes.writers import Writer
from flavourd.flavour import Flavour, FlavourOnBus, Flavours, Universal

from . import conftest
from .golden.daemon import HANG_UP, Daemon, Reply, Script, error, reply

_DEADLINE = 60  # far more than any of this takes
_NAME = "0000:01:00.0"
_DEVICE = f"pci/{_NAME}"
_HELD = f"sys/bus/pci/devices/{_NAME}/vfio-dev/vfio0"
_FLAVOURS = Flavours({"vfio": Flavour("", "vfio-dev", {"pci": FlavourOnBus(Universal("vfio_pci", "vfio-pci"))})})
_EARLIER, _LATER = "2000-01-01T00:00:00.000+00:00", "2999-01-01T00:00:00.000+00:00"


class Bench:
    """The files of one device, asked by this process."""

    def __init__(self, files: Files, daemon: Daemon) -> None:
        self.files, self.daemon = files, daemon
        self.me = Writer(0, os.getpid())

    def node(self, file: str = FLAVOUR) -> Node:
        node = ROOT
        for name in ("pci", "devices", _NAME, file):
            node = self.files.child(node, name)
        return node

    async def says(self, file: str = FLAVOUR) -> str:
        return await self.files.read(self.node(file))

    async def write(self, data: bytes) -> None:
        await self.files.write(self.node(), data, self.me)


@pytest.fixture
def host(tree: conftest.Tree) -> Path:
    return tree({f"sys/bus/pci/devices/{_NAME}/modalias": "x"})


def serve(host: Path, answers: Mapping[str, Script], test: Callable[[Bench], Awaitable[None]]) -> Daemon:
    async def whole(daemon: Daemon) -> None:
        bench = Bench(Files(host, Flavourd(host / "socket"), _FLAVOURS), daemon)
        try:
            await asyncio.wait_for(test(bench), _DEADLINE)
        finally:
            bench.me.close()

    (host / "socket").unlink(missing_ok=True)
    with Daemon(host / "socket", answers) as daemon:
        asyncio.run(whole(daemon))
    return daemon


async def fails_with(number: int, waiting: Awaitable[Any]) -> None:
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        await waiting
    assert caught.value.errno == number


def history(*outcomes: tuple[str, str]) -> Sequence[Reply]:
    return [reply(outcomes=[{"time": time, "message": message} for time, message in outcomes])]


# --- reading


def test_the_current_flavour_is_what_sysfs_says_at_that_moment(host: Path, tree: conftest.Tree) -> None:
    async def test(bench: Bench) -> None:
        assert await bench.says() == "[default] vfio\n"
        tree({_HELD: ""})
        assert await bench.says() == "default [vfio]\n"

    serve(host, {}, test)


def test_flavours_are_read_without_asking_anybody(host: Path) -> None:
    async def test(bench: Bench) -> None:
        (host / "socket").unlink()
        assert await bench.says() == "[default] vfio\n"
        assert [node.path for node in bench.files.children(ROOT)] == [("pci",)]
        bench.files.flavours = Flavours()
        assert bench.files.children(ROOT) == []

    assert serve(host, {}, test).calls == []


def test_a_flavourd_that_does_not_answer_is_not_waited_for_for_ever(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(bench: Bench) -> None:
        node = bench.node(CANDIDATES)
        monkeypatch.setattr(module, "_SECONDS", 0.05)
        await fails_with(errno.EAGAIN, bench.files.read(node))

    serve(host, {"Explain": []}, test)


def test_candidates_are_asked_for_when_they_are_read(host: Path) -> None:
    async def test(bench: Bench) -> None:
        assert await bench.says(CANDIDATES) == "vfio: a b\n"

    plan = {"flavour": "vfio", "kind": "switch", "candidates": [{"module": "a"}, {"module": "b"}]}
    assert serve(host, {"Explain": [reply(plans=[plan])]}, test).asked("Explain") == [{"device": _DEVICE}]


@pytest.mark.parametrize(("file", "method"), [(CANDIDATES, "Explain"), (ERROR, "History")])
@pytest.mark.parametrize(
    ("answer", "number"),
    [
        (HANG_UP, errno.EAGAIN),
        (error("Refused", code="too-many", message="m", hint=""), errno.EAGAIN),
        (error("Refused", code="no-device", message="m", hint=""), errno.ENODEV),
        (error("org.varlink.service.MethodNotFound", method="m"), errno.EIO),
    ],
)
def test_what_cannot_be_asked_is_an_error(host: Path, file: str, method: str, answer: Any, number: int) -> None:
    async def test(bench: Bench) -> None:
        await fails_with(number, bench.says(file))

    serve(host, {method: [answer]}, test)


def test_the_last_outcome_is_told_in_one_line(host: Path) -> None:
    async def test(bench: Bench) -> None:
        assert await bench.says(ERROR) == "it went wrong\n"

    daemon = serve(host, {"History": history((_EARLIER, "it\nwent wrong"))}, test)
    assert daemon.asked("History") == [{"device": _DEVICE, "limit": 1}]


def test_of_a_device_that_nobody_asked_for_there_is_nothing_to_tell(host: Path) -> None:
    async def test(bench: Bench) -> None:
        assert await bench.says(ERROR) == ""

    serve(host, {"History": history()}, test)


def test_a_device_that_is_gone_has_nothing_to_say_and_takes_nothing(host: Path) -> None:
    async def test(bench: Bench) -> None:
        nodes = [bench.node(file) for file in (FLAVOUR, CANDIDATES, ERROR)]
        device = host / "sys/bus/pci/devices" / _NAME
        shutil.rmtree(device)
        (host / "another").mkdir()
        device.mkdir()  # and so would another device at its address
        for node in nodes:
            await fails_with(errno.ENODEV, bench.files.read(node))
        await fails_with(errno.ENODEV, bench.files.write(nodes[0], b"vfio", bench.me))

    assert serve(host, {}, test).asked("Set") == []


# --- writing


@pytest.mark.parametrize("data", [b"vfio", b"vfio\n", b" \tvfio \n\n"])
def test_a_write_asks_in_the_name_of_who_writes_and_succeeds_when_flavourd_has_done_it(host: Path, data: bytes) -> None:
    async def test(bench: Bench) -> None:
        await bench.write(data)
        assert await bench.says(ERROR) == ""

    daemon = serve(host, {"Set": [reply(outcomes=[])], "History": history()}, test)
    behalf = f"uid 0, pid {os.getpid()}"
    assert daemon.asked("Set") == [{"devices": [_DEVICE], "flavour": "vfio", "behalf": behalf}]


@pytest.mark.parametrize(("data", "word"), [(b"", ""), (b"\n", ""), (b"no such\n", "no such"), (b"\xff", "\ufffd")])
def test_flavourd_says_what_is_no_flavour(host: Path, data: bytes, word: str) -> None:
    async def test(bench: Bench) -> None:
        await fails_with(errno.EINVAL, bench.write(data))

    no = error("NotDone", code="unknown-flavour", message="m", hint="", outcomes=[{"kind": "refused"}])
    assert serve(host, {"Set": [no]}, test).asked("Set")[0]["flavour"] == word


def test_what_is_longer_than_a_file_in_sysfs_would_take_is_not_even_asked(host: Path) -> None:
    async def test(bench: Bench) -> None:
        await fails_with(errno.EINVAL, bench.write(b"x" * 4097))
        assert "not that long" in await bench.says(ERROR)

    assert serve(host, {"History": history()}, test).asked("Set") == []


@pytest.mark.parametrize(
    ("kind", "code", "number"),
    [
        ("refused", "in-use", errno.EBUSY),
        ("undone", "all-refused", errno.ENODEV),
        ("gone", None, errno.ENODEV),
        ("stuck", "stuck", errno.ETIMEDOUT),
        ("broken", "native-refused", errno.EIO),
        ("refused", "withdrawn", errno.ECANCELED),
    ],
)
def test_an_outcome_that_is_no_success_is_an_error_and_flavourd_tells_of_it(
    host: Path, kind: str, code: str | None, number: int
) -> None:
    async def test(bench: Bench) -> None:
        await fails_with(number, bench.write(b"vfio"))
        assert await bench.says(ERROR) == "the story\n"

    no = error("NotDone", code=code or "", message="m", hint="", outcomes=[{"kind": kind}])
    serve(host, {"Set": [no], "History": history((_EARLIER, "the story"))}, test)


@pytest.mark.parametrize(
    ("answer", "number", "text"),
    [
        (HANG_UP, errno.EAGAIN, "flavourd is away: flavourd closed the connection without an answer"),
        (error("Refused", code="stopping", message="it stops", hint="wait"), errno.EAGAIN, "it stops [stopping]; wait"),
        (error("NotPermitted", code="not-permitted", message="no", hint=""), errno.EACCES, "no [not-permitted]"),
        (error("org.varlink.service.InvalidParameter", parameter="behalf"), errno.EIO, "InvalidParameter"),
    ],
)
def test_a_call_that_is_refused_is_told_here_until_flavourd_has_something_newer(
    host: Path, answer: Any, number: int, text: str
) -> None:
    last = ["before", _EARLIER]

    async def test(bench: Bench) -> None:
        await fails_with(number, bench.write(b"vfio"))
        assert (await bench.says(ERROR)).startswith(f"{_DEVICE}: {text}")
        last[:] = ["something newer", _LATER]
        assert await bench.says(ERROR) == "something newer\n"

    serve(host, {"Set": [answer], "History": lambda _: history((last[1], last[0]))}, test)


def test_a_write_when_nobody_is_there_is_to_be_tried_again_and_that_is_told_all_the_same(host: Path) -> None:
    async def test(bench: Bench) -> None:
        node = bench.node()
        (host / "socket").unlink()
        await fails_with(errno.EAGAIN, bench.says(ERROR))
        await fails_with(errno.EAGAIN, bench.files.write(node, b"vfio", bench.me))
        assert "flavourd is away" in await bench.says(ERROR)

    serve(host, {}, test)


def test_when_the_tree_is_stopped_who_waits_is_let_go_and_flavourd_hears_of_it(host: Path) -> None:
    async def test(bench: Bench) -> None:
        writing = asyncio.create_task(bench.write(b"vfio"))
        while not bench.daemon.asked("Set"):
            await asyncio.sleep(0.001)
        bench.files.stop()
        await fails_with(errno.EAGAIN, writing)
        assert await asyncio.to_thread(bench.daemon.hung_up.wait, _DEADLINE)

    serve(host, {"Set": []}, test)
