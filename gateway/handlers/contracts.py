"""Serves the AsyncAPI and OpenAPI documents of what a key may use, with entity tags for conditional requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.call import Call, Reply
from gateway.handlers.requests import query_lists, require_no_query
from gateway.handlers.responses import Header, send_body, send_empty
from gateway.refusals import Reason, Refused

if TYPE_CHECKING:
    from gateway.plane import Plane

CHANNELS_MAX = 50
CACHE_CONTROL = b"private, no-cache"


async def asyncapi(plane: Plane, call: Call) -> Reply:
    """Serve ``GET /v1/asyncapi.json``; with ``?channel=ADDRESS`` (repeatable) for these channels only."""
    channels = query_lists(call, {"channel"}, repeatable={"channel"})["channel"]
    if len(channels) > CHANNELS_MAX:
        raise Refused(Reason.INVALID_REQUEST, f"Name at most {CHANNELS_MAX} channels.")
    return await _serve(plane, call, "asyncapi", frozenset(channels))


async def openapi(plane: Plane, call: Call) -> Reply:
    """Serve ``GET /v1/openapi.json``."""
    require_no_query(call)
    return await _serve(plane, call, "openapi", frozenset())


async def _serve(plane: Plane, call: Call, format_: str, channels: frozenset[str]) -> Reply:
    document = await plane.document_cache.document(format_, call.caller, channels)
    headers: list[Header] = [(b"etag", document.etag.encode()), (b"vary", b"Authorization, X-API-Key")]
    if _matches(call.header(b"if-none-match") or "", document.etag):
        return await send_empty(plane.limiter, call, 304, headers=headers, cache_control=CACHE_CONTROL)
    return await send_body(plane.limiter, call, 200, document.body, headers=headers, cache_control=CACHE_CONTROL)


def _matches(if_none_match: str, etag: str) -> bool:
    """Compare entity tags weakly (RFC 9110 13.1.2)."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags
