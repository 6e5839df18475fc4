"""Serves what a key may use as documents for other programs, kept as long as nothing that they say has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from gateway.call import Call, Reply
from gateway.refusals import Reason, Refused
from gateway.wire.header_fields import Headers

if TYPE_CHECKING:
    from gateway.plane import Plane

CHANNELS_MAX = 50


async def asyncapi(plane: Plane, call: Call) -> Reply:
    """Serve ``GET /v1/asyncapi.json``; of some channels alone with ``?channel=ADDRESS``."""
    return await _serve(plane, call, "asyncapi", _channels(call))


async def openapi(plane: Plane, call: Call) -> Reply:
    """Serve ``GET /v1/openapi.json``."""
    if call.query:
        raise Refused(Reason.INVALID_REQUEST, "This address takes no query parameters.")
    return await _serve(plane, call, "openapi", frozenset())


async def _serve(plane: Plane, call: Call, which: str, channels: frozenset[str]) -> Reply:
    written = await plane.shelf.document(which, call.caller, channels)
    headers: Headers = [
        (b"etag", written.etag.encode()),
        (b"cache-control", b"private, no-cache"),
        (b"vary", b"Authorization, X-API-Key"),
        *plane.limiter.headers(call),
    ]
    if _is_known(call.header(b"if-none-match") or "", written.etag):
        await call.peer.start(304, headers)
        await call.peer.send(b"", more=False)
        return Reply(status=304)
    length = str(len(written.body)).encode()
    await call.peer.start(200, [(b"content-type", b"application/json"), (b"content-length", length), *headers])
    await call.peer.send(written.body, more=False)
    return Reply(status=200, bytes_out=len(written.body))


def _is_known(if_none_match: str, etag: str) -> bool:
    """Compare entity tags weakly, as RFC 9110 13.1.2 asks for."""
    known = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in known or etag in known


def _channels(call: Call) -> frozenset[str]:
    try:
        pairs = parse_qsl(call.query.decode("ascii"), keep_blank_values=True, max_num_fields=100, errors="strict")
    except ValueError:
        raise Refused(Reason.INVALID_REQUEST, "The query string cannot be read.") from None
    for name, _ in pairs:
        if name != "channel":
            raise Refused(Reason.INVALID_REQUEST, f"Unknown query parameter {name[:40]!r}.")
    if len(pairs) > CHANNELS_MAX:
        raise Refused(Reason.INVALID_REQUEST, f"Name at most {CHANNELS_MAX} channels.")
    return frozenset(address for _, address in pairs)
