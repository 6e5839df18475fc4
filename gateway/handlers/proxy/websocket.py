"""Proxies a WebSocket to the upstream of its route, message by message."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import orjson

from gateway.call import Call, Reply
from gateway.concurrency.ending import Ending
from gateway.concurrency.stopping import stop_tasks
from gateway.config import Config
from gateway.connections.open import Connection
from gateway.handlers.proxy.answer import THROTTLED_S
from gateway.handlers.proxy.forwarding import Forwarding, forwarding_of
from gateway.handlers.proxy.handshake import OF_THE_HANDSHAKE, accepting_headers, connect, pass_refusal
from gateway.handlers.proxy.heads import ACCEPTS_TRAILERS, passed_on
from gateway.handlers.proxy.passing import passing_down, passing_up
from gateway.peer import ClientGone
from gateway.refusals import SENT_BEFORE_CLOSE, ErrorClass, Reason, Refused
from gateway.upstream.websocket import UpstreamSocket
from gateway.wire.forwarded import forwarded_fields
from gateway.wire.header_fields import Headers
from gateway.wire.websocket import may_be_sent

if TYPE_CHECKING:
    from gateway.plane import Plane

BEARER = "bearer"
"""The subprotocol after which a browser sends its credential."""
SEND_TIMEOUT_S = 10.0
PAUSE_MIN_S, PAUSE_MAX_S = 0.1, 5.0


async def proxy(plane: Plane, call: Call) -> Reply:
    """Proxy one WebSocket. The upstream is connected before the ``101``, so its absence is a plain 502 or 504."""
    assert call.route is not None, "upstreams are reached by routes"
    config, forwarding = plane.config, forwarding_of(call.route)
    upstream = UpstreamSocket(config.proxied_message_max_bytes, config.ping_interval_s)
    handshake = await connect(
        plane, call, forwarding, _headers(call, forwarding, config, plane.upstreams.via), upstream
    )
    if not upstream.has_connected:
        return await pass_refusal(plane, call, handshake)
    upstream.subprotocol = handshake.subprotocol
    ending: Ending[Refused] = Ending()
    upstream.on_expiry = lambda: ending(Refused(Reason.TOO_SLOW))
    plane.upstreams.time(upstream)
    try:
        headers = accepting_headers(plane, call, handshake)
        await call.peer.accept(_subprotocol(call, upstream), headers, compress=call.route.compression)
        connection = plane.connections.open(call, ending)
        return await _pump(plane, call, connection, upstream, ending)
    except Refused as refused:
        if refused.reason in SENT_BEFORE_CLOSE and call.connection is not None:
            with contextlib.suppress(ClientGone, Refused):
                await _send_notice(call, refused)
        raise
    finally:
        plane.upstreams.time_no_more(upstream)
        upstream.disconnect(1001)


async def _pump(
    plane: Plane, call: Call, connection: Connection, upstream: UpstreamSocket, ending: Ending[Refused]
) -> Reply:
    """Pass messages both ways until one side, or the gateway, closes the connection."""
    call.peer.pass_with(passing_up(plane, call, connection, upstream))
    upstream.pass_on = passing_down(plane, call, connection, upstream)
    up = asyncio.create_task(_up(plane, call, connection, upstream), name="websocket up")
    down = asyncio.create_task(_down(plane, call, connection, upstream), name="websocket down")
    try:
        ends: set[asyncio.Future[Any]] = {up, down, ending.future}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if ending.reason is not None:
            raise ending.reason
        if up.done():
            failure = up.exception()
            if isinstance(failure, ClientGone):
                upstream.disconnect(failure.code, failure.reason)
                is_normal = failure.code in (1000, 1001, 1005)
                error_class = "" if is_normal else ErrorClass.CLIENT_GONE.value
                return Reply(status=101, close_code=failure.code, closed_by="client", error_class=error_class)
            if failure is not None:
                raise failure
        if down.done() and (failure := down.exception()) is not None:
            raise failure
        return await _upstream_left(call, upstream)
    finally:
        call.peer.pass_with(None)
        upstream.pass_on = None
        await stop_tasks(up, down)


async def _up(plane: Plane, call: Call, connection: Connection, upstream: UpstreamSocket) -> None:
    """Pass on the messages of the client until it leaves: ClientGone is raised then. The upstream may leave first."""
    receive, write, limiter = call.peer.receive, upstream.write, plane.limiter
    most = plane.config.proxied_message_max_bytes
    while True:
        message = await receive()
        size = _size(message)
        if size > most:
            raise Refused(Reason.TOO_LARGE, f"A message holds at most {most} bytes.")
        connection.received(size)
        if not limiter.charge_now(call, messages_in=1, bytes_in=size) and not await _charge_incoming(
            plane, call, connection, size
        ):
            continue
        try:
            await write(message)
        except ClientGone:
            return


async def _down(plane: Plane, call: Call, connection: Connection, upstream: UpstreamSocket) -> None:
    """Pass on the messages of the upstream until it leaves."""
    send, limiter = call.peer.send, plane.limiter
    while True:
        try:
            message = await upstream.read()
        except ClientGone:
            return
        size = _size(message)
        if not limiter.charge_now(call, messages_out=1, bytes_out=size):
            await _charge_outgoing(plane, call, connection, size)
        connection.sent(size)
        upstream.deadline = time.monotonic() + SEND_TIMEOUT_S
        await send(message)
        upstream.deadline = None


def _size(message: str | bytes) -> int:
    return len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode())


async def _charge_incoming(plane: Plane, call: Call, connection: Connection, size: int) -> bool:
    """Charge a message that could not be charged at once; return False if it was refused and its sender notified.

    Raises Refused if the limit ends the connection. Nothing else is read meanwhile, so TCP delays the client.
    """
    began_at = time.monotonic()
    try:
        await plane.limiter.charge(call, messages_in=1, bytes_in=size)
    except Refused as refused:
        if refused.fatal:
            raise
        connection.refused(refused)
        await _send_notice(call, refused)
        return False
    connection.throttled += time.monotonic() - began_at > THROTTLED_S
    return True


async def _charge_outgoing(plane: Plane, call: Call, connection: Connection, size: int) -> None:
    """Delay a message of the upstream until limits allow it; none is dropped, and the upstream is not read meanwhile.

    The client is notified once a second at most. Raises Refused if the limit ends the connection, or for a used-up
    quota.
    """
    began_at = time.monotonic()
    while True:
        try:
            await plane.limiter.charge(call, messages_out=1, bytes_out=size)
            break
        except Refused as refused:
            if refused.fatal or refused.reason is Reason.QUOTA_EXCEEDED:
                raise
            if connection.may_notify_delay(time.monotonic()):
                await _send_notice(call, refused)
            await asyncio.sleep(min(refused.retry_after_s or PAUSE_MIN_S, PAUSE_MAX_S))
    connection.throttled += time.monotonic() - began_at > THROTTLED_S


async def _send_notice(call: Call, refused: Refused) -> None:
    """Send an error frame in band, as ``/v1/stream`` does. Raises Refused ``too-slow``, and ClientGone."""
    try:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await call.peer.send_control(orjson.dumps(refused.frame()).decode())
    except TimeoutError:
        raise Refused(Reason.TOO_SLOW) from None


async def _upstream_left(call: Call, upstream: UpstreamSocket) -> Reply:
    """Pass the upstream's close code and reason through; a broken connection is 1014."""
    code = upstream.close_code
    if not code or code == 1006:
        raise Refused(Reason.UPSTREAM_UNAVAILABLE, cause="upstream-lost")
    await call.peer.close(code if may_be_sent(code) else 1000, upstream.close_reason)
    return Reply(status=101, close_code=code, closed_by="upstream")


