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


class Duplicate(ValueError):
    """An object names a member twice."""


def parse(data: bytes | str, *, depth_max: int = DEPTH_MAX, digits_max: int = DIGITS_MAX) -> Any:
    """Read JSON text. Raises Refused ``invalid-payload`` for what is not strict JSON or exceeds a bound.

    Refused too: NaN and Infinity, members named twice, lone surrogates, bad UTF-8. Numbers keep all their digits.
    """
    raw = data.encode(errors="surrogatepass") if isinstance(data, str) else data
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        fail(f"The payload is not JSON: {error}.")
    bare = _STRING.sub(b"", raw)
    if bare.count(b"[") + bare.count(b"{") > depth_max and _depth(bare) > depth_max:
        fail(f"The payload is nested more than {depth_max} levels deep.")
    if len(bare) > digits_max and any(len(number) > digits_max for number in _LONG_NUMBER.findall(bare)):
        fail(f"A number of the payload has more than {digits_max} digits.")
    members = bare.count(b":")
    is_flat = isinstance(value, dict) and len(value) == members
    if (members > 1 and not is_flat) or _BEYOND_64_BITS.search(bare):
        return _read_exactly(raw)
    return value


def dump(value: Any) -> bytes:
    """Write a value that :func:`parse` gave as compact JSON, with every digit of its integers."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def pointer(path: list[str | int]) -> str:
    """Write a path as a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def fail(detail: str, at: str = "") -> NoReturn:
    """Refuse the payload for a fault at a JSON Pointer."""
    raise Refused(Reason.INVALID_PAYLOAD, detail, members={"pointer": at})


def _read_exactly(raw: bytes) -> Any:
    """Read JSON already known to be well-formed, with members named twice refused and integers whole."""
    try:
        return _EXACT.decode(raw.decode())
    except Duplicate as error:
        fail(f"The payload names the member {shortened(str(error))!r} twice in one object.")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Duplicate(next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1))
    return found


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
    """Cut a text to ``DETAIL_MAX_CHARS`` characters, the last of them an ellipsis if some were lost."""
    return text if len(text) <= DETAIL_MAX_CHARS else text[: DETAIL_MAX_CHARS - 1] + "…"
