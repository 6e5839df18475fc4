"""Tokens of calls to AI models, in the formats of OpenAI and Anthropic: requested, generated so far, and used.

Requests are chat completions, completions, responses and embeddings of OpenAI, and messages of Anthropic. Responses are
their JSON and their server-sent events. Tokens that are not reported are estimated as one for each ``BYTES_A_TOKEN``
bytes of UTF-8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.wire.strict_json import fail, has_more_parts

BYTES_A_TOKEN = 4
PARTS_MAX = 300_000
"""Most values, names and brackets of a text that is parsed: room for the token ids of a batch of embeddings."""
MEDIUM_TOKENS = 1024
"""Estimate for an image, a sound or a file in a prompt."""
TOKENS_MAX = 2**40
"""A request for more than this counts as one without a maximum."""

_MAXIMA = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_CHOICES = ("n", "best_of")
_PROMPTS = ("messages", "prompt", "input")
_CONTEXT = ("system", "instructions", "tools", "functions", "response_format", "text")
"""Members that models read in addition to the prompt."""
_MEDIA = frozenset({"data", "file_data", "image_url", "b64_json"})
_GENERATED = frozenset(
    {
        "content", "text", "refusal", "reasoning", "reasoning_content", "thinking", "partial_json", "arguments", "name",
        "tool_calls", "function_call", "function", "delta", "input", "output", "summary", "message",
    }
)  # fmt: skip
"""Members of a response that contain generated text, at any depth."""
_IN = ("prompt_tokens", "input_tokens")
_CACHED_IN = ("cache_creation_input_tokens", "cache_read_input_tokens")
"""Anthropic reports these in addition to ``input_tokens``, OpenAI includes them."""
_OUT = ("completion_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """The tokens that one request to a model needs."""

    tokens_in: int
    """Estimate of the prompt."""
    tokens_out: int | None
    """Maximum of the response, all choices together; None if the request sets none."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as a response reports them; None where it does not."""

    tokens_in: int | None
    tokens_out: int | None


def parse_model_request(body: bytes) -> ModelRequest | None:
    """Return the tokens that a request needs, or None if it is not a request to a model.

    Raises Refused ``invalid-payload`` if it has more than ``PARTS_MAX`` values: passed on, it would not be charged.
    """
    if has_more_parts(body, PARTS_MAX):
        fail(f"A request whose tokens are limited has at most {PARTS_MAX} values, names and brackets.")
    document = _object(body)
    if document is None:
        return None
    if not (_is_conversation(document) or ("model" in document and any(name in document for name in _PROMPTS))):
        return None
    prompt = [document[name] for name in (*_PROMPTS, *_CONTEXT) if name in document]
    return ModelRequest(_prompt_tokens(prompt), _maximum(document))


def parse_usage(body: bytes) -> Usage | None:
    """Return the usage that a JSON response reports, or an estimate of its text; None if no model generated it."""
    document = _object(body)
    if document is None:
        return None
    usage = _usage(document)
    if usage is not None:
        return usage
    generated = [document[name] for name in ("choices", "content", "output") if isinstance(document.get(name), list)]
    if not generated:
        return None
    return Usage(None, estimate_tokens(sum(_generated_bytes(each) for each in generated)))


