"""The policies of a route, built from its options once and kept for its calls."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.concurrency.room import make_room
from gateway.policies.cors import Cors, OwnCors
from gateway.policies.jwt import Jwt
from gateway.policies.known import KNOWN
from gateway.policies.policy import Dependencies, Policy, UnusablePolicy
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.endpoints import BUILTIN

if TYPE_CHECKING:
    from gateway.snapshot.picture import Policy as PolicyDocument
    from gateway.snapshot.picture import Route

logger = logging.getLogger(__name__)

ROUTES_MAX = 10_000


class RoutePolicies:
    """The policies of one route, sorted by where each has something to do."""

    __slots__ = (
        "answering", "callers", "cors", "inward", "is_of_caller", "is_wrapped", "messages_in", "messages_out",
        "outward", "reads_answers", "reads_heads_alone", "route", "shadow_outward", "waits",
    )  # fmt: skip

    def __init__(self, route: Route, dependencies: Dependencies) -> None:
        self.route = route
        policies = [_build(document, route, dependencies) for document in route.policies]
        enforced = [policy for policy in policies if not policy.is_shadow]
        self.inward = [(each, each.has("admit")) for each in policies if each.has("inbound") or each.has("admit")]
        self.callers = [policy for policy in enforced if isinstance(policy, Jwt)]
        """Those that check the caller, and check again when a connection presents a newer credential."""
        self.outward = [policy for policy in enforced if policy.has("outbound")]
        self.shadow_outward = [policy for policy in policies if policy.has("outbound") and policy.is_shadow]
        self.answering = [policy for policy in policies if policy.has("answer")]
        self.messages_in = [policy for policy in policies if policy.has("message_in")]
        self.messages_out = [policy for policy in policies if policy.has("message_out")]
        self.cors: Cors | OwnCors | None = next((policy for policy in enforced if isinstance(policy, Cors)), None)
        if self.cors is None and route.handler.get("type") == BUILTIN:
            # An endpoint with policies stays as readable as it is without them.
            self.cors = OwnCors()
            self.outward.append(self.cors)
        self.reads_answers = any(policy.reads_answers for policy in enforced)
        is_socket = route.protocol == Protocol.WEBSOCKET
        self.is_wrapped = not is_socket and bool(self.answering or self.messages_out or route.protocol == Protocol.SSE)
        """Answers pass the policies before they are sent. Event streams do in any case: policies may come later."""
        self.waits = (
            self.is_wrapped
            or (is_socket and bool(self.messages_in or self.messages_out))
            or any(has_admit or policy.is_shadow for policy, has_admit in self.inward)
        )
        """Something has to be awaited, or runs on a copy. Otherwise policies cost a call no task and no await."""
        self.is_of_caller = all(policy.is_of_caller for policy, _ in self.inward)
        """What they decide about a request depends on the caller and its address alone, and they do not change it."""
        self.reads_heads_alone = not (self.waits or self.shadow_outward)
        """What they decide and change depends on heads alone, and nothing has to be awaited or reported."""


class RoutePoliciesCache:
    """Builds the policies of each route object once, and keeps those of at most ``ROUTES_MAX`` routes."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies
        self._cached: dict[int, RoutePolicies] = {}
        """By the id of the route, which an entry keeps alive: a route is compared by value only at great cost."""

    def of(self, route: Route) -> RoutePolicies:
        """Return the policies of a route."""
        cached = self._cached.get(id(route))
        if cached is None:
            make_room(self._cached, ROUTES_MAX)
            cached = self._cached[id(route)] = RoutePolicies(route, self._dependencies)
        return cached


def _build(document: PolicyDocument, route: Route, dependencies: Dependencies) -> Policy:
    """Build one policy. Its options were checked when they were saved, but a hook may have been removed since."""
    policy: Policy
    try:
        policy = KNOWN[document.type](document.options)(dependencies)
    except Exception as error:
        logger.error("route %s: all calls are refused, as its policy %s failed: %r", route.name, document.type, error)
        policy = UnusablePolicy(Refused(Reason.INTERNAL, cause="policy-unusable"))
    policy.type = document.type
    policy.is_shadow = document.mode == "shadow"
    return policy
