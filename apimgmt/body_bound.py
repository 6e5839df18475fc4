"""Bounds the bodies of requests to Django, which would spool them to disk before it authenticates the caller."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.limits.held_bodies import HeldBodies
from gateway.protocols.socket import Message, Receive, Send
from gateway.refusals import Reason, Refused

BODY_MAX_BYTES = 2 * 1024 * 1024
held_bodies = HeldBodies(consumer_max_bytes=16 * 1024 * 1024, process_max_bytes=64 * 1024 * 1024)
"""The bodies that this process holds for Django, by the address of the client."""


class _TooLarge(Exception):
    """The body exceeds the limit."""


async def serve_bounded(application: Any, scope: Message, receive: Receive, send: Send) -> None:
    """Serve a request by an application; answer 413 if its body is declared, or turns out, to be too large.

    Where the bodies of this client, or of all, hold too much memory, answer 429 or 503.
    """
    client = (scope.get("client") or ("0.0.0.0", 0))[0]
    held = 0

    async def counted() -> Message:
        nonlocal held
        message = await receive()
        size = len(message.get("body", b""))
        if held + size > BODY_MAX_BYTES:
            raise _TooLarge
        if size:
            held_bodies.hold(client, size)
            held += size
        return message

    try:
        if _declared_length(scope) > BODY_MAX_BYTES:
            raise _TooLarge
        await application(scope, counted, send)
    except _TooLarge:
        await refuse(send, Refused(Reason.TOO_LARGE, f"The body may have at most {BODY_MAX_BYTES} bytes."))
    except Refused as refused:
        await refuse(send, refused)
    finally:
        if held:
            held_bodies.release(client, held)


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
