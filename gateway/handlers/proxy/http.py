"""Forwards a request to the service behind its route, and the answer back, both streamed."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.call import Call, Reply
from gateway.concurrency.stopping import stop_tasks
from gateway.handlers.proxy.answer import Answer, is_governed
from gateway.handlers.proxy.tokens import Metering, is_metered
from gateway.peer import ClientGone
from gateway.refusals import ErrorClass, Reason, Refused
from gateway.snapshot.paths import encoded
from gateway.snapshot.principal import Principal
from gateway.upstream.connection import Broken, Origin, UpstreamConnection
from gateway.wire.header_fields import Headers, has_body

if TYPE_CHECKING:
    from gateway.plane import Plane

logger = logging.getLogger(__name__)

HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade", b"expect", b"http2-settings",
    }
)  # fmt: skip
NOT_PASSED_BACK = HOP_BY_HOP | {b"date"}
"""Our own server dates each answer."""
ONLY_KEPT_OR_CLOSED = frozenset({frozenset({b"keep-alive"}), frozenset({b"close"})})
PRIVATE = (b"cache-control", b"private")
BY_KEY = (b"vary", b"Authorization, X-API-Key")
OURS = frozenset(
    {
        b"host", b"authorization", b"x-api-key", b"content-length", b"forwarded", b"x-real-ip", b"x-client-ip",
        b"x-cluster-client-ip", b"true-client-ip", b"cf-connecting-ip",
    }
)  # fmt: skip
NOT_PASSED_ON = HOP_BY_HOP | OURS | {b"cookie"}
OPERATORS_COOKIES = frozenset({b"sessionid", b"csrftoken"})
"""What signs an operator in at this very address: no upstream's business (see ``cookies_of``)."""
IDENTITY_PREFIXES = (b"x-consumer-", b"x-forwarded-", b"x-apimgmt-")
LAST_CHUNK = b"0\r\n\r\n"
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?:\.\.\.)?\}")


async def forward(plane: Plane, call: Call) -> Reply:
    """Proxy one HTTP or SSE call. Raises Refused ``upstream-unavailable`` or ``upstream-timeout`` before the answer.

    It ends, as a connection would, where the caller loses its right to it. Raises Refused ``key-revoked`` and the like.
    """
    assert call.route is not None, "upstreams are reached by routes"
    under_way = plane.connections.in_flight
    request = under_way.begin(call)
    try:
        with request:
            return await (_metered(plane, call) if is_metered(call) else _forward(plane, call, None))
    finally:
        under_way.ended(request)


async def _metered(plane: Plane, call: Call) -> Reply:
    """Do so with the tokens of the call reserved beforehand, and corrected whatever becomes of it."""
    metering = await Metering.begin(plane, call)
    try:
        return await _forward(plane, call, metering)
    except Refused:
        metering.failed()
        raise
    finally:
        metering.settle()


async def _forward(plane: Plane, call: Call, metering: Metering | None) -> Reply:
    aimed = aim(call)
    origin = aimed.origin
    head = _head(call, aimed.at(call), aimed.host, plane.config.public_scheme)
    reply = Reply(closed_by="upstream")
    connection = await plane.upstreams.lend(origin)
    try:
        return await _exchange(plane, call, connection, head, reply, metering)
    except Broken:
        if not (connection.is_reused and _may_be_repeated(call, connection)):
            raise _lost() from None
    finally:
        plane.upstreams.take_back(connection)
    # The upstream had just closed a pooled connection: nothing was answered, so it is asked anew, once.
    connection = await plane.upstreams.lend(origin, is_new=True)
    try:
        return await _exchange(plane, call, connection, head, reply, metering)
    except Broken:
        raise _lost() from None
    finally:
        plane.upstreams.take_back(connection)


