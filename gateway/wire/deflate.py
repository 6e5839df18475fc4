"""``permessage-deflate`` (RFC 7692): what is agreed on, and each message compressed and inflated by itself.

No context is taken over from message to message, in either direction: nothing is kept between messages, the same
compressed message fits all connections, and what one message holds does not show in the size of the next.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from gateway.wire.header_fields import Headers

EXTENSIONS = b"sec-websocket-extensions"
COMPRESSED_MIN_BYTES = 128
"""Shorter messages are sent as they are: they would hardly shrink."""
WINDOW_BITS = range(9, 16)
"""Windows that zlib can compress with, as powers of two; it has no 256 bytes."""
WIDEST = WINDOW_BITS[-1]
OFFERS_MAX_BYTES = 1024
"""Longer offers are declined unread."""
SLICE_BYTES = 64 * 1024
"""Compressed in one go; a large message is compressed slice by slice, and others are served in between."""
_LEVEL = 1
_TAIL = b"\x00\x00\xff\xff"
"""Ends the last block of a message, and is not sent (RFC 7692 7.2.1)."""
_AFTER_FINAL = (b"", _TAIL, b"\x00" + _TAIL)
_OFFER = re.compile(rb'(?:[^",]|"[^"]*")+')
_PARAMETER = re.compile(rb'\s*([a-z_]+)\s*(?:=\s*("?)([1-9][0-9]?)\2\s*)?')
_FLAGS = (b"server_no_context_takeover", b"client_no_context_takeover")
_WINDOWS = (b"server_max_window_bits", b"client_max_window_bits")


class NotDeflated(Exception):
    """A message is flagged as compressed and is not."""


def agreed(headers: Headers) -> tuple[bytes, int] | None:
    """Return the answer to the first offer of a handshake that can be accepted, and the window to compress with."""
    offers = b",".join(value for name, value in headers if name == EXTENSIONS)
    if len(offers) > OFFERS_MAX_BYTES:
        return None
    for offer in _OFFER.findall(offers):
        name, *parameters = offer.split(b";")
        if name.strip() != b"permessage-deflate" or (asked := _parameters(parameters)) is None:
            continue
        bits = asked.get(_WINDOWS[0])
        if bits is None:
            return b"; ".join((b"permessage-deflate", *_FLAGS)), WIDEST
        if bits in WINDOW_BITS:
            return b"; ".join((b"permessage-deflate", *_FLAGS, b"%b=%d" % (_WINDOWS[0], bits))), bits
    return None


def _parameters(parts: list[bytes]) -> dict[bytes, int | None] | None:
    """Return the parameters of an offer; None if one is unknown, invalid or repeated (RFC 7692 7.1)."""
    found: dict[bytes, int | None] = {}
    for part in parts:
        match = _PARAMETER.fullmatch(part.rstrip())
        if match is None or match[1] in found:
            return None
        name, bits = match[1], None if match[3] is None else int(match[3])
        is_valid = bits is None if name in _FLAGS else name in _WINDOWS and (bits is None or 8 <= bits <= WIDEST)
        if not is_valid or (name == _WINDOWS[0] and bits is None):
            return None
        found[name] = bits
    return found


def compressing(payload: bytes, window_bits: int) -> Iterator[bytes]:
    """Compress a message that is not empty, slice by slice; the parts joined are what is sent."""
    bits = min(window_bits, max(WINDOW_BITS[0], (len(payload) - 1).bit_length()))
    # The table of hashes need not be larger than the message either.
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -bits, min(bits - 7, 8))
    for at in range(0, len(payload), SLICE_BYTES):
        yield compressor.compress(payload[at : at + SLICE_BYTES])
    yield compressor.flush(zlib.Z_SYNC_FLUSH)[: -len(_TAIL)]


def compressed(payload: bytes, window_bits: int = WIDEST) -> bytes:
    """Return a message compressed, in one go."""
    return b"".join(compressing(payload, window_bits))


def inflated(payload: bytes, most: int) -> bytes:
    """Return a message inflated; one that exceeds ``most`` bytes is inflated no further, and returned longer than that.

    Raises NotDeflated.
    """
    inflater = zlib.decompressobj(-WIDEST)
    try:
        message = inflater.decompress(payload + _TAIL, most + 1)
    except zlib.error as error:
        raise NotDeflated from error
    # After a final block (7.2.3.4) nothing but padding may follow.
    if inflater.eof and inflater.unused_data not in _AFTER_FINAL:
        raise NotDeflated
    return message
