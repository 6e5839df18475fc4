"""Requests that an upstream answers: each is ended where its caller may not have the answer any more.

What is open as a connection is ended as such (see :mod:`.open`). A request is none: it has no row in the
ledger and holds no slot. But its answer may be long, as what a model writes is.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING

from gateway.identity.places import require_place
from gateway.identity.rights import lacking
from gateway.refusals import Reason, Refused

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.snapshot.picture import Snapshot
    from gateway.snapshot.principal import Principal


class Request:
    """One request, served by the task that made this.

    Ending it cancels what its task waits for: the upstream, a limit, a caller that does not read. ``with`` stands where
    a refusal can be said, and raises it in place of the cancellation; the innermost does.
    """

    __slots__ = ("_ended", "_task", "call")

    def __init__(self, call: Call) -> None:
        self.call = call
        self._task = asyncio.current_task()
        self._ended: Refused | None = None

    def end(self, refused: Refused) -> None:
        """End it with this refusal; the first one counts. Returns at once."""
        if self._ended is None and self._task is not None and self.call.connection is None:
            self._ended = refused
            self._task.cancel()

    def __enter__(self) -> None:
        """Change nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise the refusal with which it was ended. Raises Refused."""
        if self._ended is None or self._task is None or not isinstance(failure, asyncio.CancelledError):
            return
        if self._task.uncancel() == 0:
            raise self._ended


class InFlightRequests:
    """All such requests of this process."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._requests: set[Request] = set()

    def __len__(self) -> int:
        return len(self._requests)

    def begin(self, call: Call) -> Request:
        """Look after a request from now on, until it has ``ended``. Raises Refused where it may not be any more."""
        recheck(self._snapshot, call)
        request = call.request = Request(call)
        self._requests.add(request)
        return request

    def ended(self, request: Request) -> None:
        """Let go of a request that was served, or was not."""
        self._requests.discard(request)
        # They know each other: together they would stay until the collector of cycles stops all traffic.
        request.call.request = None

    def refresh(self) -> None:
        """Give each its principal as it now stands, or end it where that has lost its right to be served."""
        for request in [*self._requests]:
            try:
                recheck(self._snapshot, request.call)
            except Refused as refused:
                request.end(refused.bare())

    def expire(self, now: float) -> None:
        """End those whose credential has expired."""
        for request in [*self._requests]:
            expires_at = request.call.caller.expires_at
            if expires_at is not None and expires_at <= now:
                request.end(Refused(Reason.TOKEN_EXPIRED))


def recheck(snapshot: Snapshot, call: Call) -> None:
    """Give a call its principal as it now stands. Raises Refused where that may not be served any more."""
    if call.is_anonymous:
        return
    principal = snapshot.principal_again(call.caller)
    if principal is None:
        raise Refused(Reason.KEY_REVOKED)
    if principal is not call.principal:
        call.principal = principal
        judge(snapshot, call, principal)


def judge(snapshot: Snapshot, call: Call, principal: Principal) -> None:
    """Raise Refused where a call that is under way would not be let in again by its principal as it now stands."""
    key = snapshot.key(principal.key) if principal.token is None else None
    if key is not None:
        require_place(key, call.ip, call.origin)
    if lacking(principal, call.rights, call.headers) is not None:
        raise lost_right()


def lost_right() -> Refused:
    """Say that a right was taken away while it was used."""
    return Refused(Reason.FORBIDDEN, "The key or its tier has lost a right that this needs.")
