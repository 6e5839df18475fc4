"""The policies that a route may name: one file a policy, applied in the order that the route names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.call import Call, Headers
from gateway.policies import api_key, cors, ip_restriction, rate_limit, remove_headers, request_size_limit, set_headers
from gateway.policies.policy import Policy
from gateway.refusals import Refused
from gateway.snapshot import Route

KNOWN: Mapping[str, Callable[[Mapping[str, Any]], Policy]] = {
    "api-key": api_key.ApiKey,
    "rate-limit": rate_limit.RateLimit,
    "cors": cors.Cors,
    "ip-restriction": ip_restriction.IpRestriction,
    "request-size-limit": request_size_limit.RequestSizeLimit,
    "set-headers": set_headers.SetHeaders,
    "remove-headers": remove_headers.RemoveHeaders,
}
"""Each is made of its options. Raises ValueError, with what to mend, for options that do not fit."""

_made: dict[int, tuple[Route, list[tuple[Policy, bool]]]] = {}
_MADE_MAX = 10_000


def inbound(call: Call) -> None:
    """Apply the route's policies to a call that was let in. Raises Refused; a policy in shadow mode never does."""
    for policy, is_enforced in of(call.route):
        try:
            policy.inbound(call)
        except Refused:
            if is_enforced:
                raise


def outbound(call: Call, status: int, headers: Headers) -> Headers:
    """Give the headers of the answer as the route's policies want them."""
    for policy, _ in of(call.route):
        headers = policy.outbound(call, status, headers)
    return headers


def preflight(call: Call) -> Headers:
    """Give the headers that answer a CORS preflight: none where the route names no ``cors``."""
    return next((policy.preflight(call) for policy, _ in of(call.route) if isinstance(policy, cors.Cors)), [])


def of(route: Route | None) -> list[tuple[Policy, bool]]:
    """Give a route's policies with whether each is enforced; made once for as long as the route stands."""
    if route is None or not route.policies:
        return []
    known = _made.get(id(route))
    if known is not None and known[0] is route:
        return known[1]
    if len(_made) >= _MADE_MAX:
        _made.clear()
    made = [(KNOWN[policy.type](policy.options), policy.mode == "enforce") for policy in route.policies]
    _made[id(route)] = (route, made)
    return made
