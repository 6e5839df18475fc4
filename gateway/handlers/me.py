"""``GET /v1/me``: the caller's consumer, tier, rights and limits, and on request a dry run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.call import Call, Reply
from gateway.handlers.dry_run import dry_run
from gateway.handlers.requests import query_values
from gateway.handlers.responses import send_json
from gateway.refusals import Reason, Refused

if TYPE_CHECKING:
    from gateway.plane import Plane


async def show(plane: Plane, call: Call) -> Reply:
    """Serve ``GET /v1/me``. What is left of a limit is as the store counts it, or this process without the store."""
    caller = call.caller
    query = query_values(call, {"would", "n"})
    if "n" in query and "would" not in query:
        raise Refused(Reason.INVALID_REQUEST, "The query parameter `n` needs `would=VERB:NAME` beside it.")
    await plane.limiter.look(caller, call)
    outcome = await dry_run(plane, call, query["would"], query.get("n", "")) if "would" in query else {}
    description = {
        "consumer": caller.consumer,
        "key": caller.key,
        "tier": caller.tier,
        "scopes": list(caller.scopes),
        "metadata": dict(caller.metadata),
        "limits": plane.limiter.left(caller, call),
    }
    return await send_json(plane.limiter, call, 200, description | outcome)
