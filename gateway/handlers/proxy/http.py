"""Forwards a request to the upstream of its route, and the response back, both streamed."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple

from gateway.call import Call, Reply
from gateway.concurrency.stopping import stop_tasks
from gateway.handlers.proxy import max_forwards
from gateway.handlers.proxy.answer import GovernedResponse, is_governed
from gateway.handlers.proxy.forwarding import Forwarding, forwarding_of, own_names
from gateway.handlers.proxy.heads import (
    PHRASES,
    interim_headers,
    is_phrase,
    passed_trailers,
    request_head,
    response_headers,
)
from gateway.handlers.proxy.idempotent import send_once
from gateway.handlers.proxy.tokens import Metering, is_metered
from gateway.handlers.requests import idempotency_key
from gateway.peer import ClientGone
from gateway.refusals import ErrorClass, Reason, Refused
from gateway.upstream.connection import UpstreamBroken, UpstreamConnection
from gateway.wire.header_fields import Headers

if TYPE_CHECKING:
    from gateway.plane import Plane

logger = logging.getLogger(__name__)

LAST_CHUNK = b"0\r\n\r\n"
EXPECT = b"expect: 100-continue\r\n\r\n"
CONTINUE_S = 1.0
"""How long an upstream may take to ask for the body of a request that expects it to (RFC 9110 10.1.1)."""
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PROPFIND", "QUERY", "REPORT", "SEARCH"})
"""Methods of which a request may be repeated (RFC 9110 9.2.2, and those that RFC 9110 16.1 registers as safe)."""


class _Start(NamedTuple):
    """What is sent of a request at once."""

    head: bytes
    body: bytes
    is_whole: bool
    """Whether that is all of it."""


class Sent(NamedTuple):
    """A whole request that was sent by callbacks, and is to be answered by a task."""

    connection: UpstreamConnection
    request: bytes


async def forward(plane: Plane, call: Call) -> Reply:
    """Proxy one HTTP or SSE call. Raises Refused ``upstream-unavailable`` or ``upstream-timeout`` before the response.

    If the caller loses its right meanwhile, the call ends as an open connection would: Refused ``key-revoked`` etc.
    """
    if max_forwards.ends_here(call):
        return await max_forwards.answer(plane, call)
    if call.route is not None and call.route.idempotency and call.method == "POST":
        key = idempotency_key(call)
        if key is not None:
            return await send_once(plane, call, key, forward)
    in_flight = plane.connections.in_flight
    request = in_flight.begin(call)
    try:
        with request:
            return await (_metered(plane, call) if is_metered(call) else _forward(plane, call, None))
    finally:
        in_flight.ended(request)


async def resume(plane: Plane, call: Call, sent: Sent) -> Reply:
    """Do as ``forward`` for a call that was carried so far: it is admitted, and its request is sent."""
    in_flight = plane.connections.in_flight
    try:
        request = in_flight.begin(call)
    except Refused:
        plane.upstreams.take_back(sent.connection)
        raise
    try:
        with request:
            return await _forward(plane, call, None, sent)
    finally:
        in_flight.ended(request)


async def _metered(plane: Plane, call: Call) -> Reply:
    """Forward a call whose tokens are reserved beforehand, and corrected in any case."""
    metering = await Metering.begin(plane, call)
    try:
        return await _forward(plane, call, metering)
    except Refused:
        metering.failed()
        raise
    finally:
        try:
            await metering.read_usage()
        finally:
            metering.settle()


async def _forward(plane: Plane, call: Call, metering: Metering | None, sent: Sent | None = None) -> Reply:
    assert call.route is not None, "upstreams are reached by routes"
    forwarding = forwarding_of(call.route)
    reply = Reply(closed_by="upstream")
    timeouts = call.route.timeouts if call.method != "POST" else forwarding.timeouts_for(call, plane.config)
    start = await _start(plane, call, forwarding) if sent is None else _Start(sent.request, b"", is_whole=True)
    may_repeat = start.is_whole and call.method in IDEMPOTENT
    if sent is None:
        connection = await plane.upstreams.lend(forwarding.target.origin, timeouts, may_repeat=may_repeat)
    else:
        connection = sent.connection
    try:
        return await _exchange(plane, call, connection, start, reply, metering, is_sent=sent is not None)
    except UpstreamBroken:
        if not (may_repeat and connection.is_reused and not connection.has_begun_to_answer):
            raise _lost() from None
    finally:
        plane.upstreams.take_back(connection)
    # The upstream had closed the pooled connection before it answered: repeat the request once.
    connection = await plane.upstreams.lend(forwarding.target.origin, timeouts, is_new=True)
    try:
        return await _exchange(plane, call, connection, start, reply, metering)
    except UpstreamBroken:
        raise _lost() from None
    finally:
        plane.upstreams.take_back(connection)


async def _start(plane: Plane, call: Call, forwarding: Forwarding) -> _Start:
    """Return what is sent at once. Raises Refused and ClientGone.

    What delays the body does not leave a connection idle, which the upstream could close meanwhile.
    """
    head = request_head(call, forwarding, plane.config, plane.upstreams.via)
    return _Start(head, b"", is_whole=True) if call.peer.is_read else await _with_body(call, head)


async def _exchange(
    plane: Plane,
    call: Call,
    connection: UpstreamConnection,
    start: _Start,
    reply: Reply,
    metering: Metering | None,
    *,
    is_sent: bool = False,
) -> Reply:
    peer = call.peer
    sending = await _begin(plane, call, connection, start, is_sent=is_sent)
    try:
        while not await connection.head():
            _pass_interim(plane, call, connection)
        reply.status, reply.bytes_in = connection.status, peer.bytes_in
        headers = connection.headers
        answer = None
        if is_governed(call, headers, metering):
            answer = GovernedResponse(plane, call, connection, reply, metering)
            headers = await answer.begin()
        await peer.start(connection.status, _head_of(plane, call, connection, headers))
        if sending is None and not peer.is_read and connection.status < 400:
            # It answered before it asked for the body, which the client may send all the same.
            sending = _sending(plane, call, connection)
        if answer is None:
            await _pass_back(plane, call, connection, reply)
        else:
            await answer.pass_back()
    finally:
        peer.watch(None)
        if sending is not None and not sending.done():
            await stop_tasks(sending)
    reply.bytes_in = peer.bytes_in
    if connection.status >= 500 and reply.refused is None:
        reply.error_class = ErrorClass.UPSTREAM_LOST.value
    return reply


def _head_of(plane: Plane, call: Call, connection: UpstreamConnection, headers: Headers) -> Headers:
    """Return the headers to pass back, and have the upstream's own reason phrase sent with its status."""
    if connection.phrase != PHRASES.get(connection.status) and is_phrase(connection.phrase):
        call.peer.name_status(connection.status, connection.phrase)
    return response_headers(
        connection.status,
        headers,
        limits=plane.limiter.headers(call),
        via=plane.upstreams.via,
        own_names=lambda: own_names(call, plane.config),
    )


