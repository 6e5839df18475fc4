"""Lag alerts: whether one is due when the lag crosses a threshold in either direction, and the message that is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

import orjson

from gateway.log.event import rfc3339
from gateway.snapshot.subscriptions import Subscription

PAUSES_S = (0.0, 5.0, 30.0, 300.0, 1800.0, 7200.0)
"""The pause before each attempt; after the last one the alert is given up."""


@dataclass(frozen=True, slots=True)
class Alert:
    """The last known side of the threshold, and how far its alert has come."""

    is_above: bool = False
    since: float = 0.0
    tries: int = len(PAUSES_S)
    """Failed attempts to send it; ``len(PAUSES_S)`` means that nothing is left to send."""
    due_at: float = 0.0

    def measured(self, is_above: bool, now: float) -> Self:
        """Return the alert after a measurement; a crossing of the threshold makes a new one due."""
        return self if is_above is self.is_above else replace(self, is_above=is_above, since=now, tries=0, due_at=now)

    def is_due(self, now: float) -> bool:
        """Return whether it is to be sent now."""
        return self.tries < len(PAUSES_S) and now >= self.due_at

    def delivered(self) -> Self:
        """Return the alert after a successful attempt."""
        return replace(self, tries=len(PAUSES_S))

    def failed(self, now: float) -> Self:
        """Return the alert after a failed attempt."""
        tries = self.tries + 1
        return replace(self, tries=tries, due_at=now + PAUSES_S[min(tries, len(PAUSES_S) - 1)])


def is_above(subscription: Subscription, lag: Mapping[str, Any]) -> bool:
    """Return whether the lag has reached one of the subscription's thresholds; an unknown lag has not."""
    events, seconds = lag.get("events"), lag.get("seconds")
    return (
        subscription.alert_lag_events is not None and events is not None and events >= subscription.alert_lag_events
    ) or (subscription.alert_lag_s is not None and seconds is not None and seconds >= subscription.alert_lag_s)


def message(subscription: Subscription, alert: Alert, health: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return the id and the body of the alert; the id is the same in each attempt."""
    type_ = "subscription.lagging" if alert.is_above else "subscription.caught-up"
    body = {
        "type": type_,
        "timestamp": rfc3339(datetime.fromtimestamp(alert.since, UTC)),
        "data": {
            "subscription": subscription.id,
            "channel": subscription.channel,
            "state": health["state"],
            "state_reason": health["state_reason"],
            "lag": health["lag"],
            "alert_lag_events": subscription.alert_lag_events,
            "alert_lag_s": subscription.alert_lag_s,
        },
    }
    return f"{subscription.id}_{type_.rpartition('.')[2]}_{int(alert.since * 1000)}", orjson.dumps(body)
