"""Runs the policies of a route on single messages and events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.call import Call
from gateway.policies.route_policies import RoutePoliciesCache
from gateway.policies.shadow import ShadowRunner

if TYPE_CHECKING:
    from gateway.policies.policy import Policy

Message = str | bytes


class MessagePolicies:
    """Applies the policies that a call's route names now, in their order."""

    def __init__(self, routes: RoutePoliciesCache, shadows: ShadowRunner) -> None:
        self._routes = routes
        self._shadows = shadows

    async def inward(self, call: Call, message: Message) -> Message | None:
        """Return a message of the caller as it is to be passed on; None where a policy drops it. Raises Refused."""
        if call.route is None:
            return message
        return await self._passed(call, self._routes.of(call.route).messages_in, "message_in", message)

    async def outward(self, call: Call, message: Message) -> Message | None:
        """Return a message to the caller as it is to be passed on; None where a policy drops it. Raises Refused."""
        if call.route is None:
            return message
        return await self._passed(call, self._routes.of(call.route).messages_out, "message_out", message)

    async def _passed(self, call: Call, policies: list[Policy], method: str, message: Message) -> Message | None:
        for policy in policies:
            if policy.is_shadow:
                await self._shadows.message(call, policy, method, message)
                continue
            passed: Message | None = await getattr(policy, method)(call, message)
            if passed is None:
                return None
            message = passed
        return message
