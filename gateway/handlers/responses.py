"""Sends responses: a whole body with its length, or none, each with the caller's rate limit fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from gateway.call import Call, Reply
from gateway.limiter import Limiter
from gateway.refusals import NO_PAGE, NOSNIFF

JSON = b"application/json"
NO_STORE = b"no-store"

Header = tuple[bytes, bytes]


async def send_json(
    limiter: Limiter,
    call: Call,
    status: int,
    value: Any,
    *,
    headers: Iterable[Header] = (),
    cache_control: bytes = NO_STORE,
    bytes_in: int = 0,
) -> Reply:
    """Send a value as JSON. ``bytes_in`` is the length of the request's body, for the usage record."""
    body = orjson.dumps(value)
    reply = await send_body(limiter, call, status, body, headers=headers, cache_control=cache_control)
    reply.bytes_in = bytes_in
    return reply


async def send_body(
    limiter: Limiter,
    call: Call,
    status: int,
    body: bytes,
    *,
    content_type: bytes = JSON,
    headers: Iterable[Header] = (),
    cache_control: bytes = NO_STORE,
) -> Reply:
    """Send a body that is at hand in whole; ``HEAD`` gets its headers alone."""
    fields: list[Header] = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", cache_control),
        NOSNIFF,
        NO_PAGE,
        *headers,
        *limiter.headers(call),
    ]
    await call.peer.start(status, fields)
    await call.peer.send(b"" if call.method == "HEAD" else body, more=False)
    return Reply(status=status, bytes_out=len(body))


async def send_empty(
    limiter: Limiter, call: Call, status: int, *, headers: Iterable[Header] = (), cache_control: bytes = NO_STORE
) -> Reply:
    """Send a status that has no body, as 204 and 304."""
    await call.peer.start(status, [(b"cache-control", cache_control), NOSNIFF, *headers, *limiter.headers(call)])
    await call.peer.send(b"", more=False)
    return Reply(status=status)
