"""When a subscription's lag passes its threshold, and when it has caught up: what is said, and whether it is due."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

import orjson

from gateway.log.event import rfc3339
from gateway.snapshot.subscriptions import Subscription

PAUSES_S = (0.0, 5.0, 30.0, 300.0, 1800.0, 7200.0)
"""An alert that nobody takes is given up after these."""


@dataclass(frozen=True, slots=True)
class Alert:
    """What is known of a subscription's lag, and how far it was told."""

    is_above: bool = False
    since: float = 0.0
    tries: int = len(PAUSES_S)
    """Of telling it; as many as there are pauses: nothing is left to tell."""
    due_at: float = 0.0

    def seen(self, is_above: bool, now: float) -> Self:
        """Say how it stands after a look."""
        return self if is_above is self.is_above else replace(self, is_above=is_above, since=now, tries=0, due_at=now)

    def is_due(self, now: float) -> bool:
        """Say whether it is to be told now."""
        return self.tries < len(PAUSES_S) and now >= self.due_at

    def told(self) -> Self:
        """It was taken."""
        return replace(self, tries=len(PAUSES_S))

    def failed(self, now: float) -> Self:
        """It was not taken."""
        tries = self.tries + 1
        return replace(self, tries=tries, due_at=now + PAUSES_S[min(tries, len(PAUSES_S) - 1)])


def is_above(subscription: Subscription, lag: Mapping[str, Any]) -> bool:
    """Say whether the lag has reached one of the subscription's thresholds."""
    events, seconds = lag.get("events"), lag.get("seconds")
    return (
        subscription.alert_lag_events is not None and events is not None and events >= subscription.alert_lag_events
    ) or (subscription.alert_lag_s is not None and seconds is not None and seconds >= subscription.alert_lag_s)


def message(subscription: Subscription, alert: Alert, health: Mapping[str, Any]) -> tuple[str, bytes]:
    """Give the id and the body of what is told: the same id in each try."""
    kind = "subscription.lagging" if alert.is_above else "subscription.caught-up"
    said = {
        "type": kind,
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
    return f"{subscription.id}_{kind.rpartition('.')[2]}_{int(alert.since * 1000)}", orjson.dumps(said)
