"""WebSocket frames of a server as bytes (RFC 6455 5.2): made once, and sent to any number of clients."""

from __future__ import annotations

_TEXT = 0x81
"""A whole text message: the last frame, and the first."""
_TWO_BYTES, _EIGHT_BYTES = 126, 127


def text_frame(payload: bytes) -> bytes:
    """Return a text message, whose payload is UTF-8, as one frame without a mask."""
    size = len(payload)
    if size < _TWO_BYTES:
        return b"%c%c%b" % (_TEXT, size, payload)
    if size < 1 << 16:
        return b"%c%c%b%b" % (_TEXT, _TWO_BYTES, size.to_bytes(2, "big"), payload)
    return b"%c%c%b%b" % (_TEXT, _EIGHT_BYTES, size.to_bytes(8, "big"), payload)
