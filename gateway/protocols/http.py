"""Accepts HTTP requests and WebSocket handshakes, and renders what the path returns for them."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING
from urllib.parse import quote

from gateway import tracing
from gateway.call import Call, CallersConnection, Reply
from gateway.credentials.api_keys import from_request, without_ticket
from gateway.handlers.proxy.forwarding import forwarding_of
from gateway.handlers.registry import REGISTRY, add_registry_error
from gateway.identity.client_address import client_ip, front_of
from gateway.peer import ClientGone, Socket
from gateway.policies.cors import PREFLIGHT
from gateway.protocol import Protocol
from gateway.protocols.exchange import AsgiExchange, Exchange
from gateway.protocols.problem import render_for
from gateway.protocols.socket import AsgiSocket, Message, Receive, Send
from gateway.refusals import Reason, Refused
from gateway.snapshot.encoded_slashes import match_raw
from gateway.snapshot.paths import normalised
from gateway.wire.header_fields import Headers, has_body
from gateway.wire.host import is_host

if TYPE_CHECKING:
    from gateway.plane import Plane

TICKET_PROTOCOLS = frozenset({Protocol.SSE, Protocol.WEBSOCKET})
SERVER = b"*"
"""The target of ``OPTIONS`` that means the server as a whole (RFC 9112 3.2.4)."""
SERVER_OPTIONS: Headers = [
    (b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    (b"content-length", b"0"),
]
"""The answer to ``OPTIONS *`` (RFC 9110 9.3.7): what a route says of itself may be more, or less."""
FETCH_DEST = b"sec-fetch-dest"
TICKET_DESTINATIONS = frozenset({b"empty", b"websocket"})
"""What browsers name as the destination of ``fetch``, ``EventSource`` and ``WebSocket``."""


async def serve_http(plane: Plane, scope: Message, receive: Receive, send: Send) -> None:
    """Serve one request of any ASGI server."""
    raw_path = _raw_path(scope)
    tcp = (scope.get("state") or {}).get("tcp")
    call = accepted(
        plane, Protocol.HTTP, scope["method"], raw_path, scope["query_string"], scope["headers"], _client(scope), tcp
    )
    await serve_call(plane, call, AsgiExchange(plane, call, receive, send, scope.get("extensions") or ()))


async def serve_call(plane: Plane, call: Call, exchange: Exchange, handling: Awaitable[Reply] | None = None) -> None:
    """Run an accepted request through the path and answer it; ``handling`` goes on with one that was admitted already.

    Raises ConnectionAbortedError if the response had begun and cannot be finished: it must not look complete.
    """
    call.peer = exchange
    try:
        refused = _refusal_of_head(plane, call) if handling is None else None
        if refused is None and not call.handler and not _is_for_upstream(plane, call):
            await _answer_options(plane, call, exchange)
        elif refused is None:
            reply = await plane.pipeline.run(call, handling)
            refused = reply.refused
            if refused is not None and exchange.has_started and reply.closed_by != "gateway":
                raise ConnectionAbortedError(refused.reason.value)
        if refused is not None and not exchange.has_started:
            await _refuse(plane, call, exchange, refused)
    finally:
        exchange.served()
        # The exchange refers to its call; as a cycle both would stay until a collection, which stops all traffic.
        call.peer = None


def _refusal_of_head(plane: Plane, call: Call) -> Refused | None:
    """Prepare a call; return why it is refused before the path, if it is, and count that."""
    try:
        prepare(plane, call)
        if not call.handler:
            plane.pipeline.refused_calls.charge(call.ip)
    except Refused as raised:
        refused = plane.pipeline.refused_calls.charged(call.ip, raised).bare()
        plane.meter.count(call, Reply(status=refused.status, refused=refused))
        if call.route is None and call.address:
            call.route = plane.snapshot.route_at(call.protocol, call.address)
        return refused
    return None


async def _answer_options(plane: Plane, call: Call, exchange: Exchange) -> None:
    """Answer a preflight, or an ``OPTIONS`` that asks what the server as a whole is capable of."""
    if call.raw_path == SERVER:
        await exchange.end(200, SERVER_OPTIONS)
    else:
        await exchange.end(204, PREFLIGHT if call.route is None else plane.policies.preflight(call))


async def serve_websocket(plane: Plane, scope: Message, receive: Receive, send: Send) -> None:
    """Serve one WebSocket, from its handshake to its end."""
    raw_path = _raw_path(scope)
    tcp = (scope.get("state") or {}).get("tcp")
    call = accepted(
        plane, Protocol.WEBSOCKET, "GET", raw_path, scope["query_string"], scope["headers"], _client(scope), tcp
    )
    call.has_empty_query = (scope.get("state") or {}).get("has_empty_query", False)
    await serve_socket(plane, call, AsgiSocket(scope, receive, send))


async def serve_socket(plane: Plane, call: Call, socket: Socket) -> None:
    """Serve the WebSocket of an accepted call."""
    call.peer = socket
    try:
        prepare(plane, call, socket.subprotocols)
    except Refused as raised:
        refused = plane.pipeline.refused_calls.charged(call.ip, raised).bare()
        plane.meter.count(call, Reply(status=refused.status, refused=refused))
        await _deny(plane, call, socket, refused)
        return
    reply = await plane.pipeline.run(call)
    # Its gates refer to the call; as a cycle both would stay until a collection, which stops all traffic.
    call.peer = None
    if reply.refused is None:
        return
    if socket.is_accepted:
        await socket.close(reply.refused.row.websocket, reply.refused.close_reason())
    else:
        await _deny(plane, call, socket, reply.refused)


async def _deny(plane: Plane, call: Call, socket: Socket, refused: Refused) -> None:
    try:
        await socket.deny(refused, plane.limiter.headers(call))
    except ClientGone:
        return


def accepted(
    plane: Plane,
    protocol: Protocol,
    method: str,
    raw_path: bytes,
    query: bytes,
    headers: Headers,
    ip: str,
    tcp: CallersConnection | None = None,
) -> Call:
    """Return the call of a request's head."""
    peer, trusted = ip, plane.config.trusted_proxies
    ip = client_ip(peer, headers, trusted)
    call = Call(protocol=protocol, address="", ip=ip, method=method, query=query, headers=headers)
    if trusted:
        call.front = front_of(peer, headers, trusted)
    call.raw_path = raw_path
    if tcp is not None:
        call.tcp = tcp
        tcp.asked_by(call.ip)
    return call


