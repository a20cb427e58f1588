# SPDX-License-Identifier: LGPL-2.1-or-later
"""One connection, over a real socket: whatever comes through it harms nobody else. `live` holds each time that nothing
reaches the loop's exception handler, for that would end the daemon, and that nothing is left open.
"""

import asyncio
import os
import socket
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from .house import Caller, House, call, descriptors, live

_SERVICE = "org.varlink.service"


# --- what is understood


def test_a_call_is_answered_and_calls_one_after_the_other_in_their_order(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        await caller.send(call("Wait") + call("Echo", text="second"))
        await house.until(lambda: house.desk.seen == ["begun"])
        house.desk.open.set()
        assert [await caller.text(), await caller.text()] == ["done", "second"]

    live(tmp_path, test)


def test_a_call_may_come_in_pieces(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        for byte in call("Echo", text="whole"):
            await caller.send(bytes([byte]))
            await asyncio.sleep(0)
        assert await caller.text() == "whole"

    live(tmp_path, test)


def test_a_call_as_long_as_may_be_is_answered_and_a_longer_one_ends_the_connection(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        around = len(call("Echo", text=""))
        fits = await house.caller()
        await fits.ask("Echo", text="x" * (65536 - around))
        assert len(await fits.text()) == 65536 - around
        longer = await house.caller()
        await longer.ask("Echo", text="x" * 70000)
        told = await longer.reply()
        assert told
        assert (told["error"], told["parameters"]["code"]) == ("io.flavourd.Manager.Refused", "too-many")
        assert await longer.ended()
        assert len(house.desk.seen) == 1
        await house.still_serves()

    live(tmp_path, test)


@pytest.mark.parametrize(
    ("asked", "name", "parameters"),
    [
        (call("Nothing"), "MethodNotFound", {"method": "Nothing"}),
        (call("_leave"), None, None),
        (call("no.such.interface.Echo"), "InterfaceNotFound", {"interface": "no.such.interface"}),
        (call("Echo"), "InvalidParameter", {"parameter": "text"}),
        (call("Echo", text=7), "InvalidParameter", {"parameter": "text"}),
        (call("Echo", text="x", more_of_it=1), "InvalidParameter", {"parameter": "more_of_it"}),
        (call("Set", text=None), "InvalidParameter", {"parameter": "text"}),
        (call("Set", text="x", others=[]), "InvalidParameter", {"parameter": "others"}),
        (call("Watch"), "ExpectedMore", None),
        (b'{"method":"Echo"}\0', None, None),
        (b'{"method":7}\0', None, None),
        (b"{}\0", None, None),
        (b'{"method":"test.flavourd.Desk.Echo","parameters":[]}\0', None, None),
        (b'{"method":"test.flavourd.Desk.Echo","more":"yes"}\0', None, None),
        (b'{"method":"test.flavourd.Desk.Echo","more":true,"oneway":true}\0', None, None),
    ],
)
def test_a_call_that_cannot_be_served_is_told_why_and_the_next_one_is_served(
    tmp_path: Path, asked: bytes, name: str | None, parameters: dict[str, Any] | None
) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        await caller.send(asked + call("Echo", text="next"))
        if b'"oneway"' not in asked:
            reply = await caller.reply()
            assert reply
            assert reply["error"] == (f"{_SERVICE}.{name}" if name else "invalid.asyncvarlink.ProtocolViolation")
            assert reply.get("parameters") == parameters
        assert await caller.text() == "next"
        assert house.desk.seen == ["next"]

    live(tmp_path, test)


def test_a_oneway_call_is_carried_out_and_not_answered_whatever_becomes_of_it(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        house.desk.open.set()
        for method in ("Refuse", "Fail", "Nothing", "Watch", "Wait"):
            await caller.ask(method, oneway=True)
        for text in ("done", "refused"):
            await caller.ask("Set", oneway=True, text=text)
        await caller.ask("Echo", oneway=True, text="unheard")
        await caller.ask("Echo", text="heard")
        assert await caller.text() == "heard"
        assert house.desk.seen == ["begun", "done", "refused", "unheard", "heard"]

    live(tmp_path, test)


def test_who_calls_oneway_may_go_away_at_once_and_it_is_carried_out(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        for text in map(str, range(20)):
            caller = await house.caller()
            await caller.send(call("Echo", oneway=True, text=text) + call("Set", oneway=True, text=f"set {text}"))
            caller.leave()
        house.desk.open.set()
        await house.until(lambda: len(house.desk.seen) >= 40)
        assert set(house.desk.seen) == {*map(str, range(20)), *(f"set {text}" for text in range(20))}

    live(tmp_path, test)


# --- what goes wrong in a method


def test_a_refusal_of_ours_is_told_as_refused_with_its_code(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        await caller.ask("Refuse")
        assert await caller.reply() == {
            "error": "io.flavourd.Manager.Refused",
            "parameters": {"code": "bad-name", "message": "no such name", "hint": "another one"},
        }
        house.desk.open.set()
        await caller.ask("Set", more=True, text="refused")
        assert await caller.text() == "step"
        assert await caller.error() == "io.flavourd.Manager.Refused"

    live(tmp_path, test)


@pytest.mark.parametrize(("method", "story"), [("Fail", "what nobody foresaw"), ("Spoil", "expected string")])
def test_what_nobody_foresaw_in_a_method_is_told_as_internal_and_the_daemon_goes_on(
    tmp_path: Path, method: str, story: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        await caller.ask(method)
        reply = await caller.reply()
        assert reply
        assert reply["error"] == "io.flavourd.Manager.Refused"
        assert reply["parameters"]["code"] == "internal"
        assert story in reply["parameters"]["message"]
        await caller.ask("Echo", text="next")
        assert await caller.text() == "next"

    live(tmp_path, test)


# --- what is no call


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0",
        b"garbage\0",
        b"\0\0\0\0",
        b'{"method":"test.flavourd.Desk.Echo"\0',
        b"[" * 60000 + b"\0",
        b'{"a":' * 10000 + b"\0",
        b'{"method":"test.flavourd.Desk.Echo","parameters":{"text":' + b"9" * 5000 + b"}}\0",
        b'{"method":"\xff"}\0',
        b"\xff\xfe\0",
        b"[]\0",
        b'"text"\0',
        b"7\0",
        b"null\0",
    ],
    ids=lambda garbage: repr(garbage[:12]),
)
def test_who_sends_what_is_no_call_is_thrown_out_and_nobody_else_notices(tmp_path: Path, garbage: bytes) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        with suppress(BrokenPipeError, ConnectionResetError):  # thrown out while he was still talking
            await caller.send(garbage)
        assert await caller.ended()
        await house.until_inside(0)
        await house.still_serves()

    live(tmp_path, test)


def test_who_talks_without_end_is_told_so_and_thrown_out(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        with suppress(BrokenPipeError, ConnectionResetError):
            await caller.send(b"x" * 10_000_000)
        with suppress(ConnectionResetError):  # he was still talking
            told = await caller.reply()
            assert told is None or told["parameters"]["code"] == "too-many"
        await house.until_inside(0)
        await house.still_serves()

    live(tmp_path, test)


def test_what_came_before_garbage_is_answered(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        await caller.send(call("Echo", text="before") + b"garbage\0" + call("Echo", text="after"))
        assert await caller.text() == "before"
        assert await caller.ended()
        assert house.desk.seen == ["before"]

    live(tmp_path, test)


@pytest.mark.parametrize("method", ["Watch", "Pour", "Set"])
def test_nothing_goes_on_for_who_was_thrown_out(tmp_path: Path, method: str) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        begun = call(method, more=True, text="x") if method == "Set" else call(method, more=True)
        await caller.send(begun + b"\xff\0")
        while await caller.reply():
            pass
        await house.until_inside(0)
        await house.still_serves()
        if house.desk.seen != ["other"]:  # either it was never begun, or it has ended
            assert method != "Set", "a switch was begun for who had been thrown out"
            await house.desk.shut.wait()

    live(tmp_path, test)


def test_who_sends_without_an_end_is_heard_no_further_than_a_call_may_be_long(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        tracemalloc.start()
        try:
            sent = 0
            while sent < 10_000_000:
                await caller.send(b"x" * 1000)
                sent += 1000
        except (BrokenPipeError, ConnectionResetError):
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert sent < 1_000_000, "the rest stayed outside"
        assert peak < 1_000_000

    live(tmp_path, test)


# --- descriptors


def test_descriptors_that_come_with_a_call_are_closed(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        await house.until_inside(1)
        before = descriptors()
        reader, writer = os.pipe()
        for data in (
            call("Echo", text="x"),
            call("Wait"),
            call("Nothing"),
            call("Set", text="x"),
            call("Echo", text="y") + call("Echo", text="z"),
            call("Echo", text="in pieces")[:-9],
            call("Echo", text="in pieces")[-9:],
        ):
            caller.send_with(data, [reader, reader, writer])
            house.desk.open.set()
            if data.endswith(b"\0"):
                await caller.reply()
        assert await caller.text() == "in pieces"
        caller.send_with(b"\xff\0", [reader])
        os.close(reader)
        os.close(writer)
        assert await caller.ended()
        await house.until_inside(0)
        assert descriptors() <= before

    live(tmp_path, test)


def test_descriptors_that_come_with_a_call_are_not_kept_while_it_is_served(tmp_path: Path) -> None:
    """Else a few callers who may only look would keep the daemon from having any."""

    async def test(house: House) -> None:
        caller = await house.caller()
        reader, writer = os.pipe()
        caller.send_with(call("Wait"), [reader])
        os.close(reader)
        await house.until(lambda: house.desk.seen == ["begun"])
        with pytest.raises(BrokenPipeError):
            os.write(writer, b"x")
        os.close(writer)
        house.desk.open.set()
        assert await caller.text() == "done"

    live(tmp_path, test)


# --- who does not read


def test_who_asks_on_and_on_and_never_reads_costs_little_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        tracemalloc.start()
        asking = asyncio.create_task(ask_without_end(caller))
        served = -1
        while served < len(house.desk.seen) or not served:  # until he is served no more
            served = len(house.desk.seen)
            for _ in range(5):
                await house.still_serves()
                house.desk.seen.remove("other")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2_000_000
        assert not asking.done(), "what he says stays in his own buffer"
        asking.cancel()

    live(tmp_path, test)


async def ask_without_end(caller: Caller) -> None:
    while True:
        await caller.ask("Echo", text="x" * 1000)


def test_a_stream_waits_for_who_does_not_read_and_ends_when_he_goes(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        await caller.ask("Pour", more=True)
        poured = -1
        while poured < len(house.desk.seen):
            poured = len(house.desk.seen)
            for _ in range(5):
                await house.still_serves()
                house.desk.seen.remove("other")
        assert poured < 1000
        caller.leave()
        await house.desk.shut.wait()

    live(tmp_path, test)


# --- streams, and who goes away


def test_a_stream_has_a_step_a_reply_and_a_last_one(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        house.desk.open.set()
        await caller.ask("Set", more=True, text="last")
        assert await caller.reply() == {"continues": True, "parameters": {"text": "step"}}
        assert await caller.reply() == {"parameters": {"text": "last"}}

    live(tmp_path, test)


def test_who_takes_no_more_than_one_reply_gets_the_last_one(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        house.desk.open.set()
        await caller.ask("Set", text="last")
        assert await caller.reply() == {"parameters": {"text": "last"}}

    live(tmp_path, test)


@pytest.mark.parametrize("abrupt", [False, True], ids=["all read", "something unread"])
def test_a_caller_who_goes_away_in_the_middle_of_a_stream_ends_it(tmp_path: Path, abrupt: bool) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        await caller.ask("Watch", more=True)
        if abrupt:
            await house.until(lambda: house.desk.seen == ["watched"])
        else:
            await caller.text()
        caller.leave()
        await house.desk.shut.wait()
        assert house.desk.seen[:2] == ["watched", "gone"]
        await house.until_inside(0)

    live(tmp_path, test)


def test_a_caller_who_has_shut_his_ears_has_gone_even_if_his_connection_stays(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        await caller.ask("Watch", more=True)
        await caller.text()
        caller.socket.shutdown(socket.SHUT_RD)
        house.desk.open.set()
        await house.desk.shut.wait()

    live(tmp_path, test)


def test_a_caller_who_goes_away_withdraws_what_is_done_for_him_and_what_he_had_asked_behind_it(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        await caller.send(call("Set", more=True, text="first") + call("Set", more=True, text="second"))
        assert await caller.text() == "step"
        caller.leave()
        await house.until(lambda: "first withdrawn" in house.desk.seen)
        house.desk.open.set()
        await house.until_inside(0)
        assert house.desk.seen == ["first", "first withdrawn"]

    live(tmp_path, test)


def test_a_caller_who_says_no_more_still_gets_his_replies(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        await caller.send(call("Wait") + call("Set", more=True, text="last"))
        caller.socket.shutdown(socket.SHUT_WR)
        await house.until(lambda: house.desk.seen == ["begun"])
        house.desk.open.set()
        assert [await caller.text() for _ in range(3)] == ["done", "step", "last"]
        assert await caller.ended()
        assert house.desk.seen == ["begun", "last"]

    live(tmp_path, test)


def test_an_act_for_who_goes_away_is_not_done_for_who_stays(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        caller = await house.caller()
        house.desk.open.set()
        await caller.ask("Set", text="done")
        assert await caller.text() == "done"
        caller.leave()
        await house.until_inside(0)
        assert house.desk.seen == ["done"]

    live(tmp_path, test)
