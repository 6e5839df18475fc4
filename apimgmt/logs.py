"""Formats logs as JSON lines, with secrets redacted and control characters escaped."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from typing import Any

import orjson

from gateway.concurrency.log_throttle import LogThrottle

REDACTED = "[redacted]"
TEXT_MAX_CHARS = 16 * 1024
STRANGERS_MAX_CHARS = 300
_SECRETS = re.compile(
    r"apim_(?P<key>[0-9A-Za-z]{12})_[0-9A-Za-z]+"
    r"|tickr?_[\w-]+|whsec_[\w+/=-]+|eyJ[\w-]+\.eyJ[\w-]+\.[\w-]*"
    r"|(?i:(?P<scheme>bearer|token|basic)\s+)[\w.~+/=-]{8,}"
    r"|(?P<user>://[^:/@\s]*):[^@/\s]+@"
)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators and bidirectional overrides."""


def redacted(text: str) -> str:
    """Redact keys (except their public id), tickets, tokens and passwords in URLs."""
    return _SECRETS.sub(_replacement, text)


def _replacement(match: re.Match[str]) -> str:
    if match["key"]:
        return f"apim_{match['key']}_{REDACTED}"
    if match["user"] is not None:
        return f"{match['user']}:{REDACTED}@"
    return f"{match['scheme']} {REDACTED}" if match["scheme"] else REDACTED


def _sanitized(text: str) -> str:
    """Return a text that is safe to log: bounded, redacted, and without control characters except line feeds."""
    if len(text) > TEXT_MAX_CHARS:
        text = f"{text[:TEXT_MAX_CHARS]}… ({len(text)} characters)"
    return _CONTROL.sub(lambda match: "\n" if match[0] == "\n" else f"\\u{ord(match[0]):04x}", redacted(text))


class StrangersLines(logging.Filter):
    """Keeps what strangers cause short and rare: Django's security warnings, each kind once a minute, are no errors."""

    def __init__(self) -> None:
        super().__init__()
        self._throttle = LogThrottle()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record."""
        if not record.name.startswith("django.security"):
            return True
        suffix = self._throttle.suffix(record.name)
        if suffix is None:
            return False
        record.levelno, record.levelname, record.exc_info = logging.WARNING, "WARNING", None
        record.msg, record.args = record.getMessage()[:STRANGERS_MAX_CHARS] + suffix, ()
        return True


class JsonFormatter(logging.Formatter):
    """Formats each record as a JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _sanitized(record.getMessage()),
        }
        if traceparent := getattr(record, "traceparent", None):
            fields["trace_id"] = traceparent.split("-")[1]
        if record.exc_info:
            fields["exception"] = _sanitized(self.formatException(record.exc_info))
        return orjson.dumps(fields).decode()