def _named(call: Call) -> list[str]:
    """Return all subprotocols that the client lists."""
    return [
        part.strip()
        for name, value in call.headers
        if name == b"sec-websocket-protocol"
        for part in value.decode("latin-1").split(",")
        if part.strip()
    ]


def _offered(call: Call) -> list[str]:
    """Return the subprotocols that the client offers, without the credential, which the upstream must not receive."""
    named = _named(call)
    at = named.index(BEARER) if BEARER in named else len(named)
    return named[:at] + named[at + 2 :]


def _subprotocol(call: Call, upstream: UpstreamSocket) -> str | None:
    """Return the subprotocol that the upstream chose, or else ``bearer`` if a credential was offered.

    A browser that offered subprotocols and gets none closes the connection.
    """
    if upstream.subprotocol in _offered(call):
        return upstream.subprotocol
    return BEARER if BEARER in _named(call) else None


def _headers(call: Call, forwarding: Forwarding, config: Config, via: bytes) -> Headers:
    caller = call.caller
    passed = [
        header
        for header in passed_on(call, via)
        if not header[0].startswith(OF_THE_HANDSHAKE) and header not in ACCEPTS_TRAILERS
    ]
    sent = forwarding.request_headers(call, passed, config)
    if offered := _offered(call):
        sent.append((b"sec-websocket-protocol", ", ".join(offered).encode("latin-1")))
    sent += forwarded_fields(call.ip, forwarding.public_name(call, config))
    return [
        (b"Host", forwarding.host(call).encode("latin-1")),
        *sent,
        (b"X-Consumer-Name", caller.consumer.encode()),
        (b"X-Consumer-Key", caller.key.encode()),
        (b"X-Consumer-Tier", caller.tier.encode()),
        (b"Via", via),
    ]
