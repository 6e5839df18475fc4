"""``POST /v1/tickets``: issues connect tickets, for the WebSockets and event streams of browsers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from gateway.call import Call, Reply

if TYPE_CHECKING:
    from gateway.plane import Plane


async def issue(plane: Plane, call: Call) -> Reply:
    """Answer 201 with a ticket that proves, once and within ``ticket_s`` seconds, what the caller's credential does."""
    ticket = await plane.tickets.issue(call.caller)
    body = orjson.dumps({"ticket": ticket, "expires_in_s": plane.config.ticket_s})
    await call.peer.start(
        201, [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), *plane.limiter.headers(call)]
    )
    await call.peer.send(body, more=False)
    return Reply(status=201, bytes_out=len(body))
