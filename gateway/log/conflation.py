"""Conflation: the latest event of each address per interval, for readers that need the state and not every change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.log.event import Event

PENDING_MAX = 1000
"""Addresses with a pending event; beyond it, the pending events are delivered early, and none is lost."""


class Conflation:
    """One reader's view of a channel: at most one event an address in each interval, in the order of their ids.

    The first event after a quiet interval is delivered at once. Events of the interval after it are pending until its
    end, and a newer event of the same address replaces the older one. Pending events are delivered together, so that
    the last id delivered is a position: no older event follows it. While the reader has no room, events stay pending
    and conflate further: the reader then misses changes, but not the latest state.
    """

    __slots__ = ("_call_later", "_deliver", "_has_room", "_interval_s", "_pending", "_timer")

    def __init__(
        self,
        interval_s: float,
        deliver: Callable[[Event], None],
        has_room: Callable[[], bool],
        *,
        call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle] | None = None,
    ) -> None:
        self._interval_s = interval_s
        self._deliver = deliver
        self._has_room = has_room
        self._call_later = call_later or asyncio.get_running_loop().call_later
        self._pending: dict[str, Event] = {}
        self._timer: asyncio.TimerHandle | None = None

    def change(self, interval_s: float) -> None:
        """Change the interval, from the next one on; 0 delivers every event."""
        self._interval_s = interval_s

    def offer(self, event: Event) -> None:
        """Deliver an event now or later. Ids must increase."""
        if self._timer is None and not self._interval_s:
            self._deliver(event)
            return
        if self._timer is None:
            self._deliver(event)
            self._wait()
            return
        # Removed first, so that the order of the dict is that of the ids.
        self._pending.pop(event.address, None)
        self._pending[event.address] = event
        if len(self._pending) > PENDING_MAX:
            self._flush()

    def stop(self) -> None:
        """Deliver nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        self._pending.clear()

    def _wait(self) -> None:
        self._timer = self._call_later(self._interval_s, self._interval_is_over)

    def _interval_is_over(self) -> None:
        self._timer = None
        if not self._pending:
            return
        if self._has_room() or not self._interval_s:
            self._flush()
        if self._interval_s:
            self._wait()

    def _flush(self) -> None:
        pending, self._pending = self._pending, {}
        now = time.time()
        for event in pending.values():
            if not event.has_expired(now):
                self._deliver(event)
