"""Logs as JSON lines, with secrets struck out and control characters escaped."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from typing import Any

import orjson

STRUCK = "[redacted]"
_SECRETS = re.compile(
    r"apim_([0-9A-Za-z]{12})_[0-9A-Za-z]+|tick_[\w-]+|whsec_[\w+/=-]+|(?i:(bearer|token)\s+)[\w.~+/=-]{8,}"
    r"|(://[^:/@\s]*):[^@/\s]+@"
)


def redacted(text: str) -> str:
    """Strike out keys (their public id stays), tickets, tokens and passwords in URLs."""
    return _SECRETS.sub(_struck, text)


def _struck(match: re.Match[str]) -> str:
    if match[1]:
        return f"apim_{match[1]}_{STRUCK}"
    if match[3]:
        return f"{match[3]}:{STRUCK}@"
    return f"{match[2] or ''}{STRUCK}" if not match[2] else f"{match[2]} {STRUCK}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line; JSON escapes what could break a line or a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        said: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
        }
        if record.exc_info:
            said["exception"] = redacted(self.formatException(record.exc_info))
        return orjson.dumps(said).decode()
