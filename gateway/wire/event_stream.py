"""Server-sent events as bytes (WHATWG HTML 9.2.6): splits a stream into events and formats the gateway's own."""

from __future__ import annotations

import re
from typing import Any

import orjson

from gateway.concurrency.short_cache import short_cache
from gateway.refusals import Reason, Refused
from gateway.wire.header_fields import Headers

MEDIA_TYPE = "text/event-stream"
EVENT_MAX_BYTES = 1024 * 1024
"""A larger event is forwarded in parts and not parsed."""
_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
"""A line end and a blank line; a CRLF is one line end, never two."""
BOM = b"\xef\xbb\xbf"
_ASIDE = re.compile(rb"(?:\xef\xbb\xbf)?+(?>(?::[^\r\n]*+|retry(?::[^\r\n]*+)?+)?+(?>\r\n|\n|\r))++")
"""Lines before an event that are no part of it: comments, reconnection times and blank lines."""
_LONGEST_END = 4
RETRY_MAX_S = 3600.0
"""Longest reconnection time that is sent to an ``EventSource``."""


class EventCutter:
    """Splits a stream into complete events. Buffers one incomplete event, of at most ``EVENT_MAX_BYTES``."""

    __slots__ = ("_searched", "held", "is_between")

    def __init__(self) -> None:
        self.held = b""
        """What has arrived of an incomplete event."""
        self._searched = 0
        """Length of the prefix of the buffer that contains no end of an event."""
        self.is_between = True
        """Whether everything returned so far are complete events, so that another event may be inserted."""

    def cut(self, part: bytes) -> list[bytes]:
        """Return the events that are complete now, byte for byte, each with its blank line.

        Lines before an event that are no part of it are returned without waiting for the event.
        """
        held = self.held + part if self.held else part
        events = []
        begins = 0
        for end in _END.finditer(held, max(0, self._searched - _LONGEST_END)):
            events.append(held[begins : end.end()])
            begins = end.end()
            self.is_between = True
        held = held[begins:] if begins else held
        if self.is_between and (b"\n" in part or b"\r" in part) and (size := size_of_aside(held)):
            events.append(held[:size])
            held = held[size:]
        self.held = held
        self._searched = len(held)
        if self._searched > EVENT_MAX_BYTES:
            events.append(self.rest())
        return events

    def rest(self) -> bytes:
        """Return and clear the buffered part of an incomplete event."""
        rest, self.held, self._searched = self.held, b"", 0
        self.is_between = self.is_between and not rest
        return rest


def size_of_aside(text: bytes) -> int:
    """Return the size of the complete lines at the beginning that are no part of an event, such as comments."""
    aside = _ASIDE.match(text)
    return aside.end() if aside is not None else 0


def data_of(event: bytes) -> bytes:
    """Return the data of one complete event; ``b""`` for a comment, such as a heartbeat."""
    lines = []
    for line in event.removeprefix(BOM).splitlines():
        if line.startswith(b"data:"):
            lines.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line == b"data":
            lines.append(b"")
    return lines[0] if len(lines) == 1 else b"\n".join(lines)


def is_event_stream(headers: Headers) -> bool:
    """Return whether a response with these headers is an event stream that is not compressed."""
    return media_type(headers) == MEDIA_TYPE and all(
        name != b"content-encoding" or value.lower() == b"identity" for name, value in headers
    )


def media_type(headers: Headers) -> str:
    """Return the media type in lower case without parameters; "" if there is none."""
    for name, value in headers:
        if name == b"content-type":
            return _media_type_of(value)
    return ""


@short_cache(1_024)
def _media_type_of(value: bytes) -> str:
    return value.partition(b";")[0].strip().lower().decode("latin-1")


def named_event(name: str, data: dict[str, Any]) -> bytes:
    """Return an event with a type of its own, which ``onmessage`` does not receive."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))


def error_event(refused: Refused) -> bytes:
    """Return a refusal as an ``error`` event."""
    return named_event("error", refused.problem())


def final_event(refused: Refused, document: dict[str, Any] | None = None) -> bytes:
    """Return the last event of a stream that ends with a refusal, and when to reconnect; empty for a drain.

    Its data is the document, where one is given, and the problem details otherwise.
    """
    if refused.reason is Reason.DRAINING:
        return b""
    event = named_event("error", document) if document is not None else error_event(refused)
    if refused.retry_after_s is None:
        return event
    return b"retry: %d\n%b" % (min(refused.retry_after_s, RETRY_MAX_S) * 1000, event)
