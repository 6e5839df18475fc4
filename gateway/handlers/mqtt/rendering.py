"""Events as MQTT packets: encoded once for all who receive them in the same form."""

from __future__ import annotations

import time
from functools import lru_cache

import orjson

from gateway.handlers.mqtt.publishing import ORIGIN, RETAIN
from gateway.log.catch_up import Gap
from gateway.log.event import EVENT_TYPE, Event
from gateway.log.expiry import EXPIRY, seconds_left
from gateway.log.lot import Form
from gateway.wire.mqtt import codec
from gateway.wire.mqtt.packets import V5, V311, Properties, Publish
from gateway.wire.mqtt.session import Parts

RENDERED_KEPT = 16
"""Rendered events that are cached; an event is delivered to all its subscribers within moments, so few suffice."""
_NOT_CLOUDEVENTS = frozenset({ORIGIN, RETAIN, EXPIRY, "tracestate"})
"""Extensions that are not sent as a user property with the prefix ``ce-``."""


def left_s_of(event: Event, version: int) -> int | None:
    """Return the seconds for which an event may still be delivered, as the packet has them; None if it has no end."""
    return seconds_left(event.expires_at, time.time()) if event.expires_at is not None and version == V5 else None


def parts_of(event: Event, version: int, left_s: int | None, gap: Gap | None = None) -> Parts:
    """Return an event as the parts of a PUBLISH; a gap before it is a user property of MQTT 5."""
    if version != V5:
        return codec.shared_parts(version, Publish(event.address, event.data))
    user = [("id", str(event.id)), ("time", event.time), ("ce-source", event.source)]
    optional = {
        "ce-type": event.type if event.type != EVENT_TYPE else None,
        "ce-id": event.published_id,
        "ce-subject": event.subject,
        "traceparent": event.traceparent,
        "tracestate": event.extensions.get("tracestate"),
    }
    user += [(name, value) for name, value in optional.items() if value]
    user += [(f"ce-{name}", value) for name, value in event.extensions.items() if name not in _NOT_CLOUDEVENTS]
    if gap is not None:
        members = {"from": str(gap.from_id), "to": str(gap.to_id), "cause": gap.cause}
        user.append(("gap", orjson.dumps(members).decode()))
    properties: Properties = {"content_type": event.content_type, "user": user}
    if left_s is not None:
        properties["message_expiry"] = left_s
    return codec.shared_parts(version, Publish(event.address, event.data, properties=properties))


def renewed(event: Event, version: int, gap: Gap | None) -> Parts | None:
    """Return the parts of an event that was held, with the interval that is left now; None if it has expired."""
    return None if event.has_expired(time.time()) else parts_of(event, version, left_s_of(event, version), gap)


@lru_cache(maxsize=RENDERED_KEPT)
def rendered(event: Event, version: int, left_s: int | None) -> Parts:
    """Return an event as the parts of a PUBLISH, encoded once for all its subscribers of the same second."""
    return parts_of(event, version, left_s)


def _plain_v311(event: Event) -> bytes:
    return codec.publish_of(parts_of(event, V311, None), 0)


def _plain_v5(event: Event) -> bytes:
    return codec.publish_of(parts_of(event, V5, None), 0)


PLAIN: dict[int, Form] = {V311: _plain_v311, V5: _plain_v5}
"""By protocol level: an event that does not expire, as a packet of QoS 0 without the retain flag."""
