"""Bounds the bodies of requests to Django, which would write any amount of them to disk before it looks who asks."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.protocols.socket import Message, Receive, Send
from gateway.refusals import Reason, Refused

BODY_MAX_BYTES = 2 * 1024 * 1024


class _TooLarge(Exception):
    """More came than a request may hold."""


async def serve_bounded(application: Any, scope: Message, receive: Receive, send: Send) -> None:
    """Serve a request by an application, which is not asked where the body is announced or turns out too large."""
    left = BODY_MAX_BYTES

    async def counted() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise _TooLarge
        return message

    try:
        if _announced(scope) > BODY_MAX_BYTES:
            raise _TooLarge
        await application(scope, counted, send)
    except _TooLarge:
        await _refuse(send)


def _announced(scope: Message) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


async def _refuse(send: Send) -> None:
    refused = Refused(Reason.TOO_LARGE, f"The body may hold at most {BODY_MAX_BYTES} bytes.")
    headers = [*refused.http_headers(), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": orjson.dumps(refused.problem())})
