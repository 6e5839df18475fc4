"""Policies in ``mode: shadow``: what they would have done is done to a copy, and told."""

from __future__ import annotations

import logging
import time
from copy import copy
from typing import TYPE_CHECKING, Any

from gateway.call import Call
from gateway.policies.policy import Answered, Policy
from gateway.refusals import Refused
from gateway.wire.header_fields import Headers

if TYPE_CHECKING:
    from gateway.plane import Plane

logger = logging.getLogger(__name__)

LOG_EVERY_S = 60.0
TOLD_MAX = 1000
_told: dict[tuple[str, str, str], tuple[float, int]] = {}
"""When each finding was last told, and how often it came since, by route, policy and reason."""


class Trial:
    """A caller's side that gives what there is to read, and takes nothing."""

    def __init__(self, peer: Any) -> None:
        self._peer = peer
        self.failure: BaseException | None = None
        """Why the body could not be read: that is no finding of the policy."""
        self.is_changed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._peer, name)

    async def read_all(self) -> bytes:
        """Read the body whole; it stays there for others."""
        try:
            body: bytes = await self._peer.read_all()
        except BaseException as failure:
            self.failure = failure
            raise
        return body

    def replace_body(self, body: bytes) -> None:
        """Leave the body as it is."""
        self.is_changed = True


async def try_inbound(plane: Plane, call: Call, policy: Policy, *, waits: bool) -> None:
    """Say what the policy would have done to the call. Raises what reading the body raises, and nothing else."""
    trial = copy(call)
    peer = trial.peer = Trial(call.peer)
    try:
        policy.inbound(trial)
        answered = await policy.admit(plane, trial) if waits else None
    except Refused as refused:
        if refused is peer.failure:
            raise
        would(plane, call, policy, refused.cause)
        return
    if answered is not None:
        would(plane, call, policy, "answered")
    elif peer.is_changed or trial.headers != call.headers or trial.added_headers != call.added_headers:
        _tell(call, policy, "changed the request")


def try_outbound(plane: Plane, call: Call, policy: Policy, status: int, headers: Headers) -> None:
    """Say what the policy would have done to the head of the answer."""
    try:
        if policy.outbound(call, status, headers) != headers:
            _tell(call, policy, "changed the answer")
    except Refused as refused:
        would(plane, call, policy, refused.cause)


async def try_answer(plane: Plane, call: Call, policy: Policy, answered: Answered) -> None:
    """Say what the policy would have done to the answer."""
    trial = copy(answered)
    try:
        await policy.answer(plane, call, trial)
    except Refused as refused:
        would(plane, call, policy, refused.cause)
        return
    if trial != answered:
        _tell(call, policy, "changed the answer")


def would(plane: Plane, call: Call, policy: Policy, reason: str) -> None:
    """Count that the policy would have refused, or answered by itself; the log tells it once a minute at most."""
    plane.shadows.policy_shadowed(
        call.principal.consumer if call.principal is not None else "", call.target, policy.type, reason
    )
    _tell(call, policy, f"said {reason}")
    which = (call.target, policy.type, reason)
    at, times = _told.get(which, (float("-inf"), 0))
    now = time.monotonic()
    if now - at < LOG_EVERY_S:
        _told[which] = (at, times + 1)
        return
    if len(_told) >= TOLD_MAX:
        _told.clear()
    _told[which] = (now, 0)
    since = f" ({times} times more since it was last told)" if times else ""
    logger.info("shadow: on route %s, %s would have said %s%s", *which, since)


def would_change(call: Call, policy: Policy) -> None:
    """Say that the policy would have changed a message."""
    _tell(call, policy, "changed a message")


def _tell(call: Call, policy: Policy, what: str) -> None:
    logger.debug("shadow: on route %s, %s would have %s", call.target, policy.type, what)
