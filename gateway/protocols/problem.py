"""Refusals as HTTP responses."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson

from gateway.call import Call
from gateway.handlers.proxy.dialect import dialect_of_call
from gateway.refusals import Refused
from gateway.wire.ai_dialects import error_of, media_type_of, wants_problem
from gateway.wire.header_fields import Headers, lines_of


def render(refused: Refused) -> tuple[Headers, bytes]:
    """Return a refusal as HTTP: its headers, and its problem details as the body (RFC 9457)."""
    return _rendered(refused.http_headers(), refused.problem())


def render_for(call: Call, refused: Refused) -> tuple[Headers, bytes]:
    """Return a refusal as ``render`` does, or as the libraries of the AI dialect that the call speaks print it."""
    dialect = dialect_of_call(call)
    if dialect is None or wants_problem(call.headers):
        return render(refused)
    request_id = call.traceparent.split("-")[1] if call.traceparent else None
    type_ = (b"content-type", media_type_of(dialect).encode())
    headers = [type_ if header[0] == b"content-type" else header for header in refused.http_headers()]
    return _rendered(headers, error_of(refused, dialect, request_id))


def closing(refused: Refused) -> bytes:
    """Return a refusal as the last bytes of an HTTP/1.1 connection."""
    headers, body = render(refused)
    status_line = f"HTTP/1.1 {refused.status} {HTTPStatus(refused.status).phrase}\r\n".encode()
    return b"%b%bconnection: close\r\n\r\n%b" % (status_line, lines_of(headers), body)


def _rendered(headers: Headers, document: dict[str, Any]) -> tuple[Headers, bytes]:
    body = orjson.dumps(document)
    return [*headers, (b"content-length", str(len(body)).encode())], body
