"""The data plane as an ASGI application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.protocols.http import serve_http, serve_websocket
from gateway.protocols.socket import Message, Receive, Send

if TYPE_CHECKING:
    from gateway.plane import Plane


async def serve(plane: Plane, scope: Message, receive: Receive, send: Send) -> None:
    """Serve one request or socket."""
    if scope["type"] == "http":
        await serve_http(plane, scope, receive, send)
    elif scope["type"] == "websocket":
        await serve_websocket(plane, scope, receive, send)
