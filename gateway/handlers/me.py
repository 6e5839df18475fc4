"""Tells a caller who it is here: consumer, tier, rights, limits and what is left of each."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import orjson

from gateway.call import Call, Reply
from gateway.handlers.would import say
from gateway.refusals import Reason, Refused

if TYPE_CHECKING:
    from gateway.plane import Plane


async def show(plane: Plane, call: Call) -> Reply:
    """Answer ``GET /v1/me``. What is left is as the store has it, or as this process does where that is away."""
    who = call.caller
    asked = _asked(call)
    await plane.limiter.look(who, call)
    would = await say(plane, call, asked["would"], asked.get("n", "")) if "would" in asked else {}
    body = orjson.dumps(
        {
            "consumer": who.consumer,
            "key": who.key,
            "tier": who.tier,
            "scopes": list(who.scopes),
            "metadata": dict(who.metadata),
            "limits": plane.limiter.left(who, call),
            **would,
        }
    )
    await call.peer.start(
        200, [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), *plane.limiter.headers(call)]
    )
    await call.peer.send(body, more=False)
    return Reply(status=200, bytes_out=len(body))


def _asked(call: Call) -> dict[str, str]:
    """Read the query: ``would`` and ``n``, each once. Raises Refused ``invalid-request``."""
    try:
        pairs = parse_qsl(call.query.decode("ascii"), keep_blank_values=True, max_num_fields=10, errors="strict")
    except ValueError:
        raise Refused(Reason.INVALID_REQUEST, "The query string cannot be read.") from None
    asked = dict(pairs)
    unknown = asked.keys() - {"would", "n"}
    if unknown or len(asked) != len(pairs) or ("n" in asked and "would" not in asked):
        raise Refused(Reason.INVALID_REQUEST, "What can be asked is `would=VERB:NAME`, and `n` beside it, each once.")
    return asked
