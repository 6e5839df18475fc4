"""Tells a caller who it is here: consumer, tier, rights, limits and what is left of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from gateway.call import Call, Reply

if TYPE_CHECKING:
    from gateway.plane import Plane


async def show(plane: Plane, call: Call) -> Reply:
    """Answer ``GET /v1/me``. What is left is as the store has it, or as this process does where that is away."""
    who = call.who
    await plane.limiter.look(who)
    body = orjson.dumps(
        {
            "consumer": who.consumer,
            "key": who.key,
            "tier": who.tier,
            "scopes": list(who.scopes),
            "metadata": dict(who.metadata),
            "limits": plane.limiter.left(who),
        }
    )
    await call.peer.start(
        200, [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), *plane.limiter.headers(call)]
    )
    await call.peer.send(body, more=False)
    return Reply(status=200, bytes_out=len(body))
