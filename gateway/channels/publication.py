"""Events to be published, and their CloudEvents attributes as the log stores them."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any

from gateway import tracing
from gateway.call import Call
from gateway.concurrency.short_cache import short_cache
from gateway.log.event import BATCH_HEADER, EVENT_TYPE, encoded, rfc3339_now
from gateway.log.expiry import EXPIRY, require_future, require_instant
from gateway.log.writer import header_block, with_header
from gateway.protocol import Protocol
from gateway.refusals import Refused
from gateway.snapshot.picture import Channel
from gateway.wire.content_types import CONTENT_TYPE_MAX_CHARS
from gateway.wire.strict_json import fail

ATTRIBUTES_MAX = 32
ATTRIBUTES_MAX_BYTES = 4096
_ATTRIBUTE_NAME = re.compile(r"[a-z0-9]{1,20}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONSUMERS = "/consumers/"
UNREAD: Any = object()


# Not frozen, as are Admitted and Entry: a frozen instance takes three times as long to make. Nobody changes them.
@dataclass(slots=True)
class Publication:
    """An event to be published."""

    address: str
    data: bytes
    content_type: str = ""
    """The media type that its publisher names; empty: that of the channel."""
    idempotency_key: str | None = None
    traceparent: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    """CloudEvents attributes set by the publisher, without prefix: ``id``, ``type``, ``source``, ``subject``, …"""
    keeps_invalid: bool = False
    """Dead-letter it if it is invalid, whatever its channel says: its publisher cannot be notified."""
    identity: str | None = None
    """By which its protocol identifies it when its client sends it again; used if it has neither a key nor an id."""
    is_relayed: bool = False
    """It is part of what an upstream sent, as it is: the content type of the channel does not apply."""
    value: Any = UNREAD
    """The parsed ``data``, if :func:`gateway.wire.strict_json.parse` has already parsed it."""

    @property
    def known_by(self) -> tuple[str | None, ...] | None:
        """By what an event is recognised that is published again: its key, its source and id, or its identity.

        Without a key, a CloudEvent is recognised by its source and id (CloudEvents 1.0.2, 3.1.1). None: by nothing.
        """
        if self.idempotency_key is not None:
            return (self.idempotency_key,)
        if "id" in self.attributes:
            return (self.attributes.get("source"), self.attributes["id"])
        return (None, None, self.identity) if self.identity is not None else None


@dataclass(frozen=True, slots=True)
class EventArray:
    """The events of a JSON array, to be published at one address."""

    address: str
    texts: list[bytes]
    values: list[Any] | None
    """The parsed texts; None where the array could not be parsed as one text, which its single events may explain."""
    content_type: str = ""
    idempotency_key: str | None = None

    def publications(self) -> list[Publication]:
        """Return its events one by one. Each has an idempotency key of its own; the first keeps that of the array."""
        values = self.values or repeat(UNREAD)
        return [
            Publication(
                self.address,
                text,
                self.content_type,
                f"{self.idempotency_key}\n{number}" if number and self.idempotency_key else self.idempotency_key,
                value=value,
            )
            for number, (text, value) in enumerate(zip(self.texts, values, strict=False))
        ]


@dataclass(slots=True)
class Admitted:
    """A publication whose right, channel and payload were checked, with the fault that was found."""

    publication: Publication
    channel: Channel
    subject: str
    headers: bytes
    """As :func:`gateway.log.writer.header_block` formats them, without a message id."""
    fault: Refused | None
    content_type: str
    weight: int = 0
    """How much its check took, as :mod:`gateway.side_thread` weighs it."""
    batch: str | None = None
    """The digest of the batch of which it is the first event, if that has an idempotency key."""

    def of_batch(self, digest: str) -> Admitted:
        """Return it as the first event of a batch with this digest."""
        return replace(self, headers=with_header(self.headers, BATCH_HEADER, digest), batch=digest)


def headers_of(call: Call, publication: Publication, content_type: str) -> bytes:
    """Format the headers that an event is stored with. Raises Refused."""
    if publication.attributes or publication.traceparent:
        return header_block(attributes_as_headers(call, publication, content_type).items())
    return plain_headers(call, content_type)


def plain_headers(call: Call, content_type: str) -> bytes:
    """Format the headers of an event whose publisher sets no attribute."""
    trace = f"traceparent: {call.traceparent}\r\n" if call.traceparent else ""
    if call.traceparent and call.tracestate:
        trace += f"ce-tracestate: {encoded(call.tracestate)}\r\n"
    own = f"ce-time: {rfc3339_now()}\r\n{trace}\r\n"
    return _unchanging_headers(call.caller.consumer, content_type) + own.encode()


@short_cache(1_024)
def _unchanging_headers(consumer: str, content_type: str) -> bytes:
    """Return the headers of all events of one media type by which a consumer sets no attribute, without their end."""
    fields = {
        "ce-specversion": "1.0",
        "ce-source": encoded(_CONSUMERS + consumer),
        "ce-type": EVENT_TYPE,
        "content-type": encoded(content_type[:CONTENT_TYPE_MAX_CHARS]),
    }
    return header_block(fields.items())[:-2]


def attributes_as_headers(call: Call, publication: Publication, content_type: str) -> dict[str, str]:
    """Format the CloudEvents attributes as NATS headers (NATS protocol binding 3.1). Raises Refused."""
    own_source = _CONSUMERS + call.caller.consumer
    attributes = publication.attributes
    for name, value in attributes.items():
        if not _ATTRIBUTE_NAME.fullmatch(name) or not value:
            fail(f"The attribute {name[:40]!r} is not one of CloudEvents.", f"/{name[:40]}")
        if _CONTROL.search(value):
            fail("An attribute of a CloudEvent holds no control characters.", f"/{name}")
    source = attributes.get("source") or own_source
    if source.startswith(_CONSUMERS) and source != own_source and call.protocol is not Protocol.CONNECTOR:
        fail("The source names another consumer.", "/source")
    if EXPIRY in attributes:
        require_future(attributes[EXPIRY], time.time())
    headers = {f"ce-{name}": encoded(value) for name, value in attributes.items()}
    if sum(map(len, headers.values())) > ATTRIBUTES_MAX_BYTES or len(headers) > ATTRIBUTES_MAX:
        fail(f"CloudEvents attributes hold at most {ATTRIBUTES_MAX_BYTES} bytes.")
    headers["ce-specversion"] = "1.0"
    headers["ce-source"] = encoded(source)
    headers["ce-type"] = encoded(attributes.get("type") or EVENT_TYPE)
    headers["ce-time"] = _time(attributes.get("time"))
    headers["content-type"] = encoded(content_type[:CONTENT_TYPE_MAX_CHARS])
    given = publication.traceparent or attributes.get("traceparent")
    if given or call.traceparent:
        _trace(headers, *tracing.of_event(call, given, attributes.get("tracestate")))
    return headers


def _trace(headers: dict[str, str], traceparent: str | None, tracestate: str | None) -> None:
    """Set the trace context once, replacing the attributes of the CloudEvents extension."""
    headers.pop("ce-traceparent", None)
    headers.pop("ce-tracestate", None)
    if traceparent:
        headers["traceparent"] = traceparent
    if tracestate:
        headers["ce-tracestate"] = encoded(tracestate)


def _time(given: str | None) -> str:
    if given is None:
        return rfc3339_now()
    require_instant(given, "time")
    return given
