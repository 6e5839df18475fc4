"""Logs as JSON lines, with secrets struck out and control characters escaped."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from typing import Any

import orjson

STRUCK = "[redacted]"
TEXT_MAX_CHARS = 16 * 1024
_SECRETS = re.compile(
    r"apim_(?P<key>[0-9A-Za-z]{12})_[0-9A-Za-z]+"
    r"|tick_[\w-]+|whsec_[\w+/=-]+|eyJ[\w-]+\.eyJ[\w-]+\.[\w-]*"
    r"|(?i:(?P<scheme>bearer|token|basic)\s+)[\w.~+/=-]{8,}"
    r"|(?P<user>://[^:/@\s]*):[^@/\s]+@"
)
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What could break a line, steer a terminal or turn its text round."""


def redacted(text: str) -> str:
    """Strike out keys (their public id stays), tickets, tokens and passwords in URLs."""
    return _SECRETS.sub(_struck, text)


def _struck(match: re.Match[str]) -> str:
    if match["key"]:
        return f"apim_{match['key']}_{STRUCK}"
    if match["user"] is not None:
        return f"{match['user']}:{STRUCK}@"
    return f"{match['scheme']} {STRUCK}" if match["scheme"] else STRUCK


def _shown(text: str) -> str:
    """Give a text as a log may have it: bounded, without secrets, nothing in it unseen but the ends of lines."""
    if len(text) > TEXT_MAX_CHARS:
        text = f"{text[:TEXT_MAX_CHARS]}… ({len(text)} characters)"
    return _UNSEEN.sub(lambda match: "\n" if match[0] == "\n" else f"\\u{ord(match[0]):04x}", redacted(text))


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        said: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _shown(record.getMessage()),
        }
        if traceparent := getattr(record, "traceparent", None):
            said["trace_id"] = traceparent.split("-")[1]
        if record.exc_info:
            said["exception"] = _shown(self.formatException(record.exc_info))
        return orjson.dumps(said).decode()
