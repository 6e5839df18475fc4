"""In-flight requests: each is ended where its caller loses the right to the response.

Open connections are ended by :mod:`.open`. A request has no row in the ledger and holds no slot, but its response may
take long, as that of a language model.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING
from typing import Protocol as Interface

from gateway.identity.places import require_place
from gateway.identity.rights import lacking
from gateway.refusals import Reason, Refused

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.snapshot.picture import Snapshot
    from gateway.snapshot.principal import Principal


class Carried(Interface):
    """A request that the carrier of plain calls serves, without a task (see :mod:`gateway.server.carrier`)."""

    @property
    def expires_at(self) -> float | None:
        """When its caller's credential expires."""

    def hand_over(self) -> None:
        """Let a task serve it from now on, which begins a :class:`Request` here."""


class Request:
    """One request, served by the task that created this object.

    Ending it cancels what the task waits for: the upstream, a limit, or a caller that does not read. ``with`` marks the
    code that can answer with a refusal: the innermost one raises it instead of the cancellation.
    """

    __slots__ = ("_ended", "_task", "call")

    def __init__(self, call: Call) -> None:
        self.call = call
        self._task = asyncio.current_task()
        self._ended: Refused | None = None

    def end(self, refused: Refused) -> None:
        """End it with this refusal, without waiting. Only the first refusal counts."""
        if self._ended is None and self._task is not None and self.call.connection is None:
            self._ended = refused
            self._task.cancel()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise Refused where the request was ended."""
        if self._ended is None or self._task is None or not isinstance(failure, asyncio.CancelledError):
            return
        if self._task.uncancel() == 0:
            raise self._ended


class InFlightRequests:
    """All in-flight requests of this process."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._requests: set[Request] = set()
        self.carried: set[Carried] = set()
        """The requests that have no task."""

    def __len__(self) -> int:
        return len(self._requests) + len(self.carried)

    def begin(self, call: Call) -> Request:
        """Track a request until :meth:`ended`. Raises Refused where its principal has lost a right it needs."""
        recheck(self._snapshot, call)
        request = call.request = Request(call)
        self._requests.add(request)
        return request

    def ended(self, request: Request) -> None:
        """Stop tracking a request."""
        self._requests.discard(request)
        # The two refer to each other: breaking the cycle frees them without the garbage collector.
        request.call.request = None

    def refresh(self) -> None:
        """Bind each request to its principal as of now, or end it where that has lost a right it needs."""
        for carried in [*self.carried]:
            carried.hand_over()
        for request in [*self._requests]:
            try:
                recheck(self._snapshot, request.call)
            except Refused as refused:
                request.end(refused.bare())

    def expire(self, now: float) -> None:
        """End the requests whose credential has expired."""
        for carried in [*self.carried]:
            if carried.expires_at is not None and carried.expires_at <= now:
                carried.hand_over()
        for request in [*self._requests]:
            expires_at = request.call.caller.expires_at
            if expires_at is not None and expires_at <= now:
                request.end(Refused(Reason.TOKEN_EXPIRED))


def recheck(snapshot: Snapshot, call: Call) -> None:
    """Bind a call to its principal as of now. Raises Refused where that has lost a right the call needs."""
    if call.is_anonymous:
        return
    principal = snapshot.current_principal(call.caller)
    if principal is None:
        raise Refused(Reason.KEY_REVOKED)
    if principal is not call.principal:
        call.principal = principal
        judge(snapshot, call, principal)


def judge(snapshot: Snapshot, call: Call, principal: Principal) -> None:
    """Raise Refused where the principal would not be admitted to this call again."""
    key = snapshot.key(principal.key) if principal.token is None else None
    if key is not None:
        require_place(key, call.ip, call.origin)
    if lacking(principal, call.rights, call.headers) is not None:
        raise lost_right()


def lost_right() -> Refused:
    """Return the refusal for a right that was withdrawn during its use."""
    return Refused(Reason.FORBIDDEN, "The key or its tier has lost a right that this needs.")
