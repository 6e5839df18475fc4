"""The dialects of APIs of AI models: which one a caller speaks, and how it writes an error.

The libraries of these APIs print the message of an error only where they look for it, so a refusal takes their shape.
Members of problem details (RFC 9457) stay beside it where the shape has no other use for their names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

from gateway.refusals import Refused
from gateway.wire.header_fields import Headers


class Dialect(Enum):
    """Whose API a caller speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"
    OLLAMA = "ollama"


PROBLEM = "application/problem+json"
_BY_HEADER = {
    b"anthropic-version": Dialect.ANTHROPIC, b"x-goog-api-client": Dialect.GEMINI, b"x-goog-api-key": Dialect.GEMINI,
    b"x-stainless-lang": Dialect.OPENAI,
}  # fmt: skip
"""Headers that the libraries send. Anthropic's, which precede the last one, send that, too."""
_BY_AGENT = ((b"openai/", Dialect.OPENAI), (b"anthropic/", Dialect.ANTHROPIC), (b"ollama", Dialect.OLLAMA))
_BY_PATH = (
    (re.compile(r":(?:g|streamG)enerateContent$|:(?:batch)?[eE]mbedContents?$|:countTokens$"), Dialect.GEMINI),
    (re.compile(r"/api/(?:chat|generate|embed|embeddings)$"), Dialect.OLLAMA),
    (re.compile(r"/v1/(?:messages(?:/count_tokens|/batches.*)?|complete)$"), Dialect.ANTHROPIC),
    (
        re.compile(
            r"/(?:(?:chat/)?completions|responses|embeddings|moderations|images/(?:generations|edits|variations)"
            r"|audio/(?:speech|transcriptions|translations))$"
        ),
        Dialect.OPENAI,
    ),
)
_ANTHROPIC_TYPES = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large",
    429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_GEMINI_STATUSES = {
    401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 409: "ABORTED", 429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL", 501: "UNIMPLEMENTED", 502: "UNAVAILABLE", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip
_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


def dialect_of(paths: tuple[str, ...], headers: Headers) -> Dialect | None:
    """Return the dialect of a request: of the library that sends it, else of the first path that has one; or None."""
    agent = b""
    found: dict[bytes, Dialect] = {}
    for name, value in headers:
        if name in _BY_HEADER:
            found[name] = _BY_HEADER[name]
        elif name == b"user-agent":
            agent = value.lower()
    for name, dialect in _BY_HEADER.items():
        if name in found:
            return dialect
    for prefix, dialect in _BY_AGENT:
        if agent.startswith(prefix):
            return dialect
    return next((dialect for path in paths for shape, dialect in _BY_PATH if shape.search(path)), None)


def is_operation(path: str) -> bool:
    """Return whether a path is that of an operation of a model, in any dialect."""
    return any(shape.search(path) for shape, _ in _BY_PATH)


def wants_problem(headers: Headers) -> bool:
    """Return whether a request asks for problem details, whatever its dialect."""
    return any(name == b"accept" and PROBLEM.encode() in value.lower() for name, value in headers)


def error_of(refused: Refused, dialect: Dialect, request_id: str | None = None) -> dict[str, Any]:
    """Return the document in which the libraries of a dialect find the message of a refusal."""
    problem = refused.problem()
    problem.pop("error", None)
    if dialect is Dialect.OPENAI:
        return {**problem, "error": openai_error(refused)}
    if dialect is Dialect.ANTHROPIC:
        type_ = _ANTHROPIC_TYPES.get(refused.status) or _by_class(refused, "api_error")
        error = {"type": type_, "message": refused.detail}
        return {**problem, "type": "error", "error": error, "request_id": request_id}
    if dialect is Dialect.GEMINI:
        # Google's library reads a `status` beside `error` first, and knows an error in a stream by its first member.
        del problem["status"]
        return {"error": _gemini(refused), **problem}
    return {"error": refused.detail, **problem}


def media_type_of(dialect: Dialect) -> str:
    """Return the media type of errors: OpenAI's are still problem details; JavaScript libraries want JSON by name."""
    return PROBLEM if dialect is Dialect.OPENAI else "application/json"


def openai_error(refused: Refused) -> Mapping[str, Any]:
    """Return the member ``error`` that OpenAI's libraries read, and those of other vendors that imitate it."""
    if refused.reason.value == "quota-exceeded":
        type_ = "insufficient_quota"
    else:
        type_ = _OPENAI_TYPES.get(refused.status) or _by_class(refused, "server_error")
    pointer = refused.members.get("pointer")
    return {"message": refused.detail, "type": type_, "param": pointer or None, "code": refused.reason.value}


def _gemini(refused: Refused) -> Mapping[str, Any]:
    status = _GEMINI_STATUSES.get(refused.status) or ("INVALID_ARGUMENT" if refused.status < 500 else "INTERNAL")
    error: dict[str, Any] = {"code": refused.status, "message": refused.detail, "status": status}
    if refused.retry_after_s is not None:
        error["details"] = [{"@type": _RETRY_INFO, "retryDelay": f"{refused.retry_after_s:.3f}s"}]
    return error


def _by_class(refused: Refused, fault: str) -> str:
    return "invalid_request_error" if refused.status < 500 else fault
