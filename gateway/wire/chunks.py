"""Bodies sent in chunks (RFC 9112 7.1) that have arrived whole."""

from __future__ import annotations

import re

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_LAST = b"0\r\n\r\n"


def whole_body(data: bytes, begins: int) -> bytes | None:
    """Return the body whose chunks begin there; None unless they are whole and plain, and nothing is behind them.

    Chunks with extensions, or with trailers behind them, are not plain.
    """
    parts = []
    while not data.startswith(_LAST, begins):
        size = _SIZE.match(data, begins)
        if size is None:
            return None
        ends = size.end() + int(size[1], 16)
        if ends == size.end() or data[ends : ends + 2] != b"\r\n":
            return None
        parts.append(data[size.end() : ends])
        begins = ends + 2
    return b"".join(parts) if begins + len(_LAST) == len(data) else None
