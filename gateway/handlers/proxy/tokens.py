"""Meters the tokens of one AI call: reserved before it is sent, counted as the answer arrives, corrected at its end.

Only ``POST`` calls of principals with token limits are metered (docs/limits.md, Tokens).
"""

from __future__ import annotations

import contextlib
from enum import Enum
from typing import TYPE_CHECKING

from gateway.call import Call
from gateway.handlers.proxy.dialect import dialect_of_call
from gateway.refusals import Refused
from gateway.wire.ai_dialects import openai_error
from gateway.wire.ai_usage import (
    ModelRequest,
    TokenCounter,
    Usage,
    estimate_tokens,
    parse_model_request,
    parse_usage,
)
from gateway.wire.event_stream import media_type
from gateway.wire.header_fields import Headers

if TYPE_CHECKING:
    from gateway.plane import Plane

ANSWER_MAX_BYTES = 4 * 1024 * 1024
"""A JSON answer up to this size is parsed for its usage; a larger one is estimated."""
TAKEN_FOR_JSON = frozenset({"", "text/plain", "application/x-www-form-urlencoded"})
"""Ollama and others read JSON whatever its type, such as that of ``curl -d``."""
ONLY_COUNTING = ("/count_tokens", ":countTokens")
"""Ends of paths at which tokens are counted and none are used."""
IDENTITY_ENCODING = (b"accept-encoding", b"identity")


class Kind(Enum):
    """The kind of the answer."""

    NOTHING = 0
    """None yet, or nothing that a model wrote."""
    FAILURE = 1
    STREAM = 2
    JSON = 3
    TEXT = 4


class Metering:
    """The tokens of one call."""

    def __init__(self, plane: Plane, call: Call, request: ModelRequest | None) -> None:
        self._plane = plane
        self._call = call
        self._request = request
        self.reservation = plane.limiter.unreserved(call)
        self._kind = Kind.NOTHING
        self._counting = TokenCounter(request.tokens_out if request is not None else None)
        self._brings = False
        self._passed = 0
        """Tokens of the events passed on so far."""
        self._usage: Usage | None = None
        """What a JSON answer reports, once it was read."""
        self._answer = bytearray()
        self._answer_bytes = 0

    @classmethod
    async def begin(cls, plane: Plane, call: Call) -> Metering:
        """Read the request and reserve the tokens that it may use. Raises Refused and ClientGone."""
        body = await call.peer.read_all() if _may_be_json(call) else b""
        # A compressed answer could not be parsed.
        call.headers = [*(header for header in call.headers if header[0] != IDENTITY_ENCODING[0]), IDENTITY_ENCODING]
        request = await plane.side_threads.run(call.caller.consumer, len(body), parse_model_request, body)
        metering = cls(plane, call, request)
        if request is not None:
            try:
                metering.reservation = await plane.limiter.reserve(
                    call, tokens_in=request.tokens_in, tokens_out=request.tokens_out
                )
            except Refused as refused:
                # Many APIs imitate OpenAI's, and so do their libraries.
                refused.members = {**refused.members, "error": openai_error(refused)}
                raise
        return metering

    def answered(self, status: int, headers: Headers, *, is_stream: bool) -> None:
        """Note the head of the answer."""
        if not 200 <= status < 300:
            self._kind = Kind.FAILURE
        elif is_stream:
            self._kind = Kind.STREAM
        elif _is_readable_json(headers):
            self._kind = Kind.JSON
        elif media_type(headers).startswith("text/") or media_type(headers).endswith("json"):
            self._kind = Kind.TEXT

    def failed(self) -> None:
        """Note that the upstream did not answer."""
        if self._kind is Kind.NOTHING:
            self._kind = Kind.FAILURE

    def count_event(self, data: bytes) -> None:
        """Count the tokens in the data of one event, or another unit of a stream."""
        self._brings = self._counting.add_event(data)

    @property
    def due(self) -> int:
        """The tokens to charge before the event counted last may be passed on.

        An event without content, which only reports the usage, is never delayed.
        """
        return max(0, self._counting.tokens_out - self.reservation.tokens_out) if self._brings else 0

    def event_passed(self) -> None:
        """Note that the event counted last was passed on."""
        self._passed = self._counting.tokens_out

    def count_part(self, part: bytes) -> None:
        """Count a part of an answer that is not an event stream."""
        self._answer_bytes += len(part)
        if self._kind is Kind.JSON:
            self._answer += part
            if len(self._answer) > ANSWER_MAX_BYTES:
                self._answer.clear()
                self._kind = Kind.TEXT

    async def read_usage(self) -> None:
        """Read what a JSON answer reports, whatever became of the call; without it, the answer is estimated."""
        if self._kind is Kind.JSON:
            run, consumer = self._plane.side_threads.run, self._call.caller.consumer
            with contextlib.suppress(Refused):
                self._usage = await run(consumer, len(self._answer), parse_usage, bytes(self._answer))

    def settle(self) -> None:
        """Replace the reservation by what was used, whatever became of the call."""
        tokens_in, tokens_out = self._used()
        self._plane.limiter.correct(self.reservation, tokens_in=tokens_in, tokens_out=tokens_out)

    def _used(self) -> tuple[int, int]:
        prompt = self._request.tokens_in if self._request is not None else 0
        if self._kind is Kind.FAILURE:
            return 0, 0
        if self._kind is Kind.STREAM:
            reported = self._counting.tokens_in
            return prompt if reported is None else reported, self._passed
        usage = self._usage
        if usage is not None:
            return prompt if usage.tokens_in is None else usage.tokens_in, usage.tokens_out or 0
        if self._request is None or self._kind is Kind.NOTHING:
            return prompt, 0
        return prompt, estimate_tokens(self._answer_bytes)


def is_metered(call: Call) -> bool:
    """Return whether the caller has token limits that this call may use."""
    budget = call.budget
    if budget is None or not (budget.tokens_in or budget.tokens_out) or call.method != "POST":
        return False
    return not call.address.endswith(ONLY_COUNTING)


def _may_be_json(call: Call) -> bool:
    """Return whether the body may be a request to a model: JSON, by whatever name a known API takes it."""
    if _is_readable_json(call.headers):
        return True
    is_form = media_type(call.headers) in TAKEN_FOR_JSON
    return is_form and call.header(b"content-encoding") is None and dialect_of_call(call) is not None


def _is_readable_json(headers: Headers) -> bool:
    type_ = media_type(headers)
    if type_ != "application/json" and not type_.endswith("+json"):
        return False
    return all(name != b"content-encoding" or value.lower() == b"identity" for name, value in headers)
