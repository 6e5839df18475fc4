"""Bounds the bodies of requests to Django, which would spool them to disk before it authenticates the caller."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.protocols.socket import Message, Receive, Send
from gateway.refusals import Reason, Refused

BODY_MAX_BYTES = 2 * 1024 * 1024


class _TooLarge(Exception):
    """The body exceeds the limit."""


async def serve_bounded(application: Any, scope: Message, receive: Receive, send: Send) -> None:
    """Serve a request by an application; answer 413 if its body is declared, or turns out, to be too large."""
    remaining = BODY_MAX_BYTES

    async def counted() -> Message:
        nonlocal remaining
        message = await receive()
        remaining -= len(message.get("body", b""))
        if remaining < 0:
            raise _TooLarge
        return message

    try:
        if _declared_length(scope) > BODY_MAX_BYTES:
            raise _TooLarge
        await application(scope, counted, send)
    except _TooLarge:
        await refuse(send, Refused(Reason.TOO_LARGE, f"The body may have at most {BODY_MAX_BYTES} bytes."))


def _declared_length(scope: Message) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


async def refuse(send: Send, refused: Refused) -> None:
    """Answer a request with problem details, and close its connection."""
    headers = [*refused.http_headers(), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": orjson.dumps(refused.problem())})
