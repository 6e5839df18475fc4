"""How a subscription stands: what was asked of it, whether it delivers, how far behind it is, its last fault."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from typing import Protocol as Interface

import orjson
from nats.errors import Error as NatsError
from nats.js.errors import APIError

from gateway.durable.readers import Progress, Readers
from gateway.durable.standing import Standing, channel_of, standing, subject_filter
from gateway.link.nats import HEALTH_BUCKET, read_batch
from gateway.refusals import Refused
from gateway.snapshot.subscriptions import Subscription

if TYPE_CHECKING:
    from nats.aio.client import Client

    from gateway.log.event_log import EventLog
    from gateway.snapshot.picture import Channel, Snapshot

# One document a subscription, written by who delivers it; both APIs read it.
HEALTH_STREAM, HEALTH_PREFIX = f"KV_{HEALTH_BUCKET}", f"$KV.{HEALTH_BUCKET}."
UNMEASURED: dict[str, Any] = {
    "lag": {"events": None, "seconds": None},
    "in_flight": None,
    "redelivered": None,
    "last_delivered_id": None,
    "last_acked_id": None,
}


class Parts(Interface):
    """What of a plane is needed here."""

    nats: Client
    snapshot: Snapshot
    log: EventLog
    readers: Readers


def fields(subscription: Subscription, stands: Standing, *, is_pull: bool) -> dict[str, Any]:
    """Say what was asked of it and whether it delivers, as both APIs do."""
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
        "state": stands.state.value,
        "state_reason": stands.reason or None,
        "alert_url": subscription.alert_url or None,
        "alert_lag_events": subscription.alert_lag_events,
        "alert_lag_s": subscription.alert_lag_s,
        "created_at": instant(subscription.created_at),
        "previous_secret_until": instant(subscription.previous_secret_until),
    }


def measured(progress: Progress, oldest_at: float | None, now: float) -> dict[str, Any]:
    """Say how far behind it is: events not settled, and the age of the oldest of them."""
    behind_s = max(0.0, now - oldest_at) if progress.behind and oldest_at is not None else 0.0
    return {
        "lag": {"events": progress.behind, "seconds": round(behind_s, 3)},
        "in_flight": progress.out,
        "redelivered": progress.given_again,
        "last_delivered_id": str(progress.given) if progress.given else None,
        "last_acked_id": str(progress.settled) if progress.settled else None,
    }


async def measure(log: EventLog, readers: Readers, subscription: Subscription, channel: Channel) -> dict[str, Any]:
    """Ask the log how far behind it is. Raises Refused, and LookupError where its reader was not made yet."""
    progress = await readers.progress(subscription, channel)
    oldest_at = None
    if progress.behind:
        subject = subject_filter(subscription.channel)
        oldest_at = await log.stored_at(channel, subject, progress.settled)
    return measured(progress, oldest_at, time.time())


def unmeasured(parts: Parts, subscription: Subscription, *, is_pull: bool) -> dict[str, Any]:
    """Say what is known of it without asking the log: members of `lag` are null."""
    stands = standing(parts.snapshot, subscription, time.time())
    return fields(subscription, stands, is_pull=is_pull) | UNMEASURED | {"last_error": None}


async def shown(parts: Parts, subscription: Subscription, *, is_pull: bool) -> dict[str, Any]:
    """Say all of it. Where the log does not tell how far it is, members of `lag` are null."""
    said = unmeasured(parts, subscription, is_pull=is_pull)
    channel = channel_of(parts.snapshot, subscription)
    try:
        if channel is not None:
            said |= await measure(parts.log, parts.readers, subscription, channel)
        said["last_error"] = (await read_health(parts.nats, subscription.id)).get("last_error")
    except (LookupError, Refused):
        pass  # said as unknown
    return said


async def read_health(client: Client, subscription_id: str) -> dict[str, Any]:
    """Read what its deliverer last said of a subscription; nothing where it has said nothing, or cannot be asked."""
    return (await read_healths(client, subscription_id)).get(subscription_id, {})


async def read_healths(client: Client, subscription_id: str = "*") -> dict[str, dict[str, Any]]:
    """Read what deliverers last said, by subscription; nothing where NATS does not answer."""
    found: dict[str, dict[str, Any]] = {}
    position = 1
    try:
        while True:
            messages = await read_batch(client, HEALTH_STREAM, HEALTH_PREFIX + subscription_id, position)
            for message in messages:
                headers = message.headers or {}
                position = int(headers["Nats-Sequence"]) + 1
                name = headers["Nats-Subject"].removeprefix(HEALTH_PREFIX)
                found[name] = orjson.loads(message.data) if message.data else {}
            if len(messages) < 500 or subscription_id != "*":
                return found
    except (TimeoutError, OSError, NatsError, APIError):
        return found


def instant(at: float | None) -> str | None:
    """Write Unix seconds as RFC 3339."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z") if at is not None else None
