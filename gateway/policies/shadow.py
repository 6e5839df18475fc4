"""Policies in ``mode: shadow``: they run on a copy of the call, and what they would have done is reported."""

from __future__ import annotations

import logging
from copy import copy
from typing import TYPE_CHECKING, Any

from gateway.call import Call
from gateway.concurrency.log_throttle import LogThrottle
from gateway.policies.policy import OutgoingAnswer, Policy
from gateway.refusals import Refused
from gateway.wire.header_fields import Headers

if TYPE_CHECKING:
    from gateway.limits.tallies import LimitUsage

logger = logging.getLogger(__name__)


class TrialPeer:
    """A caller's side that can be read, and that ignores every change."""

    def __init__(self, peer: Any) -> None:
        self._peer = peer
        self.failure: BaseException | None = None
        """Why the body could not be read, which is not the policy's doing."""
        self.is_changed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._peer, name)

    async def read_all(self) -> bytes:
        """Return the whole body; others can read it again."""
        try:
            body: bytes = await self._peer.read_all()
        except BaseException as failure:
            self.failure = failure
            raise
        return body

    def replace_body(self, body: bytes) -> None:
        """Note that the body would have been replaced."""
        self.is_changed = True


class ShadowRunner:
    """Runs policies in shadow mode; counts and logs what they would have done."""

    def __init__(self, tallies: LimitUsage) -> None:
        self._tallies = tallies
        self._throttle = LogThrottle()

    async def inbound(self, call: Call, policy: Policy, *, has_admit: bool) -> None:
        """Run the inbound methods on a copy of the call. Raises only what reading the body raises."""
        trial = copy(call)
        peer = trial.peer = TrialPeer(call.peer)
        try:
            policy.inbound(trial)
            answer = await policy.admit(trial) if has_admit else None
        except Refused as refused:
            if refused is peer.failure:
                raise
            self._refused(call, policy, refused.cause)
            return
        if answer is not None:
            self._refused(call, policy, "answered")
        elif peer.is_changed or trial.headers != call.headers or trial.added_headers != call.added_headers:
            _changed(call, policy, "the request")

    def outbound(self, call: Call, policy: Policy, status: int, headers: Headers) -> None:
        """Run :meth:`Policy.outbound`, and drop its result."""
        try:
            if policy.outbound(call, status, headers) != headers:
                _changed(call, policy, "the answer")
        except Refused as refused:
            self._refused(call, policy, refused.cause)

    async def answer(self, call: Call, policy: Policy, answer: OutgoingAnswer) -> None:
        """Run :meth:`Policy.answer` on a copy of the answer."""
        trial = copy(answer)
        try:
            await policy.answer(call, trial)
        except Refused as refused:
            self._refused(call, policy, refused.cause)
            return
        if trial != answer:
            _changed(call, policy, "the answer")

    async def message(self, call: Call, policy: Policy, method: str, message: str | bytes) -> None:
        """Run ``message_in`` or ``message_out``, and drop its result."""
        try:
            passed = await getattr(policy, method)(call, message)
        except Refused as refused:
            self._refused(call, policy, refused.cause)
            return
        if passed is None:
            self._refused(call, policy, "dropped")
        elif passed != message:
            _changed(call, policy, "a message")

    def _refused(self, call: Call, policy: Policy, reason: str) -> None:
        """Count that the policy would have refused, or answered; log it at most once a minute."""
        consumer = call.principal.consumer if call.principal is not None else ""
        self._tallies.policy_shadowed(consumer, call.target, policy.type, reason)
        logger.debug("shadow: on route %s, %s would have refused: %s", call.target, policy.type, reason)
        suffix = self._throttle.suffix((call.target, policy.type, reason))
        if suffix is not None:
            text = "shadow: on route %s, %s would have refused: %s%s"
            logger.info(text, call.target, policy.type, reason, suffix)


def _changed(call: Call, policy: Policy, what: str) -> None:
    logger.debug("shadow: on route %s, %s would have changed %s", call.target, policy.type, what)
