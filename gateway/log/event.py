"""An Event as it was stored, and the forms in which callers get it, each encoded once."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote, unquote

import orjson

from gateway.concurrency.short_cache import short_cache
from gateway.log.expiry import EXPIRY, read_expiry
from gateway.wire.content_types import JSON_TYPE, is_json, is_text
from gateway.wire.subjects import address_of, address_subject
from gateway.wire.websocket import TEXT, compressed_message, frame

EVENT_TYPE = "event"
BATCH_HEADER = "Idempotency-Batch"
"""The header with the digest of a batch published under one idempotency key; its first event has it."""
_LINE_END = re.compile(r"\r\n|\r|\n")
_ATTRIBUTE = "ce-"
_OWN_ATTRIBUTES = {"ce-specversion", "ce-id", "ce-source", "ce-type", "ce-time", "ce-subject"}
_HEADER_SAFE = "!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


@dataclass(slots=True, eq=False)
class Event:
    """One event of a channel's log."""

    channel: str
    """The channel's address: a template where it has parameters."""
    address: str
    """The concrete address that it was published to."""
    id: int
    """Its sequence in the channel's stream: increasing, not consecutive."""
    time: str
    """When it happened, as its publisher states it; else when it was stored. RFC 3339."""
    data: bytes
    """As published: JSON text, or bytes of another ``content_type``."""
    content_type: str = JSON_TYPE
    type: str = EVENT_TYPE
    source: str = ""
    subject: str | None = None
    traceparent: str | None = None
    published_id: str | None = None
    """The CloudEvents id set by the publisher, if any."""
    extensions: Mapping[str, str] = field(default_factory=dict)
    previous: int = 0
    """The id before it on its subject, for live events."""
    batch: str | None = None
    """The value of its :data:`BATCH_HEADER`."""
    stored_time: str = ""
    """When the log stored it, in RFC 3339; empty if unknown."""
    expires_at: float | None = None
    """When it expires, in Unix seconds; None for never."""
    _frame: str | None = None
    _sse_data: bytes | None = None
    _cloudevent: str | None = None

    @property
    def stored_at(self) -> float | None:
        """When the log stored it, in Unix seconds by the log's clock; :attr:`time` is up to the publisher."""
        return datetime.fromisoformat(self.stored_time).timestamp() if self.stored_time else None

    def has_expired(self, now: float) -> bool:
        """Return whether nobody may receive it any more, at this time in Unix seconds."""
        return self.expires_at is not None and self.expires_at <= now

    def frame(self) -> str:
        """Return it as the ``event`` frame of ``/v1/stream`` and of history."""
        if self._frame is None:
            trace = f',"traceparent":{_text(self.traceparent)}' if self.traceparent else ""
            if tracestate := self.extensions.get("tracestate"):
                trace += f',"tracestate":{_text(tracestate)}'
            self._frame = (
                f'{{"type":"event","channel":{_text(self.address)},"id":"{self.id}","time":{_text(self.time)}'
                f"{trace}{self._content_type_member()},{self._data_member()}}}"
            )
        return self._frame

    def frame_message(self) -> bytes:
        """Return :meth:`frame` as a WebSocket message, ready to be written."""
        return frame(TEXT, self.frame().encode())

    def cloudevent_message(self) -> bytes:
        """Return :meth:`cloudevent` as a WebSocket message, ready to be written."""
        return frame(TEXT, self.cloudevent().encode())

    def compressed_frame_message(self) -> bytes:
        """Return :meth:`frame` as a WebSocket message for connections that compress."""
        return compressed_message(TEXT, self.frame().encode())

    def compressed_cloudevent_message(self) -> bytes:
        """Return :meth:`cloudevent` as a WebSocket message for connections that compress."""
        return compressed_message(TEXT, self.cloudevent().encode())

    def sse(self) -> bytes:
        """Return it as one server-sent event, with its own id."""
        return b"id: %d\n%b" % (self.id, self.sse_data())

    def sse_data(self) -> bytes:
        """Return it as the ``data`` lines of a server-sent event and the empty line that ends it."""
        if self._sse_data is None:
            lines = _LINE_END.split(self._as_text())
            self._sse_data = "".join([*(f"data: {line}\n" for line in lines), "\n"]).encode()
        return self._sse_data

    def cloudevent(self) -> str:
        """Return it as a CloudEvent in structured mode; its ``sequence`` is :attr:`id`."""
        if self._cloudevent is None:
            attributes: dict[str, str] = {
                **self.extensions,
                "specversion": "1.0",
                "id": self.published_id or str(self.id),
                "source": self.source,
                "type": self.type,
                "time": self.time,
                "sequence": str(self.id),
                "channel": self.address,
                "datacontenttype": self.content_type,
            }
            if self.subject:
                attributes["subject"] = self.subject
            if self.traceparent:
                attributes["traceparent"] = self.traceparent
            self._cloudevent = f"{orjson.dumps(attributes).decode()[:-1]},{self._data_member()}}}"
        return self._cloudevent

    def _content_type_member(self) -> str:
        """Return the media type as a member, which only an event that is not JSON has."""
        return "" if is_json(self.content_type) else f',"content_type":{_text(self.content_type)}'

    def _data_member(self) -> str:
        if is_json(self.content_type):
            return f'"data":{self.data.decode()}'
        if (text := self._plain_text()) is not None:
            return f'"data":{_text(text)}'
        return f'"data_base64":"{base64.b64encode(self.data).decode()}"'

    def _as_text(self) -> str:
        if is_json(self.content_type):
            return self.data.decode(errors="replace")
        text = self._plain_text()
        return base64.b64encode(self.data).decode() if text is None else text

    def _plain_text(self) -> str | None:
        """Return the data as text; None unless it is text in UTF-8, which decodes without loss."""
        if not is_text(self.content_type):
            return None
        try:
            return self.data.decode()
        except UnicodeDecodeError:
            return None


