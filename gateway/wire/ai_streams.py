"""Streams in which models answer: cut into the units that a limit passes whole or not at all.

Besides server-sent events there are lines of JSON (Ollama) and the elements of one JSON array (Gemini without
``alt=sse``). What the units hold, byte for byte, is the stream.
"""

from __future__ import annotations

import re
from typing import Protocol

import orjson

from gateway.refusals import Reason, Refused
from gateway.wire.ai_dialects import Dialect, error_of
from gateway.wire.event_stream import EVENT_MAX_BYTES, EventCutter, data_of, final_event, is_event_stream, media_type
from gateway.wire.header_fields import Headers

LINES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"})
STREAMED_ARRAY = ":streamGenerateContent"
_IN_TEXT = re.compile(rb'["\\]')
_OUTSIDE = re.compile(rb'["\[\]{}]')
_SPACE = b" \t\r\n"


class AnswerStream(Protocol):
    """One kind of stream, while it passes."""

    is_between: bool
    """Whether all that was returned so far are whole units, so that another one may follow."""

    def cut(self, part: bytes) -> list[bytes]:
        """Return the units that are complete now."""

    def rest(self) -> bytes:
        """Return and clear the buffered part of an incomplete unit."""

    def data_of(self, unit: bytes) -> bytes:
        """Return the JSON that a unit holds; empty if it holds none."""

    def final(self, refused: Refused, dialect: Dialect | None, *, is_begun: bool) -> bytes:
        """Return the end of a stream that a refusal ends, and of which a unit has passed or none; empty for a drain."""


class EventStream(EventCutter):
    """Server-sent events."""

    __slots__ = ()

    def data_of(self, unit: bytes) -> bytes:
        """Return the data of an event."""
        return data_of(unit)

    def final(self, refused: Refused, dialect: Dialect | None, *, is_begun: bool) -> bytes:
        """Return an ``error`` event. Google's library takes fields other than ``data`` for JSON, so it gets none."""
        if dialect is Dialect.GEMINI and refused.reason is not Reason.DRAINING:
            return b"data: %b\n\n" % orjson.dumps(error_of(refused, dialect))
        return final_event(refused, error_of(refused, dialect) if dialect is not None else None)


class JsonLines:
    """Lines of JSON, of at most ``EVENT_MAX_BYTES`` each; longer ones pass in parts and are not parsed."""

    __slots__ = ("_held", "is_between")

    def __init__(self) -> None:
        self._held = b""
        self.is_between = True

    def cut(self, part: bytes) -> list[bytes]:
        """Return the lines that are complete now."""
        *lines, self._held = (self._held + part).splitlines(keepends=True) or [b""]
        if self._held.endswith(b"\n"):
            lines.append(self._held)
            self._held = b""
        if lines:
            self.is_between = True
        if len(self._held) > EVENT_MAX_BYTES:
            lines.append(self.rest())
        return lines

    def rest(self) -> bytes:
        """Return and clear the line that has no end yet."""
        rest, self._held = self._held, b""
        self.is_between = self.is_between and not rest
        return rest

    def data_of(self, unit: bytes) -> bytes:
        """Return the line."""
        return unit.strip()

    def final(self, refused: Refused, dialect: Dialect | None, *, is_begun: bool) -> bytes:
        """Return a line with the error."""
        if refused.reason is Reason.DRAINING:
            return b""
        return orjson.dumps(error_of(refused, dialect or Dialect.OLLAMA)) + b"\n"


class ArrayElements:
    """The elements of one JSON array as they arrive, each with what precedes it; larger ones pass in parts."""

    __slots__ = ("_base", "_depth", "_held", "_in_text", "_searched", "is_between")

    def __init__(self) -> None:
        self._held = b""
        self._searched = 0
        self._depth = 0
        self._base = -1
        """The depth between two elements: 1, or 0 for a single object; -1 before the first bracket."""
        self._in_text = False
        self.is_between = True

    def cut(self, part: bytes) -> list[bytes]:
        """Return the elements that are complete now."""
        held, begins, at = self._held + part, 0, self._searched
        units: list[bytes] = []
        while (found := (_IN_TEXT if self._in_text else _OUTSIDE).search(held, at)) is not None:
            at = found.end()
            char = found[0]
            if char == b"\\":
                at += 1
            elif char == b'"':
                self._in_text = not self._in_text
            elif self._ends_element(char):
                units.append(held[begins:at])
                begins = at
                self.is_between = self._base == 1
        # An escape at the end of the part takes the first byte of the next one.
        self._searched = max(at, len(held)) - begins
        self._held = held[begins:]
        if len(self._held) > EVENT_MAX_BYTES:
            self._searched -= len(self._held)
            units.append(self._flush())
        return units

    def _ends_element(self, bracket: bytes) -> bool:
        if bracket in b"[{":
            self._base = (bracket == b"[") if self._base < 0 else self._base
            self._depth += 1
            return False
        self._depth -= 1
        return self._depth == self._base

    def rest(self) -> bytes:
        """Return and clear what no element has ended."""
        self._searched = 0
        return self._flush()

    def _flush(self) -> bytes:
        rest, self._held = self._held, b""
        self.is_between = self.is_between and not rest
        return rest

    def data_of(self, unit: bytes) -> bytes:
        """Return the element."""
        return unit.strip(_SPACE).lstrip(b"[,").strip(_SPACE)

    def final(self, refused: Refused, dialect: Dialect | None, *, is_begun: bool) -> bytes:
        """Return a last element with the error, and the end of the array."""
        begin = b"," if is_begun else b"["
        if refused.reason is Reason.DRAINING:
            return b"]" if is_begun else b"[]"
        return b"%b%b]" % (begin, orjson.dumps(error_of(refused, dialect or Dialect.GEMINI)))


def stream_of(status: int, headers: Headers, paths: tuple[str, ...], *, is_metered: bool) -> AnswerStream | None:
    """Return how to cut the response to a request for one of these paths; None if it is no stream.

    Only where tokens are counted, JSON may be a stream.
    """
    if is_event_stream(headers):
        return EventStream()
    if not is_metered or not 200 <= status < 300 or not _is_readable(headers):
        return None
    if media_type(headers) in LINES:
        return JsonLines()
    if media_type(headers) == "application/json" and any(path.endswith(STREAMED_ARRAY) for path in paths):
        return ArrayElements()
    return None


def _is_readable(headers: Headers) -> bool:
    return all(name != b"content-encoding" or value.lower() == b"identity" for name, value in headers)