def prepare(plane: Plane, call: Call, subprotocols: Iterable[str] = ()) -> None:
    """Match the request to its route or endpoint, and read its credential. Raises Refused.

    A CORS preflight gets no handler. It has no credential and no body, and is matched by the method that it announces.
    Neither does ``OPTIONS *``, which is for no route.
    """
    is_for_server = call.raw_path == SERVER and call.method == "OPTIONS" and not call.query
    if not is_for_server:
        call.address = normalised(call.raw_path)
    announced = _read_head(call)
    if plane.draining:
        raise Refused(Reason.DRAINING, retry_after_s=1)
    if is_for_server:
        return
    if plane.config.trace_start and call.traceparent is None:
        tracing.start(call)
    is_preflight = announced and call.method == "OPTIONS" and call.origin is not None and not has_body(call.headers)
    method = announced if is_preflight else call.method
    match = match_raw(plane.snapshot, call.protocol, method, raw_path=call.raw_path, path=call.address)
    call.route = match.route
    if is_preflight:
        call.parameters = match.parameters
        return
    call.protocol = match.protocol
    call.handler = match.handler
    call.target = match.target
    call.rights = match.rights
    call.parameters = match.parameters
    call.is_anonymous = match.is_anonymous
    if not match.is_anonymous:
        _read_credential(plane, call, subprotocols)


def _read_credential(plane: Plane, call: Call, subprotocols: Iterable[str]) -> None:
    route = call.route
    is_foreign = (
        route is not None
        and (route.keeps_authorization or bool(route.sealed_credential))
        and forwarding_of(route).is_authorization_foreign(plane.config)
    )
    call.credential = from_request(call.headers, call.query, subprotocols, is_authorization_foreign=is_foreign)
    if call.credential is not None and call.credential.kind == "ticket":
        _require_place_of_ticket(call)
        call.query = without_ticket(call.query)


def _is_for_upstream(plane: Plane, call: Call) -> bool:
    """Return whether the upstream answers a preflight: its route has no ``cors``. If so, prepare the call for that."""
    route = call.route
    if route is None or route.handler.get("type") != "upstream" or plane.policies.answers_preflights(route):
        return False
    call.handler, call.target, call.is_anonymous = "upstream", route.name, True
    return True


def _require_place_of_ticket(call: Call) -> None:
    """Refuse a ticket anywhere but on a WebSocket or an event stream that a script opened. Raises Refused.

    A link holds a ticket too: followed by a browser, it would show what an upstream answers as a page of the gateway.
    """
    if call.protocol not in TICKET_PROTOCOLS:
        raise Refused(
            Reason.UNAUTHENTICATED,
            "A connect ticket opens WebSockets and event streams only. Send the key in a header.",
            cause="ticket-misplaced",
        )
    if any(value.strip().lower() not in TICKET_DESTINATIONS for name, value in call.headers if name == FETCH_DEST):
        raise Refused(
            Reason.FORBIDDEN, "A connect ticket does not open a page, frame or worker.", cause="ticket-as-page"
        )


def _read_head(call: Call) -> str:
    """Read the headers that every call may have, and return the method that a preflight announces. Raises Refused."""
    announced = ""
    for name, value in call.headers:
        if name == b"origin":
            call.origin = value.decode("latin-1")
        elif name == b"traceparent":
            tracing.begin(call)
        elif name == b"host" and call.tcp is None and not is_host(value):
            # The gateway's own server checks it as it reads the head; other ASGI servers do not.
            raise Refused(Reason.INVALID_REQUEST, "The Host is not valid.", cause="malformed-request")
        elif name == b"access-control-request-method":
            announced = value.decode("latin-1")
    return announced


async def _refuse(plane: Plane, call: Call, exchange: Exchange, refused: Refused) -> None:
    if call.handler == REGISTRY:
        add_registry_error(refused)
    headers, body = render_for(call, refused)
    if call.principal is not None:
        headers += plane.limiter.headers(call)
    if not exchange.is_received or plane.draining:
        # The rest of the body is not read, and a draining process accepts no further request.
        headers.append((b"connection", b"close"))
    try:
        await exchange.start(refused.status, headers)
        await exchange.send(body, more=False)
    except ClientGone:
        return


def _raw_path(scope: Message) -> bytes:
    """Return the path as it was sent, or as it could have been, where the server has only decoded it."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return raw


def _client(scope: Message) -> str:
    client: tuple[str, int] | None = scope.get("client")
    return client[0] if client else "0.0.0.0"