def from_headers(channel: str, subject: str, headers: Mapping[str, str], data: bytes) -> Event:
    """Return the event of a NATS message: live by republish, or stored by a direct get."""
    extensions = {}
    for name, value in headers.items():
        if name.startswith(_ATTRIBUTE) and name not in _OWN_ATTRIBUTES:
            extensions[name[len(_ATTRIBUTE) :]] = decoded(value)
    about, published_id = headers.get("ce-subject"), headers.get("ce-id")
    return Event(
        channel=channel,
        address=address_of(address_subject(subject)),
        id=int(headers["Nats-Sequence"]),
        time=headers.get("ce-time") or headers.get("Nats-Time-Stamp", ""),
        stored_time=headers.get("Nats-Time-Stamp", ""),
        data=data,
        content_type=decoded(headers.get("content-type", JSON_TYPE)),
        type=decoded(headers.get("ce-type", EVENT_TYPE)),
        source=decoded(headers.get("ce-source", "")),
        subject=decoded(about) if about else None,
        traceparent=headers.get("traceparent"),
        published_id=decoded(published_id) if published_id else None,
        extensions=extensions,
        previous=int(headers.get("Nats-Last-Sequence", 0)),
        batch=headers.get(BATCH_HEADER),
        expires_at=read_expiry(extensions.get(EXPIRY)),
    )


@short_cache(1_024)
def encoded(value: str) -> str:
    """Percent-encode text for a header (CloudEvents HTTP binding 3.1.3.2)."""
    return quote(value, safe=_HEADER_SAFE)


def decoded(value: str) -> str:
    """Undo :func:`encoded`."""
    return unquote(value) if "%" in value else value


def rfc3339(instant: datetime) -> str:
    """Format an aware instant in UTC as RFC 3339 with microseconds."""
    return instant.isoformat(timespec="microseconds").replace("+00:00", "Z")


def rfc3339_now() -> str:
    """Return the present instant as :func:`rfc3339` formats it; a second's text is formatted once."""
    seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    return f"{_second(seconds)}.{microseconds:06d}Z"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _text(value: str | None) -> str:
    return orjson.dumps(value).decode()
