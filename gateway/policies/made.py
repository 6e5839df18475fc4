"""The policies of a route, made of its options once for as long as the route stands."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from gateway.policies.api_key import ApiKey
from gateway.policies.cors import Cors
from gateway.policies.custom import custom
from gateway.policies.ip_restriction import IpRestriction
from gateway.policies.jwt import Jwt
from gateway.policies.policy import Broken, Policy
from gateway.policies.rate_limit import rate_limit
from gateway.policies.remove_headers import remove_headers
from gateway.policies.request_size_limit import RequestSizeLimit
from gateway.policies.set_headers import set_headers
from gateway.policies.tee import Tee
from gateway.policies.transform import Transform
from gateway.policies.validate import Validate
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Policy as Named
from gateway.snapshot.picture import Route

logger = logging.getLogger(__name__)

KNOWN: Mapping[str, Callable[[Mapping[str, Any]], Policy]] = {
    "api-key": ApiKey,
    "jwt": Jwt,
    "rate-limit": rate_limit,
    "cors": Cors,
    "ip-restriction": IpRestriction,
    "request-size-limit": RequestSizeLimit,
    "validate": Validate,
    "set-headers": set_headers,
    "remove-headers": remove_headers,
    "transform": Transform,
    "custom": custom,
    "tee": Tee,
}
"""Each is made of its options. Raises ValueError, with what to mend, for options that do not fit."""

_MADE_MAX = 10_000


class Made:
    """The policies of one route, each where it has something to do: what a call has to pass is decided here."""

    __slots__ = (
        "answering", "callers", "cors", "inward", "is_wrapped", "messages_in", "messages_out", "outward",
        "reads_answers", "route", "tried_outward", "waits",
    )  # fmt: skip

    def __init__(self, route: Route) -> None:
        self.route = route
        all_ = [_made(named, route) for named in route.policies]
        self.inward = [(policy, policy.has("admit")) for policy in all_ if policy.has("inbound") or policy.has("admit")]
        self.callers = [policy for policy in all_ if isinstance(policy, Jwt) and not policy.is_shadow]
        """Those that look at who calls, and again when a connection shows a newer credential."""
        self.outward = [policy for policy in all_ if policy.has("outbound") and not policy.is_shadow]
        self.tried_outward = [policy for policy in all_ if policy.has("outbound") and policy.is_shadow]
        self.answering = [policy for policy in all_ if policy.has("answer")]
        self.messages_in = [policy for policy in all_ if policy.has("message_in")]
        self.messages_out = [policy for policy in all_ if policy.has("message_out")]
        self.cors = next((policy for policy in all_ if isinstance(policy, Cors) and not policy.is_shadow), None)
        self.reads_answers = any(policy.reads_answers and not policy.is_shadow for policy in all_)
        is_socket = route.protocol == Protocol.WEBSOCKET
        self.is_wrapped = not is_socket and bool(self.answering or self.messages_out or route.protocol == Protocol.SSE)
        """Answers go through the policies before they go out. A stream of events may get some while it is open."""
        self.waits = (
            self.is_wrapped
            or (is_socket and bool(self.messages_in or self.messages_out))
            or any(waits or policy.is_shadow for policy, waits in self.inward)
        )
        """Calls have to wait for something, or are tried on a copy; otherwise policies cost no task and no await."""


_kept: dict[int, Made] = {}


def made_of(route: Route) -> Made:
    """Give a route's policies."""
    known = _kept.get(id(route))
    if known is None or known.route is not route:
        if len(_kept) >= _MADE_MAX:
            _kept.clear()
        known = _kept[id(route)] = Made(route)
    return known


def _made(named: Named, route: Route) -> Policy:
    """Make one policy. Its options were checked when they were saved, but a function may be gone since."""
    try:
        policy = KNOWN[named.type](named.options)
    except Exception as error:
        logger.error("route %s: its policy %s cannot be used, so calls are refused: %r", route.name, named.type, error)
        policy = Broken(Refused(Reason.INTERNAL, cause="policy-unusable"))
    policy.type = named.type
    policy.is_shadow = named.mode == "shadow"
    return policy
