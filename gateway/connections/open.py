"""Open connections of this process: registered, counted, closed on revocation, expiry or request, and drained."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from gateway.concurrency.stopping import stop_tasks
from gateway.connections.in_flight import InFlightRequests, judge, lost_right
from gateway.refusals import Reason, Refused

if TYPE_CHECKING:
    from gateway.call import Call, OpenConnection
    from gateway.snapshot.picture import Snapshot
    from gateway.snapshot.principal import Principal

logger = logging.getLogger(__name__)

SWEEP_S = 0.25
"""The longest time between two sweeps: how late the expiry of an in-flight request may be noticed."""
NOTIFY_DELAY_S = 1.0
"""The shortest time between two notices to a caller that a limit delays what is sent to it."""


class Connection:
    """One open connection of one consumer, and the account of what has flowed over it."""

    __slots__ = (
        "_close",
        "bytes_in",
        "bytes_out",
        "call",
        "closing",
        "delay_notified_at",
        "expires_at",
        "id",
        "keeps_rights",
        "messages_in",
        "messages_out",
        "opened_at",
        "readings",
        "refusals",
        "refused_reasons",
        "reported",
        "reported_readings",
        "tallied",
        "throttled",
    )  # fmt: skip

    def __init__(self, call: Call, close: Callable[[Refused], None]) -> None:
        self.id = secrets.token_hex(8)
        self.call = call
        self.opened_at = time.time()
        self.messages_in = 0
        self.messages_out = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.throttled = 0
        self.delay_notified_at = -math.inf
        self.refusals: dict[str, int] = {}
        """Messages refused on the open connection since the last tally, by cause."""
        self.refused_reasons: dict[Reason, int] = {}
        """The same, by reason."""
        self.tallied = (0, 0, 0, 0, 0)
        """The part of messages in and out, bytes in and out, and throttles that is tallied already."""
        self.reported = self.tallied
        """The part of it that the ledger has."""
        self.readings: Callable[[], list[dict[str, Any]]] = list
        """Returns the lag of its filters (:mod:`gateway.channels.subscriber_lag`)."""
        self.reported_readings: list[dict[str, Any]] = []
        """The lags that the ledger has."""
        self.closing: Refused | None = None
        self.keeps_rights: Callable[[], bool] = _true
        """Returns whether all its uses are still allowed. Called when its principal has changed."""
        self.expires_at: float | None = None
        """When its credential expires, in Unix seconds."""
        self._close = close

    def received(self, bytes_: int, messages: int = 1) -> None:
        self.messages_in += messages
        self.bytes_in += bytes_

    def sent(self, bytes_: int, messages: int = 1) -> None:
        self.messages_out += messages
        self.bytes_out += bytes_

    def refused(self, refused: Refused) -> None:
        """Count a message that was refused while the connection stays open."""
        self.refusals[refused.cause] = self.refusals.get(refused.cause, 0) + 1
        self.refused_reasons[refused.reason] = self.refused_reasons.get(refused.reason, 0) + 1
        if refused.reason in (Reason.RATE_LIMITED, Reason.QUOTA_EXCEEDED):
            self.throttled += 1

    def may_notify_delay(self, now: float) -> bool:
        """Return whether to notify the caller of a delay by a limit: at most once in ``NOTIFY_DELAY_S``."""
        if now - self.delay_notified_at < NOTIFY_DELAY_S:
            return False
        self.delay_notified_at = now
        return True

    def close(self, refused: Refused) -> None:
        """Close it with this refusal, without waiting. Only the first refusal counts."""
        if self.closing is None:
            self.closing = refused
            self._close(refused)

    def release(self) -> None:
        """Forget what serves the connection, which refers to this account.

        As a cycle both would stay until a collection, which stops all traffic.
        """
        self._close, self.readings, self.keeps_rights = _ignore, list, _true
        self.call.connection = None


class Connections:
    """All open connections of this process."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._open: dict[str, Connection] = {}
        self._expiring: dict[str, Connection] = {}
        """Connections whose credential expires."""
        self._next_expiry = math.inf
        """Nothing expires before this instant."""
        self._task: asyncio.Task[None] | None = None
        self.in_flight = InFlightRequests(snapshot)
        """Requests, which are ended for the same reasons."""
        self.opened: list[Connection] = []
        """Opened since usage last took the list."""
        snapshot.on_change(self._refresh)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._open.values()))

    def __len__(self) -> int:
        return len(self._open)

    def start(self) -> None:
        """Start to look for expired credentials."""
        self._task = asyncio.create_task(self._sweep(), name="connections sweep")

    async def stop(self) -> None:
        """Stop looking for expired credentials. Connections stay open."""
        await stop_tasks(self._task)

    def open(self, call: Call, close: Callable[[Refused], None]) -> Connection:
        """Register an accepted connection. ``close`` must end it with the given refusal, and return at once."""
        connection = Connection(call, close)
        call.connection = connection
        self._open[connection.id] = connection
        self.opened.append(connection)
        self.rebind(connection, call.caller)
        # The key may have been revoked since it was verified, and the ticket taken over.
        self._check(connection)
        if call.ticket is not None:
            call.ticket.bind(connection.close)
        return connection

    def closed(self, closed: OpenConnection) -> Connection | None:
        """Remove a closed connection and return it with its account; None if it was removed before."""
        self._expiring.pop(closed.id, None)
        connection = self._open.pop(closed.id, None)
        if connection is not None:
            connection.release()
        return connection

    def rebind(self, bound: OpenConnection, principal: Principal) -> None:
        """Bind an open connection to a principal: to its rights, limits and expiry."""
        connection = self._open.get(bound.id)
        if connection is None:
            return
        connection.call.principal = principal
        connection.expires_at = expires_at = principal.expires_at
        if expires_at is None:
            self._expiring.pop(connection.id, None)
        else:
            self._expiring[connection.id] = connection
            self._next_expiry = min(self._next_expiry, expires_at)

    def find(self, connection_id: str) -> Connection | None:
        """Return an open connection of this process by its id."""
        return self._open.get(connection_id)

    async def drain(self, within_s: float) -> None:
        """Close every connection, spread over up to half of ``within_s``, and wait until all are closed or it is over.

        Spreading keeps many clients from reconnecting at once; few connections are closed at once.
        """
        leaving = list(self._open.values())
        spread_s = min(within_s / 2, len(leaving) / 200)
        for number, connection in enumerate(leaving):
            connection.close(Refused(Reason.DRAINING, retry_after_s=round(spread_s * number / len(leaving), 1)))
            if spread_s and number % 50 == 49:
                await asyncio.sleep(spread_s * 50 / len(leaving))
        ends_at = time.monotonic() + within_s - spread_s
        while self._open and time.monotonic() < ends_at:
            await asyncio.sleep(0.05)

    def _refresh(self, kinds: frozenset[str]) -> None:
        if kinds & {"key", "consumer", "tier", "issuer"}:
            for connection in list(self._open.values()):
                self._check(connection)
            self.in_flight.refresh()

    def _check(self, connection: Connection) -> None:
        """Bind the connection to its principal as of now, or close it where that has lost a right it needs."""
        call = connection.call
        if call.is_anonymous:
            return
        principal = self._snapshot.current_principal(call.caller)
        if principal is None:
            connection.close(Refused(Reason.KEY_REVOKED))
            return
        if principal is call.principal:
            return
        self.rebind(connection, principal)
        try:
            judge(self._snapshot, call, principal)
            if not connection.keeps_rights():
                raise lost_right()
        except Refused as refused:
            connection.close(refused)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(SWEEP_S, max(0.0, self._next_expiry - time.time())))
            now = time.time()
            if self._next_expiry <= now:
                self._close_expired(now)
            self.in_flight.expire(now)

    def _close_expired(self, now: float) -> None:
        for connection in list(self._expiring.values()):
            if connection.expires_at is not None and connection.expires_at <= now:
                del self._expiring[connection.id]
                connection.close(Refused(Reason.TOKEN_EXPIRED))
        self._next_expiry = min((each.expires_at or math.inf for each in self._expiring.values()), default=math.inf)


def _true() -> bool:
    return True


def _ignore(refused: Refused) -> None:
    """Close nothing: it is closed already."""
