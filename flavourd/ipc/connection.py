# SPDX-License-Identifier: LGPL-2.1-or-later
"""One connection: whatever comes through it, it costs the daemon little and harms nobody else.

asyncvarlink leaves to us: how much may be received before a message ends; JSON that no decoder can take (which would
end the event loop's callback, and with it the daemon); a caller who asks on and on and never reads; and streams, where
it takes for a fault what is none, a caller who has gone.
"""

import asyncio
import traceback
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

from asyncvarlink import (
    AnnotatedResult,
    FileDescriptorArray,
    VarlinkInterfaceRegistry,
    VarlinkInterfaceServerProtocol,
    VarlinkMethodCall,
    VarlinkMethodReply,
    VarlinkMethodSignature,
)
from asyncvarlink.conversion import ConversionError
from asyncvarlink.serviceinterface import ExpectedMore, InvalidParameter

from flavourd import logs
from flavourd.errors import Code, FlavourError
from flavourd.ipc.call import CALL, Call, Peer, one_reply_too
from flavourd.ipc.replies import refusal

_LONGEST_CALL = 65536
_TOO_LONG = FlavourError(
    Code.TOO_MANY, f"a call may have {_LONGEST_CALL // 1024} KiB and no more", "name fewer devices at a time"
)


class Connection(VarlinkInterfaceServerProtocol):
    def __init__(self, registry: VarlinkInterfaceRegistry, peer: Peer) -> None:
        super().__init__(registry)
        self._peer = peer
        self._call: Call | None = None
        self._sent: asyncio.Future[None] | None = None
        self._lost = self._shown_out = False
        self.serving: asyncio.Future[None] | None = None

    def gone(self) -> None:
        """The caller has closed his end."""
        self._lost = True
        if self._call:
            self._call.end()

    # --- what comes in

    def message_received(self, data: bytes, fds: FileDescriptorArray | None) -> None:
        if self._transport is None or self._transport.is_closing() or self._shown_out:
            return
        if len(self._recv_buffer) + len(data) > _LONGEST_CALL:
            self._shown_out = True
            self.send_error(refusal(_TOO_LONG)).add_done_callback(lambda _: self._show_out())
            return
        try:
            super().message_received(data, None)  # descriptors are for nobody here, and closed at once
        except (ValueError, RecursionError):  # no text, numbers or brackets without end
            self._show_out()

    def error_received(self, err: Exception, data: bytes, fds: FileDescriptorArray | None) -> None:
        self._show_out()

    def _show_out(self) -> None:
        self._shown_out = True
        if self._transport:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.gone()

    def request_received(self, obj: dict[str, Any], fds: FileDescriptorArray | None) -> asyncio.Future[None] | None:
        """Nothing more is read until the reply to this one has left."""
        gone = self._lost or self._transport is None or self._transport.is_closing()
        if gone and obj.get("oneway") is not True:
            return None
        if obj.get("parameters", {}) is None:  # so do some libraries write that there are none
            obj = {**obj, "parameters": {}}
        self.serving = asyncio.ensure_future(self._until_sent(super().request_received(obj, fds)))
        return self.serving

    async def _until_sent(self, served: asyncio.Future[None] | None) -> None:
        if served:
            await served
        if self._sent:
            with suppress(OSError):
                await asyncio.shield(self._sent)

    # --- what is done with it

    def call_received(self, call: VarlinkMethodCall, fds: FileDescriptorArray | None) -> asyncio.Future[None] | None:
        self._call = Call(self._peer, call.oneway, call.more)
        CALL.set(self._call)
        method, signature = self._registry.lookup_method(replace(call, more=True, oneway=False, upgrade=False))
        if not signature.more:
            served: asyncio.Future[None] | None = super().call_received(call, fds)
            return served
        if not call.more and not hasattr(method, one_reply_too.__name__):
            raise ExpectedMore
        try:
            parameters = signature.parameter_type.fromjson(call.parameters)
        except ConversionError as error:
            raise InvalidParameter(parameter=str(error.location[0])) from error
        return asyncio.ensure_future(self._stream(method(**parameters), signature, call))

    async def _stream(
        self,
        replies: AsyncGenerator[AnnotatedResult, None],
        signature: VarlinkMethodSignature,
        call: VarlinkMethodCall,
    ) -> None:
        async with aclosing(replies):
            async for result in replies:
                if self._lost:
                    return
                if not call.oneway and (call.more or not result.continues):
                    parameters = signature.return_type.tojson(result.parameters)
                    assert isinstance(parameters, dict)
                    try:
                        await self.send_reply(VarlinkMethodReply(parameters, continues=result.continues))
                    except OSError:  # he does not listen any more
                        self.gone()
                        return

    # --- what goes out

    def send_reply(
        self, reply: VarlinkMethodReply, fds: list[int] | None = None, autoclose: bool = True
    ) -> asyncio.Future[None]:
        if self._lost:
            self._sent = asyncio.get_running_loop().create_future()
            self._sent.set_result(None)
        else:
            self._sent = super().send_reply(reply, fds, autoclose)
        return self._sent

    def handle_call_exception(self, exc: BaseException, oneway: bool) -> None:
        if isinstance(exc, FlavourError):
            raise refusal(exc) from exc
        story = "".join(traceback.format_exception(exc))
        error = FlavourError(Code.INTERNAL, f"a call failed: {story}", "this is a bug in flavourd; please report it")
        logs.tell_trouble(error)
        raise refusal(error) from exc
