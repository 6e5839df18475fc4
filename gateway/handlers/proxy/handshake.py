"""The handshake of a proxied WebSocket: opened at the upstream before the ``101``, or refused as it refuses."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from gateway.call import Call, Reply
from gateway.handlers.proxy.forwarding import Forwarding, own_names
from gateway.handlers.proxy.heads import interim_headers, response_headers
from gateway.peer import ClientGone
from gateway.refusals import ErrorClass, Reason, Refused
from gateway.upstream.connection import UpstreamBroken, timed_out
from gateway.upstream.handshake import Handshake
from gateway.upstream.websocket import UpstreamSocket
from gateway.wire.header_fields import Headers

if TYPE_CHECKING:
    from gateway.plane import Plane

OF_THE_HANDSHAKE = b"sec-websocket-"
REFUSAL_MAX_BYTES = 256 * 1024
REFUSAL_TIMEOUT_S = 3.0
"""Bounds of the body of a refusal. What exceeds them is cut off: the status and the headers say why."""


async def connect(
    plane: Plane, call: Call, forwarding: Forwarding, headers: Headers, upstream: UpstreamSocket
) -> Handshake:
    """Send the handshake, and return it answered. Raises Refused ``upstream-unavailable`` and ``upstream-timeout``."""
    config, timeouts, origin = plane.config, forwarding.route.timeouts, forwarding.target.origin
    first_byte_s = timeouts.first_byte_s or config.upstream_first_byte_timeout_s
    handshake = Handshake(origin, forwarding.target.path_for(call).encode("latin-1"), headers, upstream)
    await plane.upstreams.open(handshake, timeouts.connect_s)
    try:
        async with asyncio.timeout(first_byte_s):
            await handshake.upgraded()
    except TimeoutError:
        handshake.close()
        raise timed_out(first_byte_s) from None
    except UpstreamBroken as error:
        handshake.close()
        raise Refused(Reason.UPSTREAM_UNAVAILABLE, cause="upstream-lost") from error
    except BaseException:
        handshake.close()
        raise
    return handshake


def accepting_headers(plane: Plane, call: Call, handshake: Handshake) -> Headers:
    """Return the headers of the ``101``: the upstream's, without those that were negotiated with the gateway."""
    headers = interim_headers(handshake.headers, own_names(call, plane.config))
    passed = [header for header in headers if not header[0].startswith(OF_THE_HANDSHAKE)]
    passed = plane.policies.unchanged(call, 101, passed)
    return [*passed, (b"via", plane.upstreams.via), *plane.limiter.headers(call)]


async def pass_refusal(plane: Plane, call: Call, handshake: Handshake) -> Reply:
    """Answer the caller's handshake as the upstream has answered. Raises Refused and ClientGone."""
    try:
        body = await _body_of(handshake)
    finally:
        handshake.close()
    status = handshake.status
    await plane.limiter.charge(call, bytes_out=len(body))
    limits = plane.limiter.headers(call)
    headers = response_headers(
        status,
        handshake.headers,
        limits=limits,
        via=plane.upstreams.via,
        own_names=lambda: own_names(call, plane.config),
    )
    headers = [header for header in headers if header[0] != b"content-length"]
    if status == 426:
        headers.append((b"connection", b"upgrade, close"))
    headers = plane.policies.outbound(call, status, headers)
    await call.peer.answer(status, [*headers, (b"content-length", b"%d" % len(body))], body)
    error_class = ErrorClass.HANDSHAKE_UPSTREAM.value if status >= 500 else ""
    return Reply(status=status, bytes_out=len(body), closed_by="upstream", error_class=error_class)


async def _body_of(handshake: Handshake) -> bytes:
    """Return the body as far as it arrives within the bounds, and before the upstream disconnects."""
    body = bytearray()
    with contextlib.suppress(TimeoutError, UpstreamBroken, ClientGone):
        async with asyncio.timeout(REFUSAL_TIMEOUT_S):
            while len(body) < REFUSAL_MAX_BYTES and (part := await handshake.read()):
                body += part
    return bytes(body[:REFUSAL_MAX_BYTES])
