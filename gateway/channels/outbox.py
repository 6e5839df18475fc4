"""The queue of one connection's outgoing frames: bounded, charged to the limits as it drains, taken in batches.

Live events pass by the queue while nothing waits in it, the peer reads and the limits allow them; see
:meth:`Outbox.put_lot`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gateway.concurrency.ending import Ending
from gateway.log.lot import Form, Lot
from gateway.refusals import Reason, Refused

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.config import Config
    from gateway.limiter import Limiter
    from gateway.peer import Ready

T = TypeVar("T")

_CONTROL = -1
NOTHING: deque[Any] = deque(maxlen=0)
SEND_TIMEOUT_S = 10.0
"""How long sending one batch may take; a reader that takes longer is too slow."""
_PAUSE_MAX_S = 0.5
"""How often a delayed connection checks its limits again: they may have been raised."""


class Outbox(Generic[T]):
    """One connection's queue. Events are counted and charged; control frames are neither.

    Once the connection is ending, no more events are sent. It ends as ``too-slow`` if too much waits.
    """

    __slots__ = (
        "_bytes", "_call", "_drained", "_ending", "_events", "_is_over", "_is_throttled", "_items", "_limiter", "_lot",
        "_lot_events", "_max_bytes", "_max_events", "_next_expiry", "_notice", "_taken_at", "_waiter",
    )  # fmt: skip

    def __init__(
        self,
        limiter: Limiter,
        config: Config,
        call: Call,
        *,
        ending: Ending[Any],
        notice: Callable[[Refused], T],
    ) -> None:
        self._limiter = limiter
        self._call = call
        self._max_bytes = config.send_buffer_max_bytes
        self._max_events = config.send_buffer_max_events
        self._ending = ending
        self._notice = notice
        self._items: deque[tuple[T, int, float]] = NOTHING
        """What is queued; of its own only then: a deque takes as much memory as the rest of an idle connection's."""
        self._bytes = 0
        self._events = 0
        self._next_expiry = math.inf
        """No queued event expires before, in Unix seconds."""
        self._lot: tuple[int, int] = (0, 0)
        self._lot_events = 0
        self._taken_at = time.monotonic()
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._is_throttled = False
        self._is_over = False

    def put_lot(self, peer: Ready, lot: Lot, form: Form) -> bool:
        """Write a lot of live events to the peer at once, past the queue, and charge all of them together.

        Returns False, and does nothing, if they have to be queued one by one: something else is still being sent, the
        peer does not read, or the limits do not allow all of them now.
        """
        if self._items or self._lot[0] or self._is_throttled or self._ending.future.done() or not peer.can_write_now:
            return False
        call = self._call
        if not self._limiter.charge_now(call, messages_out=lot.count, bytes_out=lot.size):
            return False
        peer.write_now(lot.joined(form))
        if call.connection is not None:
            call.connection.sent(lot.size, lot.count)
        return True

    def put(self, item: T) -> None:
        """Queue a control frame."""
        self._add(item, _CONTROL, math.inf)

    def put_event(self, item: T, bytes_: int, expires_at: float | None = None) -> None:
        """Queue an event, charged by the bytes of its payload, which are the same over every protocol.

        It is not sent from ``expires_at`` on, in Unix seconds.
        """
        if self._ending.future.done():
            return
        self._bytes += bytes_
        self._events += 1
        if expires_at is None:
            expires_at = math.inf
        else:
            self._next_expiry = min(self._next_expiry, expires_at)
        self._add(item, bytes_, expires_at)

    @property
    def waiting(self) -> int:
        """The number of events that are queued or being sent."""
        return self._events + self._lot_events

    @property
    def waits_s(self) -> float:
        """A lower bound of how long the oldest of these has waited."""
        return time.monotonic() - self._taken_at if self.waiting else 0.0

    def is_empty(self) -> bool:
        """Return whether everything has been sent."""
        return not self._items and self._lot == (0, 0)

    def has_room(self) -> bool:
        """Return whether the queue is less than half full."""
        return (
            2 * (len(self._items) + self._lot[0]) < self._max_events
            and 2 * (self._bytes + self._lot[1]) < self._max_bytes
        )

    async def room(self) -> None:
        """Wait until the queue is less than half full, so that who queues replies waits for the client to read them."""
        while not self.has_room():
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)

    async def filled(self) -> None:
        """Wait for something to send; what waits here rather than in :meth:`take` is one coroutine less."""
        self._left()
        while not self._has_items():
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._taken_at = time.monotonic()

    async def take(self) -> list[T]:
        """Wait for something to send, and return all that the limits allow to be sent now.

        Raises Refused if a limit asks for the connection to be closed.
        """
        self._left()
        if not self._has_items():
            await self.filled()
        count, events = len(self._items), self._events
        if events and (
            self._is_throttled or not self._limiter.charge_now(self._call, messages_out=events, bytes_out=self._bytes)
        ):
            return await self._take_one()
        items = [item for item, _, _ in self._items]
        self._items = NOTHING
        self._next_expiry = math.inf
        self._lot, self._lot_events, self._bytes, self._events = (count, self._bytes), events, 0, 0
        self._count(events, self._lot[1])
        return items

    async def _take_one(self) -> list[T]:
        """Take one item when the limits do not allow all; wait for the limit and notify the client once."""
        item, bytes_, _ = self._items[0]
        if bytes_ != _CONTROL:
            try:
                await self._limiter.charge(self._call, messages_out=1, bytes_out=bytes_)
            except Refused as refused:
                return await self._pause(refused)
            self._is_throttled = False
            self._bytes -= bytes_
            self._events -= 1
            self._count(1, bytes_)
        self._items.popleft()
        self._lot, self._lot_events = (1, max(bytes_, 0)), int(bytes_ != _CONTROL)
        return [item]

    async def _pause(self, refused: Refused) -> list[T]:
        """Delay events without dropping any: a reader that stays at its limit falls behind until it is too slow.

        A used-up quota raises Refused and so ends the connection: it does not wait for the next month.
        """
        if refused.fatal or refused.reason is Reason.QUOTA_EXCEEDED:
            raise refused
        if not self._is_throttled:
            self._is_throttled = True
            connection = self._call.connection
            if connection is not None:
                connection.refused(refused)
            if connection is None or connection.may_notify_delay(time.monotonic()):
                return [self._notice(refused)]
        await asyncio.sleep(min(refused.retry_after_s or 0.1, _PAUSE_MAX_S))
        return []

    def _has_items(self) -> bool:
        """Return whether something is to be sent, after dropping events that have expired in the queue."""
        if self._next_expiry < math.inf and self._next_expiry <= (now := time.time()):
            expired = [bytes_ for _, bytes_, expires_at in self._items if expires_at <= now]
            self._items = deque(item for item in self._items if item[2] > now)
            self._bytes -= sum(expired)
            self._events -= len(expired)
            self._next_expiry = min((expires_at for _, _, expires_at in self._items), default=math.inf)
        return bool(self._items)

    def _add(self, item: T, bytes_: int, expires_at: float) -> None:
        if self._is_over:
            return
        if self._items is NOTHING:
            self._items = deque()
        items = self._items
        items.append((item, bytes_, expires_at))
        if len(items) + self._lot[0] > self._max_events or self._bytes + self._lot[1] > self._max_bytes:
            self._is_over = True
            self._ending(Refused(Reason.TOO_SLOW))
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def _left(self) -> None:
        """Note that the batch taken last has been sent."""
        self._lot, self._lot_events = (0, 0), 0
        self._taken_at = time.monotonic()
        if self._drained is not None and self.has_room():
            self._drained.set_result(None)
            self._drained = None

    def _count(self, events: int, bytes_: int) -> None:
        if events and self._call.connection is not None:
            self._call.connection.sent(bytes_, events)
