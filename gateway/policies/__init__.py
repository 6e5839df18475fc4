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

_MADE_MAX = 10_000


class Made:
    """The policies of one route, each where it has something to do."""

    __slots__ = ("all", "inward", "outward", "route")

    def __init__(self, route: Route) -> None:
        self.route = route
        self.all = [(KNOWN[policy.type](policy.options), policy.mode == "enforce") for policy in route.policies]
        self.inward = [made for made in self.all if type(made[0]).inbound is not Policy.inbound]
        self.outward = [policy for policy, _ in self.all if type(policy).outbound is not Policy.outbound]


_made: dict[int, Made] = {}


def inbound(call: Call) -> None:
    """Apply the route's policies to a call that was let in. Raises Refused; a policy in shadow mode never does."""
    for policy, is_enforced in _of(call.route).inward if call.route else ():
        try:
            policy.inbound(call)
        except Refused:
            if is_enforced:
                raise


def outbound(call: Call, status: int, headers: Headers) -> Headers:
    """Give the headers of the answer as the route's policies want them."""
    for policy in _of(call.route).outward if call.route else ():
        headers = policy.outbound(call, status, headers)
    return headers


def preflight(call: Call) -> Headers:
    """Give the headers that answer a CORS preflight: none where the route names no ``cors``."""
    made = _of(call.route).all if call.route else []
    return next((policy.preflight(call) for policy, _ in made if isinstance(policy, cors.Cors)), [])


def _of(route: Route) -> Made:
    """Give a route's policies, made once for as long as the route stands."""
    known = _made.get(id(route))
    if known is None or known.route is not route:
        if len(_made) >= _MADE_MAX:
            _made.clear()
        known = _made[id(route)] = Made(route)
    return known