async def _exchange(
    plane: Plane, call: Call, connection: UpstreamConnection, head: bytes, reply: Reply, metering: Metering | None
) -> Reply:
    upstreams, peer = plane.upstreams, call.peer
    sending: asyncio.Task[None] | None = None
    if peer.is_read:
        connection.begin(head, is_head_request=call.method == "HEAD")
        upstreams.expect(connection, upstreams.first_byte_timeout_s)
        peer.watch(connection.abandon)
    else:
        sending = await _begin_body(plane, call, connection, head)
    try:
        await connection.head()
        reply.status, reply.bytes_in = connection.status, peer.bytes_in
        headers = connection.headers
        answer = Answer(plane, call, connection, reply, metering) if is_governed(call, headers, metering) else None
        if answer is not None:
            headers = await answer.begin()
        await peer.start(connection.status, _answer_headers(plane, call, headers))
        if not connection.has_more:
            # The head of a stream is not held back until its first event.
            await peer.send(b"")
        if answer is None:
            await _pass_back(plane, call, connection, reply)
        else:
            await answer.pass_back()
    finally:
        peer.watch(None)
        await stop_tasks(sending)
    reply.bytes_in = peer.bytes_in
    if connection.status >= 500 and reply.refused is None:
        reply.error_class = ErrorClass.UPSTREAM_LOST.value
    return reply


async def _pass_back(plane: Plane, call: Call, connection: UpstreamConnection, reply: Reply) -> None:
    """Pass the answer's body on as it comes; the caller's pace is the upstream's. No limit counts it."""
    upstreams, peer = plane.upstreams, call.peer
    while True:
        if not connection.has_more:
            upstreams.expect(connection, upstreams.idle_timeout_s)
        part = await connection.read()
        reply.bytes_out += len(part)
        is_last = connection.is_read_whole
        # While the caller does not read, that is not the upstream's fault.
        connection.deadline = None
        await peer.send(part, more=not is_last)
        if is_last:
            return


async def _begin_body(
    plane: Plane, call: Call, connection: UpstreamConnection, head: bytes
) -> asyncio.Task[None] | None:
    """Send the head and what there is of the body; where that is not all, the rest goes while the answer comes.

    A body whose length is not known goes in chunks (RFC 9112 7.1).
    """
    peer = call.peer
    is_chunked = call.header(b"content-length") is None
    part = await peer.read()
    is_whole = peer.is_read
    first = (_chunk(part) if part else b"") + (LAST_CHUNK if is_whole else b"") if is_chunked else part
    connection.begin(head + first, is_head_request=call.method == "HEAD", is_whole=is_whole)
    if not is_whole:
        return asyncio.create_task(_send_rest(plane, call, connection, is_chunked), name="request body")
    plane.upstreams.expect(connection, plane.upstreams.first_byte_timeout_s)
    peer.watch(connection.abandon)
    return None


async def _send_rest(plane: Plane, call: Call, connection: UpstreamConnection, is_chunked: bool) -> None:
    """Send the rest of a body as it comes. What goes wrong here is told to who waits for the answer."""
    try:
        await _pass_on(plane, call, connection, is_chunked)
    except Broken:
        return
    except (Refused, ClientGone) as failure:
        connection.fail(failure)
    except Exception:
        logger.exception("a body could not be passed on")
        connection.fail(Refused(Reason.INTERNAL))


async def _pass_on(plane: Plane, call: Call, connection: UpstreamConnection, is_chunked: bool) -> None:
    peer, upstreams = call.peer, plane.upstreams
    while part := await peer.read():
        if not connection.has_answered:
            upstreams.expect(connection, upstreams.first_byte_timeout_s)
        await connection.write(_chunk(part) if is_chunked else part)
        if not connection.has_answered:
            # The caller's pace is not the upstream's fault.
            connection.deadline = None
    if is_chunked:
        await connection.write(LAST_CHUNK)
    connection.is_sent = True
    if not connection.has_answered:
        upstreams.expect(connection, upstreams.first_byte_timeout_s)
    peer.watch(connection.abandon)


@dataclass(frozen=True, slots=True)
class Aim:
    """Where a route's calls go: read once from its handler."""

    origin: Origin
    host: str
    pieces: tuple[tuple[str, str], ...]
    """The path's text, each piece followed by the parameter that stands after it, "" after the last."""
    query: str

    def at(self, call: Call) -> str:
        """Give the request target for a call."""
        path = "".join([text + encoded(call.parameters[name]) if name else text for text, name in self.pieces])
        if not call.query and not self.query:
            return path
        own = call.query.decode("latin-1")
        return f"{path}?{self.query}&{own}" if self.query and own else f"{path}?{self.query}{own}"


def aim(call: Call) -> Aim:
    """Say where the call's route goes."""
    assert call.route is not None, "upstreams are reached by routes"
    handler = call.route.handler
    return _aim(handler["url"], handler.get("rewrite") or "")


