"""Accepts HTTP requests and WebSocket handshakes from any ASGI server, and renders what the path says of them."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING

import orjson

from gateway import policies
from gateway.call import Call, ClientGone, Headers, Protocol, Reply
from gateway.credentials import from_request
from gateway.meter import meter
from gateway.paths import normalised
from gateway.pipeline import run
from gateway.protocols.socket import AsgiSocket, Message, Receive, Send
from gateway.refusals import Reason, Refused

if TYPE_CHECKING:
    from gateway.plane import Plane

ANY_ORIGIN: Headers = [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", b"*")]
PREFLIGHT: Headers = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
    (b"access-control-allow-headers", b"Authorization, X-API-Key, Content-Type, Last-Event-ID, Idempotency-Key, *"),
    (b"access-control-max-age", b"600"),
]


class Exchange:
    """Implements :class:`gateway.call.Exchange` over an ASGI http scope."""

    __slots__ = (
        "_call",
        "_has_ended",
        "_is_read",
        "_plane",
        "_receive",
        "_send",
        "_start",
        "body_max_bytes",
        "bytes_in",
    )

    def __init__(self, plane: Plane, call: Call, receive: Receive, send: Send) -> None:
        self._plane = plane
        self._call = call
        self._receive = receive
        self._send = send
        self._start: Message | None = None
        self._is_read = not _has_body(call.headers)
        self._has_ended = False
        self.body_max_bytes = plane.config.body_max_bytes
        self.bytes_in = 0

    @property
    def is_read(self) -> bool:
        """Nothing of the body is left to read."""
        return self._is_read

    @property
    def has_started(self) -> bool:
        """The head of the answer is on its way."""
        return self._start is not None

    async def read(self) -> bytes:
        """Give the next part of the body, ``b""`` at its end. Charges ``bytes_in``. Raises Refused and ClientGone."""
        while not self._is_read:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            self._is_read = not message.get("more_body", False)
            part: bytes = message.get("body", b"")
            if not part:
                continue
            self.bytes_in += len(part)
            if self.bytes_in > self.body_max_bytes:
                raise _body_too_large(self.body_max_bytes)
            if not self._plane.limiter.charge_now(self._call, bytes_in=len(part)):
                await self._plane.limiter.charge(self._call, bytes_in=len(part))
            return part
        return b""

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head; the route's policies may add to it."""
        headers = policies.outbound(self._call, status, headers)
        if self._call.origin is not None and self._call.route is None:
            headers = [*headers, *ANY_ORIGIN]
        self._start = {"type": "http.response.start", "status": status, "headers": headers}
        await self._say(self._start)

    async def send(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the body. Raises ClientGone."""
        self._has_ended = not more
        await self._say({"type": "http.response.body", "body": body, "more_body": more})

    async def gone(self) -> None:
        """Return when the caller has hung up."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _say(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError as error:
            raise ClientGone from error


async def serve_http(plane: Plane, scope: Message, receive: Receive, send: Send) -> None:
    """Serve one request."""
    call = _call(plane, scope, Protocol.HTTP)
    exchange = call.peer = Exchange(plane, call, receive, send)
    try:
        _prepare(plane, call, scope)
    except Refused as refused:
        meter(plane, call, Reply(status=refused.status, refused=refused))
        await _refuse(call, exchange, refused)
        return
    if call.method == "OPTIONS" and await _preflight(call, exchange):
        return
    reply = await run(plane, call)
    if reply.refused is not None and not exchange.has_started:
        await _refuse(call, exchange, reply.refused, plane)
    elif reply.refused is not None and reply.closed_by != "gateway":
        # The answer is on its way already: it is cut off, so that nobody takes it for whole.
        raise ConnectionAbortedError(reply.refused.reason.value)


async def serve_websocket(plane: Plane, scope: Message, receive: Receive, send: Send) -> None:
    """Serve one WebSocket, from its handshake to its end."""
    call = _call(plane, scope, Protocol.WEBSOCKET)
    socket = call.peer = AsgiSocket(scope, receive, send)
    try:
        _prepare(plane, call, scope)
    except Refused as refused:
        meter(plane, call, Reply(status=refused.status, refused=refused))
        await _deny(socket, refused)
        return
    reply = await run(plane, call)
    if reply.refused is None:
        return
    if socket.is_accepted:
        await socket.close(reply.refused.row.websocket, reply.refused.close_reason())
    else:
        await _deny(socket, reply.refused)


async def _deny(socket: AsgiSocket, refused: Refused) -> None:
    try:
        await socket.deny(refused)
    except ClientGone:
        return


def rendered(refused: Refused) -> tuple[Headers, bytes]:
    """Say a refusal as HTTP: its headers, and problem details as its body."""
    body = orjson.dumps(refused.problem())
    return [*refused.http_headers(), (b"content-length", str(len(body)).encode())], body


def _call(plane: Plane, scope: Message, protocol: Protocol) -> Call:
    call = Call(
        protocol=protocol,
        address=scope["path"],
        ip=(scope.get("client") or ("0.0.0.0",))[0],
        method=scope.get("method", "GET"),
        query=scope["query_string"],
        headers=scope["headers"],
    )
    if plane.config.trusted_proxies:
        call.ip = _ip(call, plane.config.trusted_proxies)
    return call


def _prepare(plane: Plane, call: Call, scope: Message) -> None:
    """Find out what the request means and what it shows of its caller. Raises Refused."""
    if plane.draining:
        raise Refused(Reason.DRAINING, retry_after_s=1)
    call.address = normalised(scope.get("raw_path") or scope["path"].encode())
    origin = call.header(b"origin")
    call.origin = origin
    if call.method == "OPTIONS" and origin is not None and call.header(b"access-control-request-method"):
        # A preflight carries no credential: it asks about the method that it announces.
        match = plane.snapshot.match(call.protocol, call.header(b"access-control-request-method") or "", call.address)
        call.route = match.route
        return
    match = plane.snapshot.match(call.protocol, call.method, call.address)
    call.protocol = match.protocol
    call.handler = match.handler
    call.target = match.target
    call.rights = match.rights
    call.parameters = match.parameters
    call.route = match.route
    call.is_anonymous = match.is_anonymous
    call.traceparent = call.header(b"traceparent")
    if not match.is_anonymous:
        call.credential = from_request(call.headers, call.query, scope.get("subprotocols", ()))


async def _preflight(call: Call, exchange: Exchange) -> bool:
    """Answer a CORS preflight; False where the request is none."""
    if call.handler or call.header(b"access-control-request-method") is None:
        return False
    headers = PREFLIGHT if call.route is None else policies.preflight(call)
    await exchange.start(204, headers)
    await exchange.send(b"", more=False)
    return True


async def _refuse(call: Call, exchange: Exchange, refused: Refused, plane: Plane | None = None) -> None:
    headers, body = rendered(refused)
    if plane is not None and call.principal is not None:
        headers += plane.limiter.headers(call)
    if not exchange.is_read:
        # What is left of the body is not worth reading.
        headers.append((b"connection", b"close"))
    try:
        await exchange.start(refused.status, headers)
        await exchange.send(body, more=False)
    except ClientGone:
        return


def _has_body(headers: Headers) -> bool:
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers)


def _body_too_large(most: int) -> Refused:
    return Refused(Reason.TOO_LARGE, f"The body holds more than {most} bytes.")


def _ip(call: Call, trusted: tuple[IPv4Network | IPv6Network, ...]) -> str:
    """Give the caller's address: from the right, the first that no proxy of ours wrote."""
    forwarded = [
        part.strip()
        for name, value in call.headers
        if name == b"x-forwarded-for"
        for part in value.decode("latin-1").split(",")
    ]
    ip = call.ip
    try:
        while forwarded and any(ip_address(ip) in network for network in trusted):
            candidate = forwarded.pop()
            ip = str(ip_address(candidate))
    except ValueError:
        return ip
    return ip
