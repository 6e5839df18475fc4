"""Limit: admit a call as its caller's limits allow, charge its body as it is read, and release what it held."""

from __future__ import annotations

from collections.abc import Awaitable

from gateway.call import Call
from gateway.connections.in_flight import recheck
from gateway.limiter import Limiter
from gateway.limits.bandwidth import is_charged_whole, pieces
from gateway.limits.budget import Counters
from gateway.snapshot.picture import Snapshot


def limit(limiter: Limiter, call: Call) -> Awaitable[None]:
    """Admit the call, or raise Refused. A dry run (``/v1/me?would=``) is not charged."""
    return limiter.admit(call)


def release(limiter: Limiter, call: Call) -> None:
    """Return what the call held while it was open. Never waits, never raises."""
    places = limiter.released(call)
    if call.ticket is not None:
        call.ticket.end(places)


class BodyLimit:
    """Charges the body of one request to ``bytes_in``: whole if its length is known and fits, or else part by part."""

    __slots__ = ("_call", "_held", "_held_for", "_limiter", "_prepaid", "_prepaid_from", "_snapshot")

    def __init__(self, limiter: Limiter, snapshot: Snapshot, call: Call) -> None:
        self._limiter = limiter
        self._snapshot = snapshot
        self._call = call
        self._prepaid = 0
        """Bytes that are charged and not received yet."""
        self._prepaid_from: Counters = ()
        """The counters that were charged: the caller's limits may have changed since."""
        self._held = 0
        """Bytes of the body that are held in memory."""
        self._held_for = ""

    async def begin(self, length: int) -> None:
        """Charge a body of this length ahead, if all of it fits its limits. Raises Refused."""
        budget = self._call.budget
        if not length or budget is None or not is_charged_whole(budget.bytes_in):
            return
        if not self._limiter.charge_now(self._call, bytes_in=length):
            await self._limiter.charge(self._call, bytes_in=length)
        # While it waited, the call may have been bound to other limits.
        self._prepaid, self._prepaid_from = length, (self._call.budget or budget).bytes_in

    async def received(self, part: bytes) -> None:
        """Charge a part of the body, waiting as limits delay it. Raises Refused."""
        if self._prepaid:
            self._prepaid -= len(part)
            return
        budget, limiter = self._call.budget, self._limiter
        if budget is None or not budget.bytes_in or limiter.charge_now(self._call, bytes_in=len(part)):
            return
        for piece in pieces(part, budget.bytes_in):
            await limiter.charge(self._call, bytes_in=len(piece))

    def hold(self, part: bytes) -> None:
        """Count a part of a body that is held in memory. Raises Refused beyond what a consumer, or all, may hold."""
        if not self._held_for:
            principal = self._call.principal
            self._held_for = (principal.consumer if principal is not None else "") or self._call.ip
        self._limiter.held_bodies.hold(self._held_for, len(part))
        self._held += len(part)

    def release(self) -> None:
        """Count the body as held no longer."""
        if self._held:
            self._limiter.held_bodies.release(self._held_for, self._held)
            self._held = 0

    def completed(self) -> None:
        """Check the caller again once the body has arrived. Raises Refused if it lost its right to the call."""
        recheck(self._snapshot, self._call)

    def settle(self) -> None:
        """Return what was charged ahead and not received, and what is held."""
        self.release()
        if self._prepaid:
            self._limiter.put_back(self._prepaid_from, self._prepaid)
            self._prepaid = 0
