"""An event that a subscription has given up: kept as a dead letter with its reason, before it is settled."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import orjson

from gateway.durable.readers import Given
from gateway.link.nats import DEAD_SUBJECT
from gateway.log.event import Event, is_json, rfc3339
from gateway.log.event_log import EventLog
from gateway.refusals import Refused
from gateway.snapshot.picture import Channel
from gateway.snapshot.subscriptions import Subscription
from gateway.wire.strict_json import parse

UNDELIVERED = "undelivered"
"""The reason of such letters."""
DETAIL_MAX_CHARS = 500
UNWRITABLE = "It cannot be written as JSON."


async def bury(
    log: EventLog, channel: Channel, subscription: Subscription, given: Given, attempts: int, detail: str
) -> None:
    """Keep an event as a dead letter of its subscription. Raises Refused where the log is away: settle it only then."""
    letter = {
        "channel": channel.address,
        "address": given.event.address,
        "reason": UNDELIVERED,
        "detail": detail[:DETAIL_MAX_CHARS],
        "pointer": "",
        "consumer": subscription.consumer,
        "protocol": subscription.type,
        "subscription": subscription.id,
        "attempts": attempts,
        "event": original(given.event),
        "dead_at": rfc3339(datetime.now(UTC)),
    }
    # Once, also where the process ends before the event is settled.
    await log.store(f"{DEAD_SUBJECT}.{channel.stream}", orjson.dumps(letter), f"{subscription.id}.{given.event.id}")


def writable(event: Event) -> bool:
    """Say whether an event can be written as JSON; what came into the log by no door of ours may not."""
    try:
        event.frame()
    except ValueError:
        return False
    return True


def original(event: Event) -> dict[str, Any]:
    """Say all of an event, so that it can be put back as it was."""
    said: dict[str, Any] = {
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
    said = {name: value for name, value in said.items() if value}
    try:
        if is_json(event.content_type):
            parse(event.data)
            return said | {"data": orjson.Fragment(event.data)}
    except Refused:
        pass  # it came into the log by no door of ours
    return said | {"data_base64": base64.b64encode(event.data).decode()}
