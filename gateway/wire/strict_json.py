"""Strict JSON within bounds: parsing, serializing and JSON Pointers.

Every step costs time in proportion to the text, and none holds the interpreter for long: what is large is looked at in
pieces, so that a thread that parses does not stop the others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn

import orjson

from gateway.refusals import Reason, Refused

DEPTH_MAX = 64
DIGITS_MAX = 400
PARTS_MAX = 200_000
"""Most parts of one text: values, and in addition each name of a member, each bracket that opens, and ten escapes."""
ESCAPES_A_PART = 10
DETAIL_MAX_CHARS = 300
PIECE_BYTES = 128 * 1024
DIGITS_OF_64_BITS = 18
"""Integers with fewer digits fit into 64 bits."""


class DuplicateMember(ValueError):
    """An object has two members of the same name."""


def parse(
    data: bytes | str, *, depth_max: int = DEPTH_MAX, digits_max: int = DIGITS_MAX, parts_max: int = PARTS_MAX
) -> Any:
    """Parse JSON text. Raises Refused ``invalid-payload`` if it is not strict JSON or exceeds a bound.

    NaN and Infinity, duplicate members, lone surrogates and invalid UTF-8 are refused. Integers keep all their digits.
    """
    raw = data.encode(errors="surrogatepass") if isinstance(data, str) else data
    bare = _bare(raw, parts_max)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        fail(f"The payload is not valid JSON: {error}.")
    if bare.count(b"[") + bare.count(b"{") > depth_max and _is_deeper(bare, depth_max):
        fail(f"The payload is nested more than {depth_max} levels deep.")
    if len(bare) > digits_max and b"0" * (digits_max + 1) in bare.translate(_NUMBERS):
        fail(f"A number of the payload has more than {digits_max} digits.")
    members = bare.count(b":")
    has_duplicates = members > 1 and not _has_members(value, members) and _member_count(value) != members
    if has_duplicates or (len(bare) >= DIGITS_OF_64_BITS and b"0" * DIGITS_OF_64_BITS in bare.translate(_DIGITS)):
        return _parse_exactly(raw)
    return value


def parse_at(data: bytes, at: str, *, depth_max: int = DEPTH_MAX, digits_max: int = DIGITS_MAX) -> Any:
    """Parse as ``parse`` a part of a larger text; the refusal names the place ``at`` in it, a JSON Pointer."""
    try:
        return parse(data, depth_max=depth_max, digits_max=digits_max)
    except Refused as refused:
        fail(refused.detail, at)


def has_more_parts(raw: bytes, most: int) -> bool:
    """Return whether JSON text has more parts, as ``PARTS_MAX`` counts them; looks no further than necessary."""
    if len(raw) <= most:
        return False
    parts = 1
    for piece, escapes in _outside_strings(raw):
        parts += _part_count(piece, escapes)
        if parts > most:
            return True
    return False


def dump(value: Any) -> bytes:
    """Return a value of :func:`parse` as compact JSON, with every digit of its integers."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def pointer(path: list[str | int]) -> str:
    """Return a path as a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def invalid(detail: str, at: str = "") -> Refused:
    """Return the refusal ``invalid-payload`` for an error at a JSON Pointer."""
    return Refused(Reason.INVALID_PAYLOAD, detail, members={"pointer": at})


def fail(detail: str, at: str = "") -> NoReturn:
    """Raise Refused ``invalid-payload`` for an error at a JSON Pointer."""
    raise invalid(detail, at)


def shortened(text: str) -> str:
    """Return a text cut to ``DETAIL_MAX_CHARS`` characters, ending in an ellipsis if it was longer."""
    return text if len(text) <= DETAIL_MAX_CHARS else text[: DETAIL_MAX_CHARS - 1] + "…"


def _bare(raw: bytes, parts_max: int) -> bytes:
    """Return the text without its strings. Raises Refused once it turns out to have more than ``parts_max`` parts."""
    if len(raw) < min(parts_max, PIECE_BYTES) and b"\\" not in raw:
        return b"".join(raw.split(b'"')[::2])
    pieces, parts = [], 1
    for piece, escapes in _outside_strings(raw):
        pieces.append(piece)
        parts += _part_count(piece, escapes)
        if parts > parts_max:
            fail(f"The payload has too many values, names, brackets or escapes; at most {parts_max} are parsed.")
    return b"".join(pieces)


def _part_count(bare: bytes, escapes: int) -> int:
    return len(bare) - len(bare.translate(None, b",:[{")) + escapes // ESCAPES_A_PART


def _outside_strings(raw: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield what is not in a string, and the number of backslashes, from one piece of the text after the other."""
    is_inside, at = False, 0
    while at < len(raw):
        end = at + PIECE_BYTES
        piece = raw[at:end]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            end += 1
            piece = raw[at:end]  # an escape is never cut in two
        at = end
        escapes = piece.count(b"\\")
        if escapes:
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = piece.split(b'"')
        yield b"".join(parts[is_inside::2]), escapes
        is_inside ^= len(parts) % 2 == 0


def _is_deeper(bare: bytes, depth_max: int) -> bool:
    """Return whether well-formed text is nested more deeply, by taking away the innermost level as often."""
    brackets = bare.translate(_BRACKETS, _NOT_BRACKETS)
    for _ in range(depth_max):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _has_members(value: Any, count: int) -> bool:
    """Return whether an object and those directly in it have this many members, so that none is a duplicate."""
    if not isinstance(value, dict):
        return False
    return len(value) == count or len(value) + sum(len(one) for one in value.values() if type(one) is dict) == count


def _member_count(value: Any) -> int:
    """Return how many members all objects of a value have together."""
    count, waiting = 0, [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            count += len(each)
            waiting += [one for one in each.values() if isinstance(one, dict | list)]
        elif isinstance(each, list):
            waiting += [one for one in each if isinstance(one, dict | list)]
    return count


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


def _integer(digits: str) -> int:
    """Return an integer; as a function of Python, it lets other threads run between two numbers."""
    return int(digits)


def _table(of: bytes, to: bytes) -> bytes:
    """Return a translation of these characters to one or as many others, and of all others to a space."""
    return bytes(to[of.index(char) % len(to)] if char in of else 0x20 for char in range(256))


_EXACT = json.JSONDecoder(object_pairs_hook=_members, parse_int=_integer)
_BRACKETS, _NOT_BRACKETS = _table(b"[{]}", b"[[]]"), bytes(char for char in range(256) if char not in b"[]{}")
_NUMBERS, _DIGITS = _table(b"0123456789.eE+-", b"0"), _table(b"0123456789", b"0")
