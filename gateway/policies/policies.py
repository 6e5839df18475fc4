"""Applies the policies of routes to calls, in the order that each route names them."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING

from gateway.call import Call
from gateway.policies.ip_restriction import IpRestriction
from gateway.policies.jwt import Jwt
from gateway.policies.live import RouteUpdates
from gateway.policies.messages import Message, MessagePolicies
from gateway.policies.policed_events import PolicedEvents
from gateway.policies.policed_exchange import PolicedExchange
from gateway.policies.policy import Dependencies, OutgoingAnswer, UnusablePolicy
from gateway.policies.route_policies import RoutePolicies, RoutePoliciesCache
from gateway.policies.shadow import ShadowRunner
from gateway.policies.socket_gate import SocketGate
from gateway.protocol import Protocol
from gateway.refusals import Refused
from gateway.wire.header_fields import Headers

if TYPE_CHECKING:
    from gateway.connections.open import Connection
    from gateway.snapshot.picture import Route
    from gateway.snapshot.principal import Principal

PARTIAL_ANSWER_HEADERS = frozenset({b"accept-encoding", b"range", b"if-range"})
"""Request headers that ask for a part of the answer, or for an encoded one."""


class Policies:
    """The policies of all routes, as one process applies them."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._config = dependencies.config
        self._snapshot = dependencies.snapshot
        self._limiter = dependencies.limiter
        self._routes = RoutePoliciesCache(dependencies)
        self._shadows = ShadowRunner(dependencies.tallies)
        self._messages = MessagePolicies(self._routes, self._shadows)

    def of(self, route: Route) -> RoutePolicies:
        """Return the policies of a route."""
        return self._routes.of(route)

    def inbound(self, call: Call) -> Awaitable[OutgoingAnswer | None] | None:
        """Apply the route's policies to a call before it is handled. Raises Refused.

        Returns None where nothing is left to do. Where a policy has to wait, returns what to await, which returns the
        answer where a policy answers the call.
        """
        if call.route is None:
            return None
        policies = self._routes.of(call.route)
        if call.is_anonymous:
            _admit_preflight(call, policies)
            return None
        if policies.waits:
            return self._admit(call, policies)
        for policy, _ in policies.inward:
            policy.inbound(call)
        return None

    async def _admit(self, call: Call, policies: RoutePolicies) -> OutgoingAnswer | None:
        for policy, has_admit in policies.inward:
            if policy.is_shadow:
                await self._shadows.inbound(call, policy, has_admit=has_admit)
                continue
            policy.inbound(call)
            if has_admit and (answer := await policy.admit(call)) is not None:
                return answer
        if policies.is_wrapped:
            if policies.reads_answers:
                call.headers = [header for header in call.headers if header[0] not in PARTIAL_ANSWER_HEADERS]
                call.headers.append((b"accept-encoding", b"identity"))
            call.peer = self._policed(call)
        elif call.protocol is Protocol.WEBSOCKET:
            self._attach_gate(call, policies)
        return None

    def outbound(self, call: Call, status: int, headers: Headers) -> Headers:
        """Return the headers of the answer, or refusal, after the route's policies."""
        if call.route is None:
            return headers
        policies = self._routes.of(call.route)
        for policy in policies.outward:
            headers = policy.outbound(call, status, headers)
        for policy in policies.shadow_outward:
            self._shadows.outbound(call, policy, status, headers)
        return headers

    def answers_preflights(self, route: Route) -> bool:
        """Return whether the route has ``cors``."""
        return self._routes.of(route).cors is not None

    def unchanged(self, call: Call, status: int, headers: Headers) -> Headers:
        """Return the headers that no policy of the route removes or replaces, and none that one adds."""
        if call.route is None:
            return headers
        kept = headers
        for policy in self._routes.of(call.route).outward:
            kept = policy.outbound(call, status, kept)
        return [header for header in headers if header in kept]

    def preflight(self, call: Call) -> Headers:
        """Return the headers that answer a CORS preflight; none where the route has no ``cors``."""
        cors = self._routes.of(call.route).cors if call.route is not None else None
        return cors.preflight(call) if cors is not None else []

    def renewed(self, call: Call, principal: Principal) -> None:
        """Check a newer credential that a connection presents as the first one was checked. Raises Refused."""
        for policy in self._routes.of(call.route).callers if call.route is not None else ():
            policy.check(principal)

    async def message_in(self, call: Call, message: Message) -> Message | None:
        """Return a message of the caller after the route's policies; None where one drops it. Raises Refused."""
        return await self._messages.inward(call, message)

    def follow(self, connections: Iterable[Connection]) -> None:
        """Keep open connections under the policies that their routes name, as the snapshot changes.

        From the next message on the new policies apply. Of what was decided when a connection was opened, the caller's
        IP address and credential are checked again: one that ``ip-restriction`` or ``jwt`` would refuse now is closed.
        """
        updates = RouteUpdates(self._snapshot, connections, self._policies_changed)
        self._snapshot.on_change(updates.snapshot_changed)

    def _policies_changed(self, connection: Connection) -> None:
        call = connection.call
        if call.route is None:
            return
        policies = self._routes.of(call.route)
        try:
            for policy, _ in policies.inward:
                if isinstance(policy, IpRestriction | Jwt) and not policy.is_shadow:
                    policy.inbound(call)
        except Refused as refused:
            connection.close(refused)
            return
        if call.protocol is Protocol.WEBSOCKET:
            self._attach_gate(call, policies)
        elif call.protocol is Protocol.SSE and not isinstance(call.peer, PolicedExchange):
            call.peer = policed = self._policed(call)
            policed.join()

    def _attach_gate(self, call: Call, policies: RoutePolicies) -> None:
        SocketGate(call, self._messages, self._limiter, self._config).attach(policies)

    def _policed(self, call: Call) -> PolicedExchange:
        return PolicedExchange(
            call,
            call.peer,
            routes=self._routes,
            shadows=self._shadows,
            new_events=self._policed_events,
            body_max_bytes=self._config.body_max_bytes,
        )

    def _policed_events(self, call: Call) -> PolicedEvents:
        return PolicedEvents(
            call,
            messages=self._messages,
            routes=self._routes,
            snapshot=self._snapshot,
            event_max_bytes=self._config.proxied_message_max_bytes,
        )


def _admit_preflight(call: Call, policies: RoutePolicies) -> None:
    """Apply to a preflight, which has no caller, what does not depend on one. Raises Refused.

    Other policies would charge or refuse it for want of a credential, or lend it that of the operator.
    """
    for policy, _ in policies.inward:
        if isinstance(policy, IpRestriction | UnusablePolicy) and not policy.is_shadow:
            policy.inbound(call)