@lru_cache(maxsize=4096)
def _aim(url: str, rewrite: str) -> Aim:
    parts = urlsplit(url)
    split = _PARAMETER.split(rewrite or parts.path or "/")
    pieces = tuple(zip(split[::2], [*split[1::2], ""], strict=True))
    return Aim(Origin.of(url), parts.netloc.rpartition("@")[2], pieces, parts.query)


def _head(call: Call, target: str, host: str, scheme: str) -> bytes:
    lines = [f"{call.method} {target} HTTP/1.1\r\nhost: {host}\r\n".encode("latin-1")]
    named = named_in_connection(call.headers)
    asked_host = b""
    for name, value in call.headers:
        if name == b"host":
            asked_host = value
        elif not (name in NOT_PASSED_ON or name in named or name.startswith(IDENTITY_PREFIXES) or b"_" in name):
            lines.append(b"%b: %b\r\n" % (name, value))
        elif name == b"cookie" and name not in named and (cookies := cookies_of(value)):
            lines.append(b"cookie: %b\r\n" % cookies)
    if has_body(call.headers):
        length = call.header(b"content-length")
        lines.append(
            f"content-length: {length}\r\n".encode() if length is not None else b"transfer-encoding: chunked\r\n"
        )
    lines += [b"%b: %b\r\n" % header for header in call.added_headers]
    lines.append(_identity(call.caller))
    lines.append(_forwarded(call.ip, asked_host, scheme))
    return b"".join(lines)


def cookies_of(value: bytes) -> bytes:
    """Give the cookies that an upstream may have: not those by which operators are signed in to the admin."""
    if not any(name in value for name in OPERATORS_COOKIES):
        return value
    cookies = [cookie.strip() for cookie in value.split(b";")]
    return b"; ".join(cookie for cookie in cookies if cookie.partition(b"=")[0].strip() not in OPERATORS_COOKIES)


@lru_cache(maxsize=4096)
def _forwarded(ip: str, host: bytes, scheme: str) -> bytes:
    """Tell the upstream what it cannot see itself, and end the head."""
    said = f"x-forwarded-for: {ip}\r\nx-forwarded-proto: {scheme}\r\n".encode()
    return said + (b"x-forwarded-host: %b\r\n\r\n" % host if host else b"\r\n")


@lru_cache(maxsize=4096)
def _identity_of(consumer: str, key: str, tier: str) -> bytes:
    return f"x-consumer-name: {consumer}\r\nx-consumer-key: {key}\r\nx-consumer-tier: {tier}\r\n".encode(
        "latin-1", "replace"
    )


def _identity(who: Principal) -> bytes:
    """Tell the upstream who calls, in headers that callers themselves cannot send."""
    return _identity_of(who.consumer, who.key, who.tier)


def _answer_headers(plane: Plane, call: Call, headers: Headers) -> Headers:
    """Give the upstream's headers without those of its own connection, and with our limits."""
    named: frozenset[bytes] = frozenset()
    kept: Headers = []
    is_cached_by_rule = False
    for header in headers:
        name = header[0]
        if name not in NOT_PASSED_BACK:
            kept.append(header)
            if name == b"cache-control":
                is_cached_by_rule = True
        elif name == b"connection":
            named = named | _tokens(header[1]) if named else _tokens(header[1])
    if named and named not in ONLY_KEPT_OR_CLOSED:
        kept = [header for header in kept if header[0] not in named]
    # What was answered to one key is not for a shared cache to give to another.
    kept.append(BY_KEY if is_cached_by_rule else PRIVATE)
    kept += plane.limiter.headers(call)
    return kept


def named_in_connection(headers: Headers) -> frozenset[bytes]:
    """Give the headers that are of this connection alone (RFC 9110 7.6.1)."""
    named: frozenset[bytes] = frozenset()
    for name, value in headers:
        if name == b"connection":
            named = named | _tokens(value) if named else _tokens(value)
    return named


@lru_cache(maxsize=256)
def _tokens(value: bytes) -> frozenset[bytes]:
    return frozenset(token.strip().lower() for token in value.split(b","))


def _may_be_repeated(call: Call, connection: UpstreamConnection) -> bool:
    return (
        not connection.has_begun_to_answer
        and call.method in IDEMPOTENT
        and call.peer.bytes_in == 0
        and not has_body(call.headers)
    )


def _chunk(part: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), part)


def _lost() -> Refused:
    return Refused(Reason.UPSTREAM_UNAVAILABLE, cause="upstream-lost")