def estimate_tokens(text_bytes: int) -> int:
    """Return an estimate of the tokens of a text of this size."""
    return -(-text_bytes // BYTES_A_TOKEN)


class TokenCounter:
    """Counts the tokens of one streamed response, event by event."""

    __slots__ = ("_bytes", "_deltas", "_most", "_reported", "tokens_in")

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._reported = 0
        """The last count that the response itself reported."""
        self._deltas = 0
        self._bytes = 0
        self.tokens_in: int | None = None

    @property
    def tokens_out(self) -> int:
        """The tokens generated so far: the last reported count, plus an estimate of what followed it.

        The estimate is the larger of one token for each delta and the bytes of text. The bytes alone never exceed a
        requested maximum: the upstream enforces it, and a high estimate must not cut a response that was paid for.
        """
        by_bytes = estimate_tokens(self._bytes)
        if self._most is not None:
            by_bytes = min(by_bytes, max(0, self._most - self._reported))
        return self._reported + max(self._deltas, by_bytes)

    def add_event(self, data: bytes) -> bool:
        """Count the data of one event and return whether it contains generated text.

        Data that is not JSON, such as ``[DONE]``, counts nothing.
        """
        document = _object(data)
        if document is None:
            return False
        deltas = [bytes_ for bytes_ in _delta_bytes(document) if bytes_]
        self._deltas += len(deltas)
        self._bytes += sum(deltas)
        for holder in (document, document.get("message"), document.get("response")):
            usage = _usage(holder) if isinstance(holder, dict) else None
            if usage is not None:
                self._report(usage)
        return bool(deltas)

    def _report(self, usage: Usage) -> None:
        if usage.tokens_in is not None:
            self.tokens_in = usage.tokens_in
        if usage.tokens_out is not None:
            self._reported, self._deltas, self._bytes = usage.tokens_out, 0, 0


def _object(body: bytes) -> dict[str, Any] | None:
    if body[:1] != b"{" and body.lstrip()[:1] != b"{":
        return None
    if has_more_parts(body, PARTS_MAX):
        return None
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def _is_conversation(document: Mapping[str, Any]) -> bool:
    messages = document.get("messages")
    return isinstance(messages, list) and any(isinstance(message, dict) and "role" in message for message in messages)


def _maximum(document: Mapping[str, Any]) -> int | None:
    maxima = [most for name in _MAXIMA if (most := _count(document.get(name)))]
    if not maxima:
        return None
    choices = max([1, *(count for name in _CHOICES if (count := _count(document.get(name))))])
    most = max(maxima) * choices
    return most if most < TOKENS_MAX else None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _usage(document: Mapping[str, Any]) -> Usage | None:
    usage = document.get("usage")
    if not isinstance(usage, dict):
        return None
    tokens_in, tokens_out = _first(usage, _IN), _first(usage, _OUT)
    if tokens_in is None and tokens_out is None:
        return None
    if tokens_in is not None and "prompt_tokens" not in usage:
        tokens_in += sum(_count(usage.get(name)) for name in _CACHED_IN)
    return Usage(tokens_in, tokens_out)


def _first(usage: Mapping[str, Any], names: tuple[str, str]) -> int | None:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return min(max(value, 0), TOKENS_MAX)
    return None


def _prompt_tokens(prompt: list[Any]) -> int:
    """Estimate a prompt: its text by bytes, token ids as one each, media as ``MEDIUM_TOKENS``."""
    text_bytes, tokens = 0, 0
    waiting: list[Any] = [prompt]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if value.startswith("data:"):
                tokens += MEDIUM_TOKENS
            else:
                text_bytes += _size(value)
        elif isinstance(value, dict):
            media = sum(name in _MEDIA and isinstance(member, str) for name, member in value.items())
            tokens += media * MEDIUM_TOKENS
            waiting += [m for name, m in value.items() if not (name in _MEDIA and isinstance(m, str))]
        elif isinstance(value, list):
            waiting += value
        else:
            tokens += isinstance(value, int) and not isinstance(value, bool)
    return max(1, estimate_tokens(text_bytes) + tokens)


def _delta_bytes(document: Mapping[str, Any]) -> list[int]:
    """Return the size of each delta of an event: one for each choice (OpenAI), or one (responses, Anthropic)."""
    choices = document.get("choices")
    if isinstance(choices, list):
        return [
            _generated_bytes(choice.get("delta") or choice.get("text"))
            for choice in choices
            if isinstance(choice, dict)
        ]
    type_ = document.get("type")
    if isinstance(type_, str) and type_.endswith(("_delta", ".delta")) and type_ != "message_delta":
        return [_generated_bytes(document.get("delta"))]
    return []


def _generated_bytes(value: Any) -> int:
    """Return the size of the generated text in a value."""
    bytes_ = 0
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            bytes_ += _size(value)
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += [member for name, member in value.items() if name in _GENERATED]
    return bytes_


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
