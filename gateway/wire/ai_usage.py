"""What AI calls say of tokens, in the shapes of OpenAI and Anthropic: asked at most, said so far, used in the end.

Requests: chat completions, completions, responses and embeddings of OpenAI, messages of Anthropic. Answers: their JSON,
and their server-sent events. Where nothing is said, tokens are estimated: one for ``BYTES_A_TOKEN`` bytes of UTF-8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

BYTES_A_TOKEN = 4
MEDIUM_TOKENS = 1024
"""What an image, a sound or a file inside a prompt is taken for."""
TOKENS_MAX = 2**40
"""No model is asked for more; whoever says so means that there is no maximum."""

_MAXIMA = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_CHOICES = ("n", "best_of")
_PROMPTS = ("messages", "prompt", "input")
_BESIDES = ("system", "instructions", "tools", "functions", "response_format", "text")
"""Members that models read beside the prompt."""
_MEDIA = frozenset({"data", "file_data", "image_url", "b64_json"})
_SAID = frozenset(
    {
        "content", "text", "refusal", "reasoning", "reasoning_content", "thinking", "partial_json", "arguments", "name",
        "tool_calls", "function_call", "function", "delta", "input", "output", "summary", "message",
    }
)  # fmt: skip
"""Members of an answer that models wrote, or that hold some that they wrote."""
_IN = ("prompt_tokens", "input_tokens")
_CACHED_IN = ("cache_creation_input_tokens", "cache_read_input_tokens")
"""Anthropic counts these beside ``input_tokens``, OpenAI counts them within."""
_OUT = ("completion_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class Asked:
    """What one request asks of a model."""

    tokens_in: int
    """The prompt, estimated."""
    tokens_out: int | None
    """The most that the answer may hold, of all choices together; None where the request does not say."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as an answer says them; None where it does not."""

    tokens_in: int | None
    tokens_out: int | None


def asked_of(body: bytes) -> Asked | None:
    """Read a request; None where it is no call of a model."""
    said = _object(body)
    if said is None:
        return None
    if not (_is_conversation(said) or ("model" in said and any(name in said for name in _PROMPTS))):
        return None
    prompt = [said[name] for name in (*_PROMPTS, *_BESIDES) if name in said]
    return Asked(_prompt_tokens(prompt), _most(said))


def used_by(body: bytes) -> Usage | None:
    """Read a whole JSON answer: what it says, else what its text is estimated at; None where no model wrote it."""
    said = _object(body)
    if said is None:
        return None
    usage = _usage(said)
    if usage is not None:
        return usage
    written = [said[name] for name in ("choices", "content", "output") if isinstance(said.get(name), list)]
    if not written:
        return None
    return Usage(None, estimated(sum(_written_bytes(each) for each in written)))


def estimated(bytes_: int) -> int:
    """Estimate the tokens of so many bytes of text."""
    return -(-bytes_ // BYTES_A_TOKEN)


class Counting:
    """Counts the tokens of one streamed answer, event by event."""

    __slots__ = ("_bytes", "_deltas", "_known", "_most", "tokens_in")

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._known = 0
        """What the answer itself last said."""
        self._deltas = 0
        self._bytes = 0
        self.tokens_in: int | None = None

    @property
    def tokens_out(self) -> int:
        """Say how many tokens came so far: as the answer says, and since then a token a delta or as its bytes are.

        Where a maximum was asked, the bytes alone never count beyond it: the upstream keeps to it, and an estimate that
        is too high must not cut an answer that was paid for.
        """
        by_bytes = estimated(self._bytes)
        if self._most is not None:
            by_bytes = min(by_bytes, max(0, self._most - self._known))
        return self._known + max(self._deltas, by_bytes)

    def saw(self, data: bytes) -> bool:
        """Take note of the data of one event; True where it brings something that a model wrote.

        What is no JSON, such as ``[DONE]``, says nothing.
        """
        said = _object(data)
        if said is None:
            return False
        deltas = [bytes_ for bytes_ in _delta_bytes(said) if bytes_]
        self._deltas += len(deltas)
        self._bytes += sum(deltas)
        for holder in (said, said.get("message"), said.get("response")):
            usage = _usage(holder) if isinstance(holder, dict) else None
            if usage is not None:
                self._said(usage)
        return bool(deltas)

    def _said(self, usage: Usage) -> None:
        if usage.tokens_in is not None:
            self.tokens_in = usage.tokens_in
        if usage.tokens_out is not None:
            self._known, self._deltas, self._bytes = usage.tokens_out, 0, 0


def _object(body: bytes) -> dict[str, Any] | None:
    if body[:1] != b"{" and body.lstrip()[:1] != b"{":
        return None
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return said if isinstance(said, dict) else None


def _is_conversation(said: Mapping[str, Any]) -> bool:
    messages = said.get("messages")
    return isinstance(messages, list) and any(isinstance(message, dict) and "role" in message for message in messages)


def _most(said: Mapping[str, Any]) -> int | None:
    maxima = [most for name in _MAXIMA if (most := _count(said.get(name)))]
    if not maxima:
        return None
    choices = max([1, *(count for name in _CHOICES if (count := _count(said.get(name))))])
    most = max(maxima) * choices
    return most if most < TOKENS_MAX else None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _usage(said: Mapping[str, Any]) -> Usage | None:
    usage = said.get("usage")
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
    """Estimate a prompt: its text by its bytes, ids of tokens one each, media as ``MEDIUM_TOKENS``."""
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
    return max(1, estimated(text_bytes) + tokens)


def _delta_bytes(said: Mapping[str, Any]) -> list[int]:
    """Give the size of each delta of an event: one a choice (OpenAI), or one (responses, Anthropic)."""
    choices = said.get("choices")
    if isinstance(choices, list):
        return [
            _written_bytes(choice.get("delta") or choice.get("text")) for choice in choices if isinstance(choice, dict)
        ]
    type_ = said.get("type")
    if isinstance(type_, str) and type_.endswith(("_delta", ".delta")) and type_ != "message_delta":
        return [_written_bytes(said.get("delta"))]
    return []


def _written_bytes(value: Any) -> int:
    """Give the size of what a model wrote in it."""
    bytes_ = 0
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            bytes_ += _size(value)
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += [member for name, member in value.items() if name in _SAID]
    return bytes_


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