def _pass_interim(plane: Plane, call: Call, connection: UpstreamConnection) -> None:
    """Pass interim responses back. An upstream that sends them is at work, so its deadline begins again."""
    for status, headers in connection.interim:
        # `100 Continue` is sent when the body is read, which the upstream's lets begin.
        if status != 100:
            call.peer.inform(status, interim_headers(headers, own_names(call, plane.config)))
    connection.interim.clear()
    if connection.deadline is not None:
        plane.upstreams.expect(connection, connection.first_byte_s)


async def _pass_back(plane: Plane, call: Call, connection: UpstreamConnection, reply: Reply) -> None:
    """Pass the body of the response on as it arrives, at the client's pace. No limit counts it."""
    upstreams, peer = plane.upstreams, call.peer
    if not connection.has_more:
        # The head does not wait for the body.
        await peer.send(b"")
    while True:
        if not connection.has_more:
            upstreams.expect(connection, connection.idle_s)
            await connection.more()
        part = connection.take()
        reply.bytes_out += len(part)
        is_last = connection.is_read_whole
        # The upstream's deadline does not run while the client does not read.
        connection.deadline = None
        if connection.trailers and is_last:
            peer.trail(passed_trailers(connection.trailers))
        await peer.send(part, more=not is_last)
        if is_last:
            return


