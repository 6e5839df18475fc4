"""Heads of carried calls that pass by the functions of the path, as their lines cannot be judged one by one.

A policy or the upstream's credential changes them, the request has an ``Origin``, or the response names the upstream.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.call import Call
from gateway.handlers.proxy.forwarding import forwarding_of, own_names
from gateway.handlers.proxy.heads import request_head, response_headers
from gateway.handlers.proxy.lines import field_of
from gateway.server.exchange import joined_lines

if TYPE_CHECKING:
    from gateway.plane import Plane
    from gateway.server.destinations import Destination
    from gateway.server.plans import Plan


def call_of(plan: Plan, destination: Destination, lines: Iterable[bytes]) -> Call:
    """Return the call of one request with these lines, before its route's policies see it."""
    return replace(
        plan.call,
        address=destination.address,
        raw_path=destination.raw_path,
        query=destination.query,
        has_empty_query=destination.has_empty_query,
        parameters=destination.parameters,
        headers=[field_of(line) for line in lines],
    )


def changed_request(plane: Plane, call: Call) -> bytes:
    """Apply the policies to the call, and return its head for the upstream. Raises Refused."""
    assert call.route is not None, "it is for an upstream"
    plane.policies.inbound(call)
    return request_head(call, forwarding_of(call.route), plane.config, plane.upstreams.via)


def changed_response(plane: Plane, call: Call, status: int, lines: Iterable[bytes]) -> bytes:
    """Return the lines to pass back for these of the upstream's. Raises ValueError if one has a line break inside."""
    headers = response_headers(
        status,
        [field_of(line) for line in lines],
        limits=plane.limiter.headers(call),
        via=plane.upstreams.via,
        own_names=lambda: own_names(call, plane.config),
    )
    changed = plane.policies.outbound(call, status, headers)
    return joined_lines([b"%b: %b\r\n" % header for header in changed])
