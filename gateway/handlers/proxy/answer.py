"""Passes an upstream's response back as it arrives; events that limits decide about pass whole or not at all.

When a limit refuses, a stream of events ends normally with ``event: error``, and the upstream is disconnected.
Any other response that has begun is aborted, so that it does not look complete.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from gateway.call import Call, Reply
from gateway.concurrency.stopping import stop_tasks
from gateway.handlers.proxy.dialect import dialect_of_call, paths_of
from gateway.handlers.proxy.heads import passed_trailers
from gateway.handlers.proxy.tokens import Metering
from gateway.limits.bandwidth import is_charged_whole, pieces
from gateway.peer import ClientGone
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.upstream.connection import UpstreamConnection
from gateway.wire.ai_dialects import Dialect
from gateway.wire.ai_streams import EventStream, stream_of
from gateway.wire.event_stream import is_event_stream
from gateway.wire.header_fields import Headers

if TYPE_CHECKING:
    from gateway.plane import Plane

THROTTLED_S = 0.01
"""Shorter waits are round trips to the limit store and do not count as throttling."""
COMMENT = b":\n\n"
OF_UPSTREAMS = frozenset({Reason.UPSTREAM_TIMEOUT, Reason.UPSTREAM_UNAVAILABLE})


def is_governed(call: Call, headers: Headers, metering: Metering | None) -> bool:
    """Return whether a limit counts the response, or it is a stream of events; any other is passed back unchanged.

    A stream of events may have to end early, and then ends with the reason.
    """
    if metering is not None or call.protocol is Protocol.SSE:
        return True
    return (call.budget is not None and bool(call.budget.bytes_out)) or is_event_stream(headers)


class GovernedResponse:
    """One response on its way back, once its head has arrived."""

    def __init__(
        self, plane: Plane, call: Call, connection: UpstreamConnection, reply: Reply, metering: Metering | None
    ) -> None:
        self._plane = plane
        self._call = call
        self._upstream = connection
        self._reply = reply
        self._metering = metering
        budget = call.budget
        self._bytes_out = budget.bytes_out if budget is not None else ()
        self._is_prepaid = False
        is_connection = call.protocol is Protocol.SSE
        is_metered = metering is not None
        paths = paths_of(call) if is_metered else ()
        found = stream_of(connection.status, connection.headers, paths, is_metered=is_metered)
        self._stream = found or EventStream()
        self._is_stream = call.method != "HEAD" and found is not None
        is_of_events = self._is_stream and isinstance(found, EventStream)
        self._is_connection = is_connection and is_of_events and 200 <= connection.status < 300
        """Whether it is a connection with a row in the ledger, whose events count as messages."""
        self._ending: asyncio.Future[Refused] | None = None
        self._ahead = 0
        """How many bytes of the incomplete event were passed on already."""
        self._is_inside = False
        """Whether what was passed on ends inside an event, so that no other may follow."""

    async def begin(self) -> Headers:
        """Charge a body of known length, and return the headers to pass back. Raises Refused."""
        headers, call = self._upstream.headers, self._call
        if self._metering is not None:
            self._metering.answered(self._upstream.status, headers, is_stream=self._is_stream)
        if self._is_stream:
            # It may end early.
            return [header for header in headers if header[0] != b"content-length"]
        if self._bytes_out and call.method != "HEAD" and is_charged_whole(self._bytes_out):
            length = next((int(value) for name, value in headers if name == b"content-length"), 0)
            if length:
                limiter = self._plane.limiter
                if not limiter.charge_now(call, bytes_out=length):
                    await limiter.charge(call, bytes_out=length)
                self._is_prepaid = True
        return headers

    async def pass_back(self) -> None:
        """Pass the body on at the client's pace. Raises UpstreamBroken, Refused and ClientGone."""
        assert self._call.request is not None, "it is in flight"
        if self._may_hold_comments():
            self._call.peer.probe_with(COMMENT, lambda: not self._is_inside and self._stream.is_between)
        if self._is_connection:
            await self._as_connection()
        elif self._is_stream:
            try:
                with self._call.request:
                    await self._events()
            except Refused as refused:
                await self._cut(refused)
        else:
            await self._parts()

    def _may_hold_comments(self) -> bool:
        is_encoded = any(name == b"content-encoding" for name, _ in self._upstream.headers)
        return self._is_stream and isinstance(self._stream, EventStream) and not is_encoded

    async def _parts(self) -> None:
        send = self._call.peer.send
        limiter, call = self._plane.limiter, self._call
        is_last = False
        if not self._upstream.has_more:
            # The head does not wait for the body.
            await send(b"")
        while not is_last:
            part = await self._next()
            is_last = self._upstream.is_read_whole
            self._reply.bytes_out += len(part)
            if self._metering is not None:
                self._metering.count_part(part)
            if part and not self._is_prepaid and not limiter.charge_now(call, bytes_out=len(part)):
                for piece in pieces(part, self._bytes_out):
                    await limiter.charge(call, bytes_out=len(piece))
                    await send(piece)
                part = b""
            await send(part, more=not is_last)

    async def _next(self) -> bytes:
        upstream, upstreams = self._upstream, self._plane.upstreams
        if not upstream.has_more:
            upstreams.expect(upstream, upstream.idle_s)
        part = await upstream.read()
        # The upstream's deadline does not run while the client does not read or a limit delays.
        upstream.deadline = None
        if upstream.trailers and upstream.is_read_whole:
            self._call.peer.trail(passed_trailers(upstream.trailers))
        return part

    # Events

    async def _as_connection(self) -> None:
        """Pass events on until either side ends the stream, or the gateway does: revocation, a limit, a drain."""
        self._ending = asyncio.get_running_loop().create_future()
        self._plane.connections.open(self._call, self._close)
        passing = asyncio.create_task(self._events(), name="proxied events")
        try:
            ends: set[asyncio.Future[Any]] = {passing, self._ending}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await stop_tasks(passing)
        failure = None if passing.cancelled() else passing.exception()
        if self._ending.done():
            failure = self._ending.result()
        if isinstance(failure, Refused):
            await self._cut(failure)
        elif isinstance(failure, ClientGone):
            # Closing the stream is how a client normally ends it.
            self._reply.closed_by = "client"
        elif failure is not None:
            raise failure

    def _close(self, refused: Refused) -> None:
        if self._ending is not None and not self._ending.done():
            self._ending.set_result(refused)

    async def _events(self) -> None:
        is_last = False
        # The head does not wait for the first event.
        await self._call.peer.send(b"")
        while not is_last:
            part = await self._next()
            is_last = self._upstream.is_read_whole
            events = self._stream.cut(part)
            if is_last and (rest := self._stream.rest()):
                events.append(rest)
            await self._pass_on(events, is_last)

    async def _pass_on(self, events: list[bytes], is_last: bool) -> None:
        """Send what limits allow at once; an event that a limit delays does not delay those before it.

        Of an incomplete event, what has arrived is sent, unless a limit decides about the event once it is complete.
        """
        ready: list[bytes] = []
        for event in events:
            data = self._stream.data_of(event)
            if self._metering is not None:
                self._metering.count_event(data)
            if not self._is_allowed_now(event, data):
                if ready:
                    await self._send(ready)
                    ready = []
                await self._allow(event, data)
            self._count(event, data)
            ready.append(event[self._ahead :])
            self._ahead = 0
        stream = self._stream
        if isinstance(stream, EventStream) and (held := stream.held) and not self._is_decided_by_event():
            ready.append(held[self._ahead :])
            self._ahead = len(held)
        if ready or is_last:
            await self._send(ready, more=not is_last)

    async def _send(self, ready: list[bytes], *, more: bool = True) -> None:
        # Where it is interrupted, a part may have been sent or not.
        self._is_inside = self._is_inside or self._ahead > 0
        await self._call.peer.send(b"".join(ready), more=more)
        self._is_inside = self._ahead > 0

    def _is_decided_by_event(self) -> bool:
        """Return whether tokens, bytes or messages are limited, which are charged before an event is passed on."""
        budget = self._call.budget
        if self._metering is not None or budget is None:
            return self._metering is not None
        return bool(budget.bytes_out) or (self._is_connection and bool(budget.messages_out))

    def _is_allowed_now(self, event: bytes, data: bytes) -> bool:
        limiter, metering = self._plane.limiter, self._metering
        if metering is not None and not limiter.reserve_more_now(metering.reservation, metering.due):
            return False
        # A heartbeat has no data and is never charged.
        return not data or limiter.charge_now(self._call, messages_out=self._is_connection, bytes_out=len(event))

    async def _allow(self, event: bytes, data: bytes) -> None:
        """Wait until limits allow an event. Raises Refused."""
        limiter, metering, call = self._plane.limiter, self._metering, self._call
        began_at = time.monotonic()
        if metering is not None and metering.due:
            await limiter.reserve_more(call, metering.reservation, metering.due)
        if data:
            await limiter.charge(call, messages_out=self._is_connection, bytes_out=len(event))
        if call.connection is not None:
            call.connection.throttled += time.monotonic() - began_at > THROTTLED_S

    def _count(self, event: bytes, data: bytes) -> None:
        self._reply.bytes_out += len(event)
        if self._metering is not None:
            self._metering.event_passed()
        if data and self._call.connection is not None:
            self._call.connection.sent(len(event))

    async def _cut(self, refused: Refused) -> None:
        """End the stream with the reason and disconnect the upstream. A failure of the upstream aborts the response."""
        self._upstream.close()
        if refused.reason in OF_UPSTREAMS or self._is_inside or not self._stream.is_between:
            raise refused
        reply = self._reply
        reply.refused, reply.error_class, reply.closed_by = refused, refused.row.live.value, "gateway"
        dialect = dialect_of_call(self._call) or (Dialect.OPENAI if self._metering is not None else None)
        final = self._stream.final(refused, dialect, is_begun=reply.bytes_out > 0)
        try:
            async with asyncio.timeout(self._plane.config.close_timeout_s):
                await self._call.peer.send(final, more=False)
        except (TimeoutError, ClientGone):
            return