async def _begin(
    plane: Plane, call: Call, connection: UpstreamConnection, start: _Start, *, is_sent: bool
) -> asyncio.Task[None] | None:
    """Send the request unless it is sent, and return a task that sends the rest of its body, if that is to come."""
    if not start.is_whole:
        return await _begin_body(plane, call, connection, start)
    if not is_sent:
        connection.begin(start.head + start.body, is_head_request=call.method == "HEAD")
        plane.upstreams.expect(connection, connection.first_byte_s)
    call.peer.watch(connection.abandon)
    return None


async def _with_body(call: Call, head: bytes) -> _Start:
    """Return a head with what is there of its body, which may be all of it. Raises Refused and ClientGone.

    A body of unknown length is sent in chunks (RFC 9112 7.1).
    """
    peer = call.peer
    if not peer.has_part:
        await peer.admit_body()
        return _Start(head, b"", is_whole=False)
    part = await peer.read()
    is_whole = peer.is_read
    if _is_chunked(call):
        part = (_chunk(part) if part else b"") + (LAST_CHUNK if is_whole else b"")
    return _Start(head, part, is_whole=is_whole)


async def _begin_body(
    plane: Plane, call: Call, connection: UpstreamConnection, start: _Start
) -> asyncio.Task[None] | None:
    """Send the head with what is there of the body, and return a task that sends the rest, unless it is not wanted.

    A head never waits for its body: the upstream may refuse it, or answer before the client sends anything.
    """
    is_head_request = call.method == "HEAD"
    if not start.body and call.peer.expects_continue:
        connection.begin(start.head[:-2] + EXPECT, is_head_request=is_head_request, is_whole=False)
        # An upstream that ignores the expectation gets the body after a while, as of clients themselves.
        return _sending(plane, call, connection) if await connection.continued(CONTINUE_S) else None
    connection.begin(start.head + start.body, is_head_request=is_head_request, is_whole=False)
    return _sending(plane, call, connection)


def _sending(plane: Plane, call: Call, connection: UpstreamConnection) -> asyncio.Task[None]:
    return asyncio.create_task(_send_rest(plane, call, connection), name="request body")


async def _send_rest(plane: Plane, call: Call, connection: UpstreamConnection) -> None:
    """Send the rest of a body as it arrives. A failure is raised where the response is awaited."""
    try:
        await _pass_on(plane, call, connection)
    except UpstreamBroken:
        return
    except (Refused, ClientGone) as failure:
        connection.fail(failure)
    except Exception:
        logger.exception("passing on a request body failed")
        connection.fail(Refused(Reason.INTERNAL))


async def _pass_on(plane: Plane, call: Call, connection: UpstreamConnection) -> None:
    peer, upstreams, is_chunked = call.peer, plane.upstreams, _is_chunked(call)
    while part := await peer.read():
        if not connection.has_answered:
            upstreams.expect(connection, connection.first_byte_s)
        await connection.write(_chunk(part) if is_chunked else part)
        if not connection.has_answered:
            # The upstream's deadline does not run while the client sends.
            connection.deadline = None
    if is_chunked:
        await connection.write(LAST_CHUNK)
    connection.is_sent = True
    if not connection.has_answered:
        upstreams.expect(connection, connection.first_byte_s)
    peer.watch(connection.abandon)


def _is_chunked(call: Call) -> bool:
    return call.header(b"content-length") is None


def _chunk(part: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), part)


def _lost() -> Refused:
    return Refused(Reason.UPSTREAM_UNAVAILABLE, cause="upstream-lost")
