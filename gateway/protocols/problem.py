"""Refusals as HTTP responses."""

from __future__ import annotations

import orjson

from gateway.refusals import Refused
from gateway.wire.header_fields import Headers


def render(refused: Refused) -> tuple[Headers, bytes]:
    """Return a refusal as HTTP: its headers, and its problem details as the body (RFC 9457)."""
    body = orjson.dumps(refused.problem())
    return [*refused.http_headers(), (b"content-length", str(len(body)).encode())], body
