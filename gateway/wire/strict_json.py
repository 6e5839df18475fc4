"""Strict JSON within bounds: parsing, serializing and JSON Pointers."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NoReturn

import orjson

from gateway.refusals import Reason, Refused

DEPTH_MAX = 64
DIGITS_MAX = 400
DETAIL_MAX_CHARS = 300
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_LONG_NUMBER = re.compile(rb"[0-9.eE+-]+")
_BEYOND_64_BITS = re.compile(rb"[0-9]{18}")


class DuplicateMember(ValueError):
    """An object has two members of the same name."""


def parse(data: bytes | str, *, depth_max: int = DEPTH_MAX, digits_max: int = DIGITS_MAX) -> Any:
    """Parse JSON text. Raises Refused ``invalid-payload`` if it is not strict JSON or exceeds a bound.

    NaN and Infinity, duplicate members, lone surrogates and invalid UTF-8 are refused. Integers keep all their digits.
    """
    raw = data.encode(errors="surrogatepass") if isinstance(data, str) else data
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        fail(f"The payload is not valid JSON: {error}.")
    bare = _STRING.sub(b"", raw)
    if bare.count(b"[") + bare.count(b"{") > depth_max and _depth(bare) > depth_max:
        fail(f"The payload is nested more than {depth_max} levels deep.")
    if len(bare) > digits_max and any(len(number) > digits_max for number in _LONG_NUMBER.findall(bare)):
        fail(f"A number of the payload has more than {digits_max} digits.")
    members = bare.count(b":")
    is_flat = isinstance(value, dict) and len(value) == members
    if (members > 1 and not is_flat) or _BEYOND_64_BITS.search(bare):
        return _parse_exactly(raw)
    return value


def dump(value: Any) -> bytes:
    """Return a value of :func:`parse` as compact JSON, with every digit of its integers."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def pointer(path: list[str | int]) -> str:
    """Return a path as a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def fail(detail: str, at: str = "") -> NoReturn:
    """Raise Refused ``invalid-payload`` for an error at a JSON Pointer."""
    raise Refused(Reason.INVALID_PAYLOAD, detail, members={"pointer": at})


def _parse_exactly(raw: bytes) -> Any:
    """Parse well-formed JSON, refusing duplicate members and keeping every digit of integers."""
    try:
        return _EXACT.decode(raw.decode())
    except DuplicateMember as error:
        fail(f"The payload has the member {shortened(str(error))!r} twice in one object.")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise DuplicateMember(next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1))
    return members


_EXACT = json.JSONDecoder(object_pairs_hook=_members)


def _depth(bare: bytes) -> int:
    deepest = depth = 0
    for char in bare:
        if char in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in b"]}":
            depth -= 1
    return deepest


def shortened(text: str) -> str:
    """Return a text cut to ``DETAIL_MAX_CHARS`` characters, ending in an ellipsis if it was longer."""
    return text if len(text) <= DETAIL_MAX_CHARS else text[: DETAIL_MAX_CHARS - 1] + "…"
