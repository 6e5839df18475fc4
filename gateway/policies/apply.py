"""Applies the policies of a route to its calls, in the order that the route names."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from gateway.call import Call
from gateway.policies.answers import PolicedExchange
from gateway.policies.made import Made, made_of
from gateway.policies.messages import Gate
from gateway.policies.policy import Answered
from gateway.policies.shadow import try_inbound, try_outbound
from gateway.protocol import Protocol
from gateway.snapshot.principal import Principal
from gateway.wire.header_fields import Headers

if TYPE_CHECKING:
    from gateway.plane import Plane

OF_PARTS = frozenset({b"accept-encoding", b"range", b"if-range"})
"""Headers that ask for less than all of an answer as it is."""


def inbound(plane: Plane, call: Call) -> Awaitable[Answered | None] | None:
    """Apply the route's policies to a call that was let in. Raises Refused.

    Gives None where all is done. Where a policy has to wait, gives what to await: it may come to an answer of its own.
    """
    if call.route is None:
        return None
    made = made_of(call.route)
    if made.waits:
        return _admit(plane, call, made)
    for policy, _ in made.inward:
        policy.inbound(call)
    return None


async def _admit(plane: Plane, call: Call, made: Made) -> Answered | None:
    for policy, waits in made.inward:
        if policy.is_shadow:
            await try_inbound(plane, call, policy, waits=waits)
            continue
        policy.inbound(call)
        if waits and (answered := await policy.admit(plane, call)) is not None:
            return answered
    if made.is_wrapped:
        if made.reads_answers:
            call.headers = [header for header in call.headers if header[0] not in OF_PARTS]
            call.headers.append((b"accept-encoding", b"identity"))
        call.peer = PolicedExchange(plane, call, call.peer)
    elif call.protocol is Protocol.WEBSOCKET:
        Gate(plane, call).attach()
    return None


def renewed(call: Call, principal: Principal) -> None:
    """Look at a newer credential that a connection has shown as at the one it came with. Raises Refused."""
    for policy in made_of(call.route).callers if call.route is not None else ():
        policy.caller(principal)


def outbound(plane: Plane, call: Call, status: int, headers: Headers) -> Headers:
    """Give the headers of the answer as the route's policies want them."""
    if call.route is None:
        return headers
    made = made_of(call.route)
    for policy in made.outward:
        headers = policy.outbound(call, status, headers)
    for policy in made.tried_outward:
        try_outbound(plane, call, policy, status, headers)
    return headers


def preflight(call: Call) -> Headers:
    """Give the headers that answer a CORS preflight: none where the route names no ``cors``."""
    cors = made_of(call.route).cors if call.route is not None else None
    return cors.preflight(call) if cors is not None else []
