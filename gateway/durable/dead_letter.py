"""Dead letters: events that were refused or given up, stored with a reason and with all that is needed to redrive them.

A letter is one JSON document on the stream of dead letters. The payload of a large event would not fit into it; it is
then the body of the message, and the document a header.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import orjson

from gateway.durable.readers import Delivery
from gateway.link.nats import DEAD_SUBJECT
from gateway.log.event import Event, rfc3339
from gateway.log.event_log import EventLog
from gateway.refusals import Refused
from gateway.snapshot.picture import Channel
from gateway.snapshot.subscriptions import Subscription
from gateway.wire.content_types import is_json, is_text
from gateway.wire.strict_json import dump, parse

UNDELIVERED = "undelivered"
"""The ``reason`` of the dead letters of subscriptions."""
DETAIL_MAX_CHARS = 500
UNWRITABLE = "It cannot be written as JSON."
CUT = "is_cut"
"""The member of an event of which only the beginning is kept: it is larger than the log takes."""
_LETTER = "Apimgmt-Letter"


@dataclass(frozen=True, slots=True)
class DeadEvent:
    """An event of a dead letter."""

    data: bytes
    content_type: str
    members: Mapping[str, Any]
    """Its attributes, by the names of :class:`gateway.log.event.Event`."""

    @classmethod
    def refused(cls, data: bytes, content_type: str, attributes: Mapping[str, str], traceparent: str | None) -> Self:
        """Return an event that was never stored, from its CloudEvents attributes without prefix."""
        extensions = dict(attributes)
        members: dict[str, Any] = {name: extensions.pop(name, None) for name in ("time", "type", "source", "subject")}
        members |= {"published_id": extensions.pop("id", None), "traceparent": traceparent, "extensions": extensions}
        return cls(data, content_type, {name: value for name, value in members.items() if value})

    @classmethod
    def stored(cls, event: Event) -> Self:
        """Return an event of a channel."""
        members: dict[str, Any] = {
            "id": str(event.id),
            "time": event.time,
            "type": event.type,
            "source": event.source,
            "subject": event.subject,
            "traceparent": event.traceparent,
            "published_id": event.published_id,
            "extensions": dict(event.extensions),
        }
        return cls(event.data, event.content_type, {name: value for name, value in members.items() if value})

    def document(self) -> dict[str, Any]:
        """Return it as JSON: ``data`` of JSON and text, else ``data_base64``."""
        return {**self.members, "content_type": self.content_type, **_payload(self.data, self.content_type)}


async def store_letter(
    log: EventLog, channel: Channel, letter: Mapping[str, Any], event: DeadEvent, message_id: str | None = None
) -> None:
    """Store a dead letter, once per message id. Raises Refused where the log is unavailable."""
    subject = f"{DEAD_SUBJECT}.{channel.stream}"
    letter = {"channel": channel.address, **letter, "dead_at": rfc3339(datetime.now(UTC))}
    document = orjson.dumps(letter | {"event": event.document()})
    if len(document) <= log.payload_max_bytes:
        await log.store(subject, document, message_id)
        return
    members = {**event.members, "content_type": event.content_type}
    if len(event.data) > log.payload_max_bytes:
        members[CUT] = True
    header = json.dumps(letter | {"event": members})  # in ASCII
    data = event.data[: log.payload_max_bytes - len(header)]
    await log.store(subject, data, message_id, {_LETTER: header})


def read_letter(headers: Mapping[str, str], body: bytes) -> bytes:
    """Return the document of a dead letter from its message. Raises ValueError."""
    header = headers.get(_LETTER)
    if header is None:
        return body
    letter = json.loads(header)
    letter["event"] |= _payload(body, letter["event"]["content_type"])
    return orjson.dumps(letter)


async def store_dead_letter(
    log: EventLog, channel: Channel, subscription: Subscription, delivery: Delivery, attempts: int, detail: str
) -> None:
    """Store an event as a dead letter of its subscription.

    Acknowledge the event only afterwards. Raises Refused where the log is unavailable.
    """
    letter = {
        "address": delivery.event.address,
        "reason": UNDELIVERED,
        "detail": detail[:DETAIL_MAX_CHARS],
        "pointer": "",
        "consumer": subscription.consumer,
        "protocol": subscription.type,
        "subscription": subscription.id,
        "attempts": attempts,
    }
    # The message id keeps it single, also where the process ends before the event is acknowledged.
    message_id = f"{subscription.id}.{delivery.event.id}"
    await store_letter(log, channel, letter, DeadEvent.stored(delivery.event), message_id)


def is_writable(event: Event) -> bool:
    """Return whether an event can be written as JSON; one that was not published through the gateway may not."""
    try:
        event.frame()
    except ValueError:
        return False
    return True


def _payload(data: bytes, content_type: str) -> dict[str, Any]:
    """Return a payload as a letter holds it; ``data_text`` is JSON text that is not what its value is written as."""
    try:
        if is_json(content_type):
            is_exact = dump(parse(data)) == data
            return {"data": orjson.Fragment(data)} | ({} if is_exact else {"data_text": data.decode()})
        if is_text(content_type):
            return {"data": data.decode()}
    except (Refused, ValueError, TypeError):
        pass  # not published through the gateway
    return {"data_base64": base64.b64encode(data).decode()}
