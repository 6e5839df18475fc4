"""What serves the WebSocket that an HTTP connection becomes: the data plane, or else the application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from typing import Protocol as Interface

from gateway.listening.tcp_connections import TcpConnection
from gateway.protocol import Protocol
from gateway.protocols.http import accepted, serve_socket
from gateway.server.asgi_socket import AsgiDriver, scope_of
from gateway.server.heads import has_empty_query, target_parts
from gateway.server.site import Site
from gateway.server.websocket import ServerSocket
from gateway.wire.header_fields import Headers


class Upgraded(Interface):
    """What is used of the HTTP connection. Nothing keeps it: it ends with the handshake."""

    site: Site
    tcp: TcpConnection
    app: Any
    app_state: dict[str, Any]


def requested(headers: Headers) -> bytes | None:
    """Return the protocol to upgrade to, or None. uvicorn reads one Connection header; there may be several."""
    tokens = b",".join(value for name, value in headers if name == b"connection").lower().split(b",")
    if b"upgrade" not in [token.strip() for token in tokens]:
        return None
    return next((value.lower() for name, value in headers if name == b"upgrade"), None)


def has_body(headers: Headers) -> bool:
    """Return whether a handshake announces a body, which it may not have."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" 0")) for name, value in headers
    )


def served_by(upgraded: Upgraded, target: bytes, headers: Headers) -> Callable[[ServerSocket], Awaitable[None]]:
    """Return what serves a handshake for a target."""
    path, query = target_parts(target)
    plane, tcp = upgraded.site.plane(), upgraded.tcp
    if plane is None or upgraded.site.is_elsewhere(path):
        return partial(_run, upgraded.app, target, headers, {**upgraded.app_state, "tcp": tcp})
    call = accepted(plane, Protocol.WEBSOCKET, "GET", path, query, headers, tcp.ip, tcp)
    call.has_empty_query = has_empty_query(target)
    return partial(serve_socket, plane, call)


async def _run(application: Any, target: bytes, headers: Headers, state: dict[str, Any], socket: ServerSocket) -> None:
    driver = AsgiDriver(socket)
    await application(scope_of(socket, target, headers, state), driver.receive, driver.send)
