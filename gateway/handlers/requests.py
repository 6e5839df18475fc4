"""Reads requests: the body, the query string and the idempotency key, by one rule for all handlers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qsl

from gateway.call import Call
from gateway.policies.json_body import require_plain
from gateway.refusals import Reason, Refused
from gateway.side_thread import INLINE_MAX_BYTES
from gateway.wire.strict_json import parse

QUERY_FIELDS_MAX = 100
IDEMPOTENCY_KEY_MAX_CHARS = 255
OBJECT_MAX_BYTES = INLINE_MAX_BYTES
"""The objects of these handlers are small; parsing one of this size holds up nobody."""


async def read_body(call: Call, max_bytes: int | None = None) -> bytes:
    """Read the whole body. Raises Refused ``too-large`` past its limit, which ``max_bytes`` may lower."""
    if max_bytes is not None:
        call.peer.body_max_bytes = min(call.peer.body_max_bytes, max_bytes)
    body: bytes = await call.peer.read_all()
    return body


async def read_object(call: Call) -> tuple[dict[str, Any], int]:
    """Read a small JSON object, or an empty one from an empty body, and its length in bytes. Raises Refused."""
    require_plain(call)
    body = await read_body(call, OBJECT_MAX_BYTES)
    value = parse(body) if body else {}
    if not isinstance(value, dict):
        raise Refused(Reason.INVALID_REQUEST, "The body must be a JSON object.")
    return value, len(body)


def query_pairs(call: Call) -> list[tuple[str, str]]:
    """Parse the query string. Raises Refused where it is not URL-encoded UTF-8, or has too many fields."""
    try:
        return parse_qsl(
            call.query.decode("ascii"), keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX, errors="strict"
        )
    except ValueError:
        raise Refused(Reason.INVALID_REQUEST, "The query string is not valid.") from None


def whole_number(name: str, text: str, most: int) -> int:
    """Return the value of a query parameter that is a whole number from 1 to ``most``. Raises Refused."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
        raise Refused(Reason.INVALID_REQUEST, f"`{name}` is a whole number from 1 to {most}.")
    return int(text)


def query_lists(call: Call, names: Collection[str], repeatable: Collection[str] = ()) -> dict[str, list[str]]:
    """Return the values of each of these query parameters.

    Raises Refused for a parameter of another name, which would be ignored, and for one that is repeated or empty.
    """
    values: dict[str, list[str]] = {name: [] for name in names}
    for name, value in query_pairs(call):
        if name not in values:
            raise Refused(Reason.INVALID_REQUEST, f"Unknown query parameter {name[:40]!r}.")
        if values[name] and name not in repeatable:
            raise Refused(Reason.INVALID_REQUEST, f"The query parameter `{name}` is repeated.")
        if not value.strip():
            raise Refused(Reason.INVALID_REQUEST, f"The query parameter `{name}` is empty; leave it out.")
        values[name].append(value)
    return values


def query_values(call: Call, names: Collection[str]) -> dict[str, str]:
    """Return the value of each of these query parameters that is present. Raises Refused as :func:`query_lists`."""
    return {name: values[0] for name, values in query_lists(call, names).items() if values}


def require_no_query(call: Call) -> None:
    """Raise Refused for any query parameter: ignored, it could promise what the call does not do."""
    if call.query:
        query_lists(call, ())


def idempotency_key(call: Call) -> str | None:
    """Return the ``Idempotency-Key``, None without the header. Raises Refused for an empty or too long key.

    The key may be a string of RFC 8941 or bare: ``"k"`` and ``k`` are the same key.
    """
    header = call.header(b"idempotency-key")
    if header is None:
        return None
    key = header.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not 0 < len(key) <= IDEMPOTENCY_KEY_MAX_CHARS:
        raise Refused(Reason.INVALID_REQUEST, f"An idempotency key has 1 to {IDEMPOTENCY_KEY_MAX_CHARS} characters.")
    return key
