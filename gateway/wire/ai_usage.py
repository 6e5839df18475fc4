"""Tokens of calls to AI models, as OpenAI, Anthropic, Gemini and Ollama write them: requested, generated and used.

Requests are chat completions, completions, responses and embeddings of OpenAI, messages of Anthropic, contents and
interactions of Gemini, and chats, prompts and embeddings of Ollama. Responses are their JSON, and the units of their
streams. Tokens that are not reported are estimated as one for each ``BYTES_A_TOKEN`` bytes of UTF-8.
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

_MAXIMA = ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "num_predict")
_CHOICES = ("n", "best_of", "candidateCount", "candidate_count")
_SETTINGS = ("generationConfig", "generation_config", "options")
"""Members that hold the maxima of Gemini and Ollama."""
_PROMPTS = ("messages", "prompt", "input")
_CONTENTS = ("contents", "content", "requests")
"""Members with the prompts of Gemini, which names the model in the path."""
_CONTEXT = (
    "system", "instructions", "tools", "functions", "response_format", "text", "images", "suffix", "systemInstruction",
    "system_instruction",
)  # fmt: skip
"""Members that models read in addition to the prompt."""
_MEDIA = frozenset({"data", "file_data", "image_url", "b64_json", "fileUri", "file_uri"})
_GENERATED = frozenset(
    {
        "content", "text", "refusal", "reasoning", "reasoning_content", "thinking", "partial_json", "arguments", "name",
        "tool_calls", "function_call", "function", "delta", "input", "output", "summary", "message", "response",
        "parts", "functionCall", "args", "executableCode", "code", "codeExecutionResult",
    }
)  # fmt: skip
"""Members of a response that contain generated text, at any depth."""
_ANY = frozenset({"arguments", "args"})
"""Members of which everything is generated, as Ollama and Gemini have them: an object, not its text."""
_IN = ("prompt_tokens", "input_tokens", "total_input_tokens")
_CACHED_IN = ("cache_creation_input_tokens", "cache_read_input_tokens")
"""Anthropic reports these in addition to ``input_tokens``, OpenAI includes them."""
_OUT = ("completion_tokens", "output_tokens", "total_output_tokens")
_METADATA = ("usageMetadata", "usage_metadata")
_TOOLS_IN, _THOUGHTS_OUT = "total_tool_use_tokens", "total_thought_tokens"
"""Gemini's interactions report these in addition to the totals."""


_HOLDERS = ("message", "response", "interaction")
"""Members of an event that hold a report of usage, as the response itself does."""


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
    names = _PROMPTS if _is_conversation(document) or "model" in document else ()
    names = (*names, *(name for name in _CONTENTS if _has_parts(document.get(name))))
    if not any(name in document for name in names):
        return None
    prompt = {name: document[name] for name in (*names, *_CONTEXT) if name in document}
    return ModelRequest(_prompt_tokens(prompt), _maximum(document))


def parse_usage(body: bytes) -> Usage | None:
    """Return the usage that a JSON response reports, or an estimate of its text; None if no model generated it."""
    document = _object(body)
    if document is None:
        return _usage_of_array(body)
    usage = _usage(document)
    if usage is not None:
        return usage
    generated = [document[name] for name in ("choices", "content", "output") if isinstance(document.get(name), list)]
    generated += _candidates(document)
    if not generated:
        return None
    return Usage(None, estimate_tokens(sum(_generated_bytes(each) for each in generated)))


def _usage_of_array(body: bytes) -> Usage | None:
    """Return the usage of a stream of Gemini that is one JSON array, read whole."""
    elements = _parsed(body, b"[")
    if not isinstance(elements, list):
        return None
    counter = TokenCounter(None)
    is_model = False
    for element in elements:
        is_model = (isinstance(element, dict) and counter.add(element)) or is_model
    return Usage(counter.tokens_in, counter.tokens_out) if is_model or counter.tokens_in is not None else None


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
        return document is not None and self.add(document)

    def add(self, document: Mapping[str, Any]) -> bool:
        """Count one unit of a stream and return whether it contains generated text."""
        deltas = [bytes_ for bytes_ in _delta_bytes(document) if bytes_]
        self._deltas += len(deltas)
        self._bytes += sum(deltas)
        for holder in (document, *(document.get(name) for name in _HOLDERS)):
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
    document = _parsed(body, b"{")
    return document if isinstance(document, dict) else None


def _parsed(body: bytes, bracket: bytes) -> Any:
    """Return the JSON of a text that begins with this bracket; None if it is none, or too costly to parse."""
    if body[:1] != bracket and body.lstrip()[:1] != bracket:
        return None
    if has_more_parts(body, PARTS_MAX):
        return None
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _has_parts(value: Any) -> bool:
    """Return whether a value is a content of Gemini, or a list with one or with requests that hold one."""
    if isinstance(value, list):
        return any(_has_parts(each) for each in value if isinstance(each, dict))
    return isinstance(value, dict) and ("parts" in value or isinstance(value.get("content"), dict))


