"""Forwards a request to the service behind its route, and the answer back, both streamed."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.call import Call, Headers, Principal, Protocol, Reply
from gateway.paths import encoded
from gateway.refusals import ErrorClass, Reason, Refused
from gateway.upstream_client import Broken, Origin, UpstreamConnection

if TYPE_CHECKING:
    from gateway.plane import Plane

HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
        b"transfer-encoding", b"upgrade", b"expect", b"http2-settings",
    }
)  # fmt: skip
OURS = frozenset({b"host", b"authorization", b"x-api-key", b"content-length", b"forwarded"})
IDENTITY_PREFIXES = (b"x-consumer-", b"x-forwarded-", b"x-apimgmt-", b"x-real-ip")
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
ONE_AT_MOST = 64 * 1024


async def forward(plane: Plane, call: Call) -> Reply:
    """Proxy one HTTP or SSE call. Raises Refused ``upstream-unavailable`` or ``upstream-timeout`` before the answer."""
    assert call.route is not None, "upstreams are reached by routes"
    origin, target, host = aim(call)
    head = _head(call, target, host)
    reply = Reply(closed_by="upstream")
    try:
        async with plane.upstreams.connection(origin) as connection:
            return await _exchange(plane, call, connection, head, reply)
    except Broken:
        if call.peer.has_started or not _may_be_repeated(call):
            raise _lost() from None
    # A pooled connection that the upstream had just closed: nothing was answered, so it is asked anew, once.
    try:
        async with plane.upstreams.connection(origin, is_new=True) as connection:
            return await _exchange(plane, call, connection, head, reply)
    except Broken:
        raise _lost() from None


async def _exchange(plane: Plane, call: Call, connection: UpstreamConnection, head: bytes, reply: Reply) -> Reply:
    upstreams, peer = plane.upstreams, call.peer
    upstreams.expect(connection, upstreams.first_byte_timeout_s)
    if peer.is_read:
        connection.begin(head, is_head_request=call.method == "HEAD")
    else:
        await _send_body(plane, call, connection, head)
    await connection.head()
    reply.status, reply.bytes_in = connection.status, peer.bytes_in
    is_stream = _is_event_stream(connection.headers)
    if is_stream:
        call.protocol = Protocol.SSE
    await peer.start(connection.status, _answer_headers(plane, call, connection.headers))
    while True:
        upstreams.expect(connection, upstreams.idle_timeout_s)
        part = await connection.read()
        connection.deadline = None
        if part:
            reply.bytes_out += len(part)
            if not plane.limiter.charge_now(call, bytes_out=len(part)):
                await plane.limiter.charge(call, bytes_out=len(part))
        await peer.send(part, more=not connection.is_whole)
        if connection.is_whole:
            break
    if connection.status >= 500:
        reply.error_class = ErrorClass.UPSTREAM_LOST.value
    return reply


async def _send_body(plane: Plane, call: Call, connection: UpstreamConnection, head: bytes) -> None:
    """Send head and body as they come; a body whose length is not known goes in chunks (RFC 9112 7.1)."""
    peer = call.peer
    part = await peer.read()
    is_chunked = call.header(b"content-length") is None
    connection.begin(head + (_chunk(part) if is_chunked else part), is_head_request=call.method == "HEAD")
    while part and not connection.has_answered:
        part = await peer.read()
        plane.upstreams.expect(connection, plane.upstreams.first_byte_timeout_s)
        if part:
            await connection.write(_chunk(part) if is_chunked else part)
        elif is_chunked:
            await connection.write(b"0\r\n\r\n")


def aim(call: Call) -> tuple[Origin, str, str]:
    """Say where the call goes: the upstream's origin, the request target, and the Host to name."""
    assert call.route is not None, "upstreams are reached by routes"
    url = str(call.route.handler["url"])
    origin, path, query, host = _parts(url)
    rewrite = call.route.handler.get("rewrite")
    path = rewrite if isinstance(rewrite, str) and rewrite else path
    for name, value in call.parameters.items():
        path = path.replace(f"{{{name}}}", encoded(value)).replace(f"{{{name}...}}", encoded(value))
    own = call.query.decode("latin-1")
    joined = "&".join(part for part in (query, own) if part)
    return origin, f"{path}?{joined}" if joined else path, host


@lru_cache(maxsize=4096)
def _parts(url: str) -> tuple[Origin, str, str, str]:
    parts = urlsplit(url)
    return Origin.of(url), parts.path or "/", parts.query, parts.netloc.rpartition("@")[2]


def _head(call: Call, target: str, host: str) -> bytes:
    lines = [f"{call.method} {target} HTTP/1.1\r\nhost: {host}\r\n".encode("latin-1")]
    named = _named_in_connection(call.headers)
    for name, value in call.headers:
        if name in HOP_BY_HOP or name in OURS or name in named or name.startswith(IDENTITY_PREFIXES) or b"_" in name:
            continue
        lines.append(b"%b: %b\r\n" % (name, value))
    if not call.peer.is_read:
        length = call.header(b"content-length")
        lines.append(
            f"content-length: {length}\r\n".encode() if length is not None else b"transfer-encoding: chunked\r\n"
        )
    lines.append(_identity(call.who))
    lines.append(f"x-forwarded-for: {call.ip}\r\n\r\n".encode())
    return b"".join(lines)


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
    named = _named_in_connection(headers)
    kept = [(name, value) for name, value in headers if name not in HOP_BY_HOP and name not in named]
    if not any(name == b"cache-control" for name, _ in kept):
        # What was answered to one key is not for a shared cache to give to another.
        kept.append((b"cache-control", b"private"))
    return kept + plane.limiter.headers(call)


def _named_in_connection(headers: Headers) -> frozenset[bytes]:
    for name, value in headers:
        if name == b"connection":
            return _tokens(value)
    return frozenset()


@lru_cache(maxsize=256)
def _tokens(value: bytes) -> frozenset[bytes]:
    return frozenset(token.strip().lower() for token in value.split(b","))


def _is_event_stream(headers: Headers) -> bool:
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)


def _may_be_repeated(call: Call) -> bool:
    return call.method in IDEMPOTENT and call.peer.is_read and call.peer.bytes_in == 0


def _chunk(part: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), part) if part else b"0\r\n\r\n"


def _lost() -> Refused:
    return Refused(Reason.UPSTREAM_UNAVAILABLE, cause="upstream-lost")
