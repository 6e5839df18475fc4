"""Refusals as HTTP responses."""

from __future__ import annotations

from http import HTTPStatus

import orjson

from gateway.refusals import Refused
from gateway.wire.header_fields import Headers


def render(refused: Refused) -> tuple[Headers, bytes]:
    """Return a refusal as HTTP: its headers, and its problem details as the body (RFC 9457)."""
    body = orjson.dumps(refused.problem())
    return [*refused.http_headers(), (b"content-length", str(len(body)).encode())], body


def closing(refused: Refused) -> bytes:
    """Return a refusal as the last bytes of an HTTP/1.1 connection."""
    headers, body = render(refused)
    lines = [f"HTTP/1.1 {refused.status} {HTTPStatus(refused.status).phrase}\r\n".encode()]
    lines += [b"%b: %b\r\n" % header for header in headers]
    return b"".join([*lines, b"connection: close\r\n\r\n", body])
