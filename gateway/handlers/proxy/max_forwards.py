"""``Max-Forwards`` of ``OPTIONS``: how many proxies may pass a request on (RFC 9110 7.6.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.call import Call, Reply
from gateway.handlers.responses import send_empty
from gateway.snapshot.methods import ANY, allow_of

if TYPE_CHECKING:
    from gateway.plane import Plane

NAME = b"max-forwards"
METHOD = "OPTIONS"
_DIGITS_MAX = 9
_OF_ANY = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""What is named for a route of any method."""


def ends_here(call: Call) -> bool:
    """Return whether the gateway is the last recipient of a request, which must not pass on."""
    return call.method == METHOD and any(_count(value) == 0 for name, value in call.headers if name == NAME)


def decremented(value: bytes) -> bytes:
    """Return the value that passes on in place of one that is more than 0; what is no number passes as it is."""
    count = _count(value)
    return value if count is None else b"%d" % (count - 1)


async def answer(plane: Plane, call: Call) -> Reply:
    """Answer in place of the upstream, with the methods that the route takes."""
    assert call.route is not None, "upstreams are reached by routes"
    methods = set(call.route.methods) - {ANY} or _OF_ANY
    headers = [(b"allow", allow_of(methods).encode()), (b"content-length", b"0")]
    return await send_empty(plane.limiter, call, 200, headers=headers)


def _count(value: bytes) -> int | None:
    return int(value) if value.isdigit() and len(value) <= _DIGITS_MAX else None
