# SPDX-License-Identifier: LGPL-2.1-or-later
"""How the files driver_flavour ask flavourd, over a real socket."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from flavourd.attributes.calls import Away, Failed, Flavourd

from .golden.daemon import HANG_UP, Daemon, Script, error, reply

_DEADLINE = 60  # far more than any of this takes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


def ask(path: Path, script: Script, method: str = "Status", **parameters: Any) -> dict[str, Any]:
    with Daemon(path, {"Status": script}) as daemon:
        try:
            return asyncio.run(Flavourd(path).call(method, **parameters))
        finally:
            assert daemon.hung_up.wait(_DEADLINE), "each call has a connection of its own"
            assert daemon.asked(method) == [parameters]


def test_a_reply_is_returned_however_long_it_is(path: Path) -> None:
    long = "x" * 1_000_000
    assert ask(path, [reply(text=long)], device="pci/x", limit=1) == {"text": long}
    assert ask(path.with_name("other"), [{}]) == {}


def test_an_error_has_its_name_code_and_words(path: Path) -> None:
    with pytest.raises(Failed) as caught:
        ask(path, [error("Refused", code="busy", message="it is busy", hint="wait")])
    failed = caught.value
    assert (failed.error, failed.code, str(failed), failed.hint) == ("Refused", "busy", "it is busy", "wait")


def test_an_error_of_another_version_has_no_code(path: Path) -> None:
    with pytest.raises(Failed) as caught:
        ask(path, [], method="Reverse")
    assert (caught.value.error, caught.value.code, str(caught.value)) == ("MethodNotFound", None, "MethodNotFound")


@pytest.mark.parametrize("script", [[HANG_UP], [b"rubbish"], [b"[]"], [b'{"parameters": 7}']])
def test_who_answers_nothing_sensible_is_away(path: Path, script: Script) -> None:
    with pytest.raises(Away):
        ask(path, script)


def test_nobody_is_away(path: Path) -> None:
    with pytest.raises(Away, match="No such file"):
        asyncio.run(Flavourd(path).call("Status"))
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    with pytest.raises(Away, match="refused"):
        asyncio.run(Flavourd(path).call("Status"))


def test_a_reply_without_an_end_is_not_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flavourd.attributes.calls._LONGEST", 1000)
    with pytest.raises(Away):
        ask(path, [b"x" * 100_000])


def test_a_call_that_is_cancelled_hangs_up(path: Path) -> None:
    async def test(daemon: Daemon) -> None:
        call = asyncio.create_task(Flavourd(path).call("Status"))
        while not daemon.calls:
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await asyncio.to_thread(daemon.hung_up.wait, _DEADLINE)

    with Daemon(path, {"Status": []}) as daemon:
        asyncio.run(test(daemon))