def _is_conversation(document: Mapping[str, Any]) -> bool:
    messages = document.get("messages")
    return isinstance(messages, list) and any(isinstance(message, dict) and "role" in message for message in messages)


def _maximum(document: Mapping[str, Any]) -> int | None:
    holders = [holder for holder in (document, *map(document.get, _SETTINGS)) if isinstance(holder, dict)]
    maxima = [most for holder in holders for name in _MAXIMA if (most := _count(holder.get(name)))]
    if not maxima:
        return None
    choices = max([1, *(_count(holder.get(name)) for holder in holders for name in _CHOICES)])
    most = max(maxima) * choices
    return most if most < TOKENS_MAX else None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _usage(document: Mapping[str, Any]) -> Usage | None:
    usage = document.get("usage")
    if not isinstance(usage, dict):
        return _usage_of_gemini(document) or _reported(document, ("prompt_eval_count",), ("eval_count",))
    reported = _reported(usage, _IN, _OUT)
    if reported is None:
        return None
    tokens_in, tokens_out = reported.tokens_in, reported.tokens_out
    if tokens_in is not None and "prompt_tokens" not in usage:
        tokens_in += sum(_count(usage.get(name)) for name in (*_CACHED_IN, _TOOLS_IN))
    if tokens_out is not None:
        tokens_out += _count(usage.get(_THOUGHTS_OUT))
    return Usage(tokens_in, tokens_out)


def _usage_of_gemini(document: Mapping[str, Any]) -> Usage | None:
    """Return what ``usageMetadata`` reports. Cached tokens are part of the prompt; tools and thoughts come on top."""
    metadata = next((found for name in _METADATA if isinstance(found := document.get(name), dict)), None)
    if metadata is None:
        return None
    prompt, tools, candidates, thoughts = (
        _first(metadata, (name, _snake(name)))
        for name in ("promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
    )
    tokens_in = None if prompt is None and tools is None else (prompt or 0) + (tools or 0)
    tokens_out = None if candidates is None and thoughts is None else (candidates or 0) + (thoughts or 0)
    return Usage(tokens_in, tokens_out) if (tokens_in, tokens_out) != (None, None) else None


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _reported(usage: Mapping[str, Any], names_in: tuple[str, ...], names_out: tuple[str, ...]) -> Usage | None:
    tokens_in, tokens_out = _first(usage, names_in), _first(usage, names_out)
    return None if tokens_in is None and tokens_out is None else Usage(tokens_in, tokens_out)


def _first(usage: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return min(max(value, 0), TOKENS_MAX)
    return None


def _prompt_tokens(prompt: Mapping[str, Any]) -> int:
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
            for name, member in value.items():
                if media := _media(name, member):
                    tokens += media * MEDIUM_TOKENS
                else:
                    waiting.append(member)
        elif isinstance(value, list):
            waiting += value
        else:
            tokens += isinstance(value, int) and not isinstance(value, bool)
    return max(1, estimate_tokens(text_bytes) + tokens)


def _media(name: str, value: Any) -> int:
    """Return how many images, sounds or files a member holds: one, or Ollama's list of images."""
    if name == "images" and isinstance(value, list):
        return sum(isinstance(image, str) for image in value)
    return int(name in _MEDIA and isinstance(value, str))


def _delta_bytes(document: Mapping[str, Any]) -> list[int]:
    """Return the size of each delta: one for each choice (OpenAI, Gemini), or one (responses, Anthropic, Ollama)."""
    choices = document.get("choices")
    if isinstance(choices, list):
        return [
            _generated_bytes(choice.get("delta") or choice.get("text"))
            for choice in choices
            if isinstance(choice, dict)
        ]
    type_ = document.get("type") or document.get("event_type")
    if isinstance(type_, str) and type_.endswith(("_delta", ".delta")) and type_ != "message_delta":
        return [_generated_bytes(document.get("delta"))]
    return [_generated_bytes(each) for each in _candidates(document)]


def _candidates(document: Mapping[str, Any]) -> list[Any]:
    """Return what Gemini (each candidate) or Ollama (one message, or one text) has generated."""
    candidates = document.get("candidates")
    if isinstance(candidates, list):
        return [each.get("content") for each in candidates if isinstance(each, dict)]
    if "done" in document and ("message" in document or "response" in document):
        return [{name: document.get(name) for name in ("message", "response", "thinking")}]
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
            for name, member in value.items():
                if name in _ANY and isinstance(member, dict):
                    bytes_ += len(orjson.dumps(member))
                elif name in _GENERATED:
                    waiting.append(member)
    return bytes_


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
