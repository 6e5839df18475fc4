"""Open sockets of this process: registered, counted, closed on revocation, expiry or an operator's word, drained."""

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
"""How late an expiry may be noticed that was not known of when the sweep last looked."""
TELL_HELD_S = 1.0
"""Whose limit stays met is told so often at most."""


class Connection:
    """One open socket of one consumer, and what has flowed over it. Counting is adding to integers."""

    __slots__ = (
        "_close", "bytes_in", "bytes_out", "call", "closing", "expires_at", "id", "keeps_rights", "messages_in",
        "messages_out", "opened_at", "readings", "refusals", "refused_reasons", "tallied", "throttled", "told",
        "told_held_at", "told_readings",
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
        self.told_held_at = -math.inf
        self.refusals: dict[str, int] = {}
        """How many messages were refused inside the connection since the last tally, by cause."""
        self.refused_reasons: dict[Reason, int] = {}
        """The same, by reason."""
        self.tallied = (0, 0, 0, 0, 0)
        """What usage has already reported of messages in, out, bytes in, out and throttles."""
        self.told = self.tallied
        """What the ledger was last told of the same."""
        self.readings: Callable[[], list[dict[str, Any]]] = list
        """Says how far its subscriptions are (:mod:`gateway.channels.subscriber_lag`)."""
        self.told_readings: list[dict[str, Any]] = []
        """What the ledger was last told of the same."""
        self.closing: Refused | None = None
        self.keeps_rights: Callable[[], bool] = _true
        """Says whether all that it is used for is still allowed. Asked when its principal has changed."""
        self.expires_at: float | None = None
        """When its credential expires, in Unix seconds."""
        self._close = close

    def received(self, bytes_: int, messages: int = 1) -> None:
        """Count what came in."""
        self.messages_in += messages
        self.bytes_in += bytes_

    def sent(self, bytes_: int, messages: int = 1) -> None:
        """Count what went out."""
        self.messages_out += messages
        self.bytes_out += bytes_

    def refused(self, refused: Refused) -> None:
        """Count a message that was refused while the connection stays open."""
        self.refusals[refused.cause] = self.refusals.get(refused.cause, 0) + 1
        self.refused_reasons[refused.reason] = self.refused_reasons.get(refused.reason, 0) + 1
        if refused.reason in (Reason.RATE_LIMITED, Reason.QUOTA_EXCEEDED):
            self.throttled += 1

    def may_tell_held(self, now: float) -> bool:
        """Say whether the caller is to be told that a limit holds back what comes to it: not with each message."""
        if now - self.told_held_at < TELL_HELD_S:
            return False
        self.told_held_at = now
        return True

    def close(self, refused: Refused) -> None:
        """End it with this refusal; the first one counts."""
        if self.closing is None:
            self.closing = refused
            self._close(refused)


class Connections:
    """All open connections of this process."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._open: dict[str, Connection] = {}
        self._expiring: dict[str, Connection] = {}
        """Those whose credential expires."""
        self._next_expiry = math.inf
        """Nothing expires before this instant."""
        self._task: asyncio.Task[None] | None = None
        self.in_flight = InFlightRequests(snapshot)
        """Requests that are no connections, and end for the same reasons."""
        self.opened: list[Connection] = []
        """Opened since usage last took them away."""
        snapshot.on_change(self._refresh)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._open.values()))

    def __len__(self) -> int:
        return len(self._open)

    def start(self) -> None:
        """Begin to look for credentials that have expired."""
        self._task = asyncio.create_task(self._sweep(), name="connections sweep")

    async def stop(self) -> None:
        """Stop looking; connections are left as they are."""
        await stop_tasks(self._task)

    def open(self, call: Call, close: Callable[[Refused], None]) -> Connection:
        """Register an accepted connection; ``close`` must return at once and end it with the refusal it is given."""
        connection = Connection(call, close)
        call.connection = connection
        self._open[connection.id] = connection
        self.opened.append(connection)
        self.rebind(connection, call.caller)
        # The key may have been revoked between its proof and this line.
        self._check(connection)
        return connection

    def closed(self, closed: OpenConnection) -> Connection | None:
        """Remove a connection that has ended, and return its account; None if it was removed before."""
        self._expiring.pop(closed.id, None)
        return self._open.pop(closed.id, None)

    def rebind(self, bound: OpenConnection, principal: Principal) -> None:
        """Bind an open connection to this principal from now on: to its rights, its limits and its expiry."""
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
        """Give an open connection of this process."""
        return self._open.get(connection_id)

    async def drain(self, within_s: float) -> None:
        """Ask every connection to leave, spread over the time, and wait until they have or it is over.

        Few connections leave at once: spreading is for herds.
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
        """Give the connection its principal as it now stands, or close it where it has lost its right to be."""
        call = connection.call
        if call.is_anonymous:
            return
        principal = self._snapshot.principal_again(call.caller)
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
        self._next_expiry = min((of.expires_at or math.inf for of in self._expiring.values()), default=math.inf)


def _true() -> bool:
    return True
