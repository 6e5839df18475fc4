"""How far the subscribers of open connections are: the last event each was sent, and what it has not been sent yet."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.channels.outbox import Outbox
    from gateway.log.event import Event
    from gateway.log.hub import Listening

TOLD_MAX = 20
"""Subscriptions of one connection that are told of: those that are the furthest behind."""


class Reading:
    """One subscription of an open connection. Noting an event is setting an attribute."""

    __slots__ = ("address", "begins_at", "last", "listening")

    def __init__(self, address: str) -> None:
        self.address = address
        self.begins_at = 0
        self.last: Event | None = None
        """The event that was queued last."""
        self.listening: Listening | None = None

    def told(self, outbox: Outbox[Any], now: float) -> dict[str, Any]:
        """Say the last id, and the lag in events and seconds. Ids are counted: events of others may be among them."""
        last_id = self.last.id if self.last is not None else self.begins_at
        head = self.listening.head if self.listening is not None else 0
        unread = max(0, head - last_id) if last_id else 0
        since_s = outbox.waits_s
        if unread and self.last is not None and self.last.stored_at is not None:
            since_s = max(since_s, now - self.last.stored_at)
        events = unread + outbox.waiting
        return {
            "channel": self.address,
            "last_id": str(last_id) if last_id else None,
            "lag": {"events": events, "seconds": round(max(0.0, since_s), 1) if events else 0.0},
        }


def told(readings: list[Reading], outbox: Outbox[Any]) -> list[dict[str, Any]]:
    """Say it of all subscriptions of one connection, the furthest behind first."""
    now = time.time()
    found = [reading.told(outbox, now) for reading in readings]
    found.sort(key=lambda each: -each["lag"]["events"])
    return found[:TOLD_MAX]
