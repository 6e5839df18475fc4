"""Issues connect tickets: single-use, short-lived stand-ins for a key, for browsers' sockets and event streams."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson

from gateway.call import Call, Reply
from gateway.credentials.api_keys import new_ticket, ticket_store_key
from gateway.identity.tickets import stored
from gateway.refusals import Reason, Refused

if TYPE_CHECKING:
    from gateway.plane import Plane


async def issue(plane: Plane, call: Call) -> Reply:
    """Answer 201 with a ticket that proves once what the caller's key or token does, within ``ticket_s`` seconds."""
    ticket = new_ticket()
    try:
        async with asyncio.timeout(plane.config.engine_timeout_s):
            await plane.redis.set(ticket_store_key(ticket), stored(call.caller), ex=plane.config.ticket_s)
    except (OSError, TimeoutError, plane.redis_errors) as error:
        raise Refused(Reason.OVERLOADED, "Tickets cannot be issued right now.", retry_after_s=1) from error
    body = orjson.dumps({"ticket": ticket, "expires_in_s": plane.config.ticket_s})
    await call.peer.start(
        201, [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), *plane.limiter.headers(call)]
    )
    await call.peer.send(body, more=False)
    return Reply(status=201, bytes_out=len(body))
