"""The health of a subscription: its settings, whether it delivers, how far it lags, and its last error."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from typing import Protocol as Interface

import orjson
from nats.errors import Error as NatsError
from nats.js.errors import APIError

from gateway.durable.readers import Progress, Readers
from gateway.durable.standing import Standing, standing
from gateway.link.nats import HEALTH_BUCKET, read_all
from gateway.refusals import Refused
from gateway.snapshot.subscriptions import Subscription
from gateway.wire.subjects import reading_filter

if TYPE_CHECKING:
    from nats.aio.client import Client

    from gateway.link.client import NatsClient
    from gateway.log.event_log import EventLog
    from gateway.snapshot.picture import Channel, Snapshot

# One document for each subscription, written by the delivery process; both APIs read it.
HEALTH_STREAM, HEALTH_PREFIX = f"KV_{HEALTH_BUCKET}", f"$KV.{HEALTH_BUCKET}."
UNMEASURED: dict[str, Any] = {
    "lag": {"events": None, "seconds": None},
    "in_flight": None,
    "redelivered": None,
    "last_delivered_id": None,
    "last_acked_id": None,
}


class Engines(Interface):
    """The engines that a description is read from."""

    nats: NatsClient
    snapshot: Snapshot
    log: EventLog
    readers: Readers


def fields(subscription: Subscription, status: Standing, *, is_pull: bool) -> dict[str, Any]:
    """Return the settings and the state of a subscription, as both APIs show them."""
    return {
        "id": subscription.id,
        "type": subscription.type,
        "consumer": subscription.consumer,
        "key": subscription.key,
        "channel": subscription.channel,
        "url": None if is_pull else subscription.url,
        "order": subscription.order,
        "max_in_flight": subscription.max_in_flight,
        "max_attempts": subscription.max_attempts,
        "retry_schedule_s": list(subscription.retry_schedule_s),
        "ack_wait_s": subscription.ack_wait_s,
        "state": status.state.value,
        "state_reason": status.reason or None,
        "alert_url": subscription.alert_url or None,
        "alert_lag_events": subscription.alert_lag_events,
        "alert_lag_s": subscription.alert_lag_s,
        "created_at": instant(subscription.created_at),
        "previous_secret_until": instant(subscription.previous_secret_until),
    }


def measured(progress: Progress, oldest_at: float | None, now: float) -> dict[str, Any]:
    """Return the lag: the number of unacknowledged events, and the age of the oldest of them in seconds."""
    age_s = max(0.0, now - oldest_at) if progress.lag and oldest_at is not None else 0.0
    return {
        "lag": {"events": progress.lag, "seconds": round(age_s, 3)},
        "in_flight": progress.in_flight,
        "redelivered": progress.redelivered,
        "last_delivered_id": str(progress.delivered_id) if progress.delivered_id else None,
        "last_acked_id": str(progress.acked_id) if progress.acked_id else None,
    }


async def measure(log: EventLog, readers: Readers, subscription: Subscription, channel: Channel) -> dict[str, Any]:
    """Measure the lag in the log. Raises Refused, and LookupError where the subscription has no reader yet."""
    progress = await readers.progress(subscription, channel)
    oldest_at = None
    if progress.lag:
        subject = reading_filter(subscription.channel)
        oldest_at = await log.stored_at(channel, subject, progress.acked_id)
    return measured(progress, oldest_at, time.time())


def describe_unmeasured(engines: Engines, subscription: Subscription, *, is_pull: bool) -> dict[str, Any]:
    """Return the description without a request to the log: the members of ``lag`` are null."""
    status = standing(engines.snapshot, subscription, time.time())
    return fields(subscription, status, is_pull=is_pull) | UNMEASURED | {"last_error": None}


async def describe(engines: Engines, subscription: Subscription, *, is_pull: bool) -> dict[str, Any]:
    """Return the full description; where the log is unavailable, the members of ``lag`` are null."""
    description = describe_unmeasured(engines, subscription, is_pull=is_pull)
    try:
        channel = await engines.readers.channel_of(engines.snapshot, subscription)
        if channel is not None:
            description |= await measure(engines.log, engines.readers, subscription, channel)
        description["last_error"] = (await read_health(engines.nats, subscription.id)).get("last_error")
    except (LookupError, Refused):
        pass  # shown as unknown
    return description


async def read_health(client: Client, subscription_id: str) -> dict[str, Any]:
    """Return the last health document of a subscription; empty where there is none or NATS does not answer."""
    return (await read_healths(client, subscription_id)).get(subscription_id, {})


async def read_healths(client: Client, subscription_id: str = "*") -> dict[str, dict[str, Any]]:
    """Return the last health documents by subscription; empty where NATS does not answer."""
    try:
        messages = await read_all(client, HEALTH_STREAM, HEALTH_PREFIX + subscription_id)
    except (TimeoutError, OSError, NatsError, APIError):
        return {}
    return {
        (message.headers or {})["Nats-Subject"].removeprefix(HEALTH_PREFIX): orjson.loads(message.data or b"{}")
        for message in messages
    }


def instant(at: float | None) -> str | None:
    """Format Unix seconds as RFC 3339."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z") if at is not None else None
