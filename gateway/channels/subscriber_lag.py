"""The read positions of open connections: the last event that each filter was sent, and how far it lags behind."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.channels.outbox import Outbox
    from gateway.log.event import Event
    from gateway.log.hub import Listener

REPORTED_MAX = 20
"""Filters of one connection that are reported: those that lag the furthest behind."""


class Reading:
    """The read position of one filter of an open connection. Recording an event only sets an attribute."""

    __slots__ = ("address", "begins_at", "last", "listener")

    def __init__(self, address: str) -> None:
        self.address = address
        self.begins_at = 0
        self.last: Event | None = None
        """The event that was queued last."""
        self.listener: Listener | None = None

    def report(self, outbox: Outbox[Any], now: float) -> dict[str, Any]:
        """Return the last id and the lag in events and seconds.

        Events are counted by id, so the lag includes events of the channel that the filter does not match.
        """
        last_id = self.last.id if self.last is not None else self.begins_at
        head = self.listener.head if self.listener is not None else 0
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


def report(readings: list[Reading], outbox: Outbox[Any]) -> list[dict[str, Any]]:
    """Return the reports of one connection's filters, those that lag the most first."""
    now = time.time()
    reports = [reading.report(outbox, now) for reading in readings]
    reports.sort(key=lambda each: -each["lag"]["events"])
    return reports[:REPORTED_MAX]
