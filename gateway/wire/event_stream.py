"""Server-sent events as bytes (WHATWG HTML 9.2.6): whole ones cut from a stream, our own written. No I/O."""

from __future__ import annotations

import re
from typing import Any

import orjson

from gateway.refusals import Reason, Refused
from gateway.wire.header_fields import Headers

MEDIA_TYPE = "text/event-stream"
EVENT_MAX_BYTES = 1024 * 1024
"""An event larger than this is passed on in pieces, and nothing is read of it."""
_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
"""The end of a line and a blank line; a CRLF is one line end, never two."""
BOM = b"\xef\xbb\xbf"
_LONGEST_END = 4
RETRY_MAX_S = 3600.0
"""No stream is told to come back later than this."""


class EventCutter:
    """Cuts a stream into whole events. Holds at most one that is not whole, of ``EVENT_MAX_BYTES`` at most."""

    __slots__ = ("_held", "_looked_at", "is_between")

    def __init__(self) -> None:
        self._held = b""
        self._looked_at = 0
        """How much of what is held holds no end."""
        self.is_between = True
        """All that was given so far are whole events: something else may be said here."""

    def cut(self, part: bytes) -> list[bytes]:
        """Give the events that are whole now, each with its blank line; their bytes are those that came."""
        held = self._held + part if self._held else part
        events = []
        begins = 0
        for end in _END.finditer(held, max(0, self._looked_at - _LONGEST_END)):
            events.append(held[begins : end.end()])
            begins = end.end()
            self.is_between = True
        self._held = held[begins:] if begins else held
        self._looked_at = len(self._held)
        if self._looked_at > EVENT_MAX_BYTES:
            events.append(self.rest())
        return events

    def rest(self) -> bytes:
        """Give what is held of an event that is not whole."""
        rest, self._held, self._looked_at = self._held, b"", 0
        self.is_between = self.is_between and not rest
        return rest


def data_of(event: bytes) -> bytes:
    """Give the data of one whole event; ``b""`` for a comment, such as a heartbeat."""
    found = []
    for line in event.removeprefix(BOM).splitlines():
        if line.startswith(b"data:"):
            found.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line == b"data":
            found.append(b"")
    return found[0] if len(found) == 1 else b"\n".join(found)


def is_event_stream(headers: Headers) -> bool:
    """Say whether an answer with these headers is a stream of events that can be read as it comes."""
    return media_type(headers) == MEDIA_TYPE and all(
        name != b"content-encoding" or value.lower() == b"identity" for name, value in headers
    )


def media_type(headers: Headers) -> str:
    """Give the media type of a body in lower case, without its parameters; "" where there is none."""
    for name, value in headers:
        if name == b"content-type":
            return value.partition(b";")[0].strip().lower().decode("latin-1")
    return ""


def named_event(name: str, said: dict[str, Any]) -> bytes:
    """Write an event that is no message."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(said))


def error_event(refused: Refused) -> bytes:
    """Say a refusal inside a stream."""
    return named_event("error", refused.problem())


def last_words(refused: Refused) -> bytes:
    """Say why a stream ends, and when an ``EventSource`` may come back; a drain is no error."""
    if refused.reason is Reason.DRAINING:
        return b""
    event = error_event(refused)
    if refused.retry_after_s is None:
        return event
    return b"retry: %d\n%b" % (min(refused.retry_after_s, RETRY_MAX_S) * 1000, event)
