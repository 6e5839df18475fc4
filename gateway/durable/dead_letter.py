"""Dead letters of durable subscriptions: events given up, stored with a reason before they are acknowledged."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import orjson

from gateway.durable.readers import Delivery
from gateway.link.nats import DEAD_SUBJECT
from gateway.log.event import Event, is_json, rfc3339
from gateway.log.event_log import EventLog
from gateway.refusals import Refused
from gateway.snapshot.picture import Channel
from gateway.snapshot.subscriptions import Subscription
from gateway.wire.strict_json import parse

UNDELIVERED = "undelivered"
"""The ``reason`` of these dead letters."""
DETAIL_MAX_CHARS = 500
UNWRITABLE = "It cannot be written as JSON."


async def store_dead_letter(
    log: EventLog, channel: Channel, subscription: Subscription, delivery: Delivery, attempts: int, detail: str
) -> None:
    """Store an event as a dead letter of its subscription.

    Acknowledge the event only afterwards. Raises Refused where the log is unavailable.
    """
    letter = {
        "channel": channel.address,
        "address": delivery.event.address,
        "reason": UNDELIVERED,
        "detail": detail[:DETAIL_MAX_CHARS],
        "pointer": "",
        "consumer": subscription.consumer,
        "protocol": subscription.type,
        "subscription": subscription.id,
        "attempts": attempts,
        "event": serialize(delivery.event),
        "dead_at": rfc3339(datetime.now(UTC)),
    }
    # The message id keeps it single, also where the process ends before the event is acknowledged.
    await log.store(f"{DEAD_SUBJECT}.{channel.stream}", orjson.dumps(letter), f"{subscription.id}.{delivery.event.id}")


def is_writable(event: Event) -> bool:
    """Return whether an event can be written as JSON; one that was not published through the gateway may not."""
    try:
        event.frame()
    except ValueError:
        return False
    return True


def serialize(event: Event) -> dict[str, Any]:
    """Return all members of an event, so that it can be redriven unchanged."""
    members: dict[str, Any] = {
        "id": str(event.id),
        "time": event.time,
        "type": event.type,
        "source": event.source,
        "content_type": event.content_type,
        "subject": event.subject,
        "traceparent": event.traceparent,
        "published_id": event.published_id,
        "extensions": dict(event.extensions),
    }
    members = {name: value for name, value in members.items() if value}
    try:
        if is_json(event.content_type):
            parse(event.data)
            return members | {"data": orjson.Fragment(event.data)}
    except Refused:
        pass  # not published through the gateway
    return members | {"data_base64": base64.b64encode(event.data).decode()}
