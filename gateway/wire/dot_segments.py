"""Finds dot segments (RFC 3986 5.2.4) in whatever way a server behind the gateway may read a path.

Some servers decode a path twice, cut ``;parameters`` off its segments, take a backslash for a slash, or accept overlong
UTF-8 and full-width characters. A path that has a dot segment in any of these readings could leave its route there.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

DECODINGS_MAX = 8
"""A path that still changes when it is decoded more often counts as one with a dot segment."""
DOT_SEGMENTS = frozenset({".", ".."})
_SEPARATOR = re.compile(r"[/\\]")
_END_OF_NAME = re.compile(r"[;?#\0]")
_IGNORED = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\ufeff]+")
_UNICODE_ESCAPE = re.compile(r"%u([0-9a-fA-F]{4})")
_OVERLONG = re.compile(rb"[\xc0\xc1][\x80-\xbf]|\xe0[\x80\x81][\x80-\xbf]|\xf0\x80[\x80\x81][\x80-\xbf]")


def has_dot_segment(path: str) -> bool:
    """Return whether a path, decoded once, has a dot segment in any reading."""
    if "." not in path and "%" not in path and path.isascii():
        return False
    for number, reading in enumerate(_readings(path)):
        if number > DECODINGS_MAX:
            return True
        if any(_name(segment) in DOT_SEGMENTS for segment in _SEPARATOR.split(reading)):
            return True
    return False


def _readings(path: str) -> Iterator[str]:
    """Yield the path, and what each further decoding makes of it."""
    while True:
        yield path if path.isascii() else unicodedata.normalize("NFKC", path)
        decoded = _decoded(path) if "%" in path else path
        if decoded == path:
            return
        path = decoded


def _decoded(path: str) -> str:
    plain = _UNICODE_ESCAPE.sub(lambda match: chr(int(match[1], 16)), path)
    data = unquote_to_bytes(plain.encode("utf-8", "surrogatepass"))
    return _OVERLONG.sub(_ascii_of, data).decode("utf-8", "replace")


def _ascii_of(match: re.Match[bytes]) -> bytes:
    """Return the ASCII character that an overlong sequence stands for."""
    *_, high, low = match[0]
    return bytes([(high & 0x01) << 6 | low & 0x3F])


def _name(segment: str) -> str:
    """Return a segment without its parameters and without what some file systems ignore."""
    return _IGNORED.sub("", _END_OF_NAME.split(segment, maxsplit=1)[0])
