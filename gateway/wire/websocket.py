"""The frames of a WebSocket (RFC 6455 5) as bytes: written, read as strictly as the specification asks, or counted."""

from __future__ import annotations

from binascii import b2a_base64
from hashlib import sha1

from gateway.refusals import Refused
from gateway.wire.deflate import COMPRESSED_MIN_BYTES, WIDEST, NotDeflated, compressed, inflated
from gateway.wire.fragments import Fragments

try:
    from websockets.speedups import apply_mask
except ImportError:  # where it could not be compiled
    from websockets.utils import apply_mask

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, RESERVED, COMPRESSED, OPCODE, MASKED = 0x80, 0x70, 0x40, 0x0F, 0x80
WHOLE_TEXT, WHOLE_BINARY = FIN | TEXT, FIN | BINARY
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTROL_MAX_BYTES = 125
TWO_BYTES, EIGHT_BYTES = 126, 127
NORMAL, PROTOCOL_ERROR, NO_CODE, ABNORMAL, INVALID_DATA, TOO_LARGE = 1000, 1002, 1005, 1006, 1007, 1009
"""Close codes (RFC 6455 7.4.1); 1005 and 1006 are never sent, and stand for no code and for no close frame."""
CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
OWN_CODES = range(3000, 5000)
DEFLATE_OVERHEAD_BYTES = 64
COUNTED_MAX = 512
"""Messages counted at once: others are served in between."""

Item = tuple[int, str | bytes]
"""An opcode and its payload: a message (text or bytes), or a control frame."""


class FrameFault(Exception):
    """The peer broke the protocol, with the code to close with."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def accept_of(key: bytes) -> bytes:
    """Return what answers the key of a handshake (RFC 6455 4.2.2)."""
    return b2a_base64(sha1(key + MAGIC, usedforsecurity=False).digest(), newline=False)


def frame(opcode: int, payload: bytes, mask: bytes = b"") -> bytes:
    """Return an unfragmented frame; clients send theirs with a mask of four bytes.

    The opcode is that of a message, with ``COMPRESSED`` if the payload is, or of a control frame.
    """
    size, bit = len(payload), MASKED if mask else 0
    if mask:
        payload = apply_mask(payload, mask)
    if size < TWO_BYTES:
        return b"%c%c%b%b" % (FIN | opcode, bit | size, mask, payload)
    if size < 1 << 16:
        return b"%c%c%b%b%b" % (FIN | opcode, bit | TWO_BYTES, size.to_bytes(2, "big"), mask, payload)
    return b"%c%c%b%b%b" % (FIN | opcode, bit | EIGHT_BYTES, size.to_bytes(8, "big"), mask, payload)


def compressed_message(opcode: int, payload: bytes, window_bits: int = WIDEST) -> bytes:
    """Return the frame of a message for a connection that compresses; what does not shrink is sent as it is."""
    if len(payload) >= COMPRESSED_MIN_BYTES:
        smaller = compressed(payload, window_bits)
        if len(smaller) < len(payload):
            return frame(opcode | COMPRESSED, smaller)
    return frame(opcode, payload)


def close_payload(code: int, reason: str = "") -> bytes:
    """Return the payload of a close frame; without a code it is empty."""
    return b"" if code == NO_CODE else code.to_bytes(2, "big") + reason.encode()


def may_be_sent(code: int) -> bool:
    """Return whether a close code may be sent: 1004 to 1006 and 1015 may not (RFC 6455 7.4)."""
    return code in CODES or code in OWN_CODES


def closed_with(payload: bytes) -> tuple[int, str]:
    """Return the code and the reason of a close frame. Raises FrameFault."""
    if not payload:
        return NO_CODE, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not may_be_sent(code):
        raise FrameFault(PROTOCOL_ERROR, "close code")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise FrameFault(INVALID_DATA, "the reason of a close is not UTF-8") from None


def count_whole(data: bytes, message_max_bytes: int, *, is_masked: bool) -> tuple[int, int, int]:
    """Count the messages at the start of some data that are whole, each of one frame, and valid.

    Returns their number, the bytes of their payloads and where the last of them ends. They may be passed on as they
    are; the rest is left to a :class:`FrameReader`.
    """
    count = total = at = 0
    length, mask = len(data), 4 if is_masked else 0
    while at + 2 + mask <= length and count < COUNTED_MAX:
        first, size, start = data[at], data[at + 1], at + 2 + mask
        if is_masked:
            size -= MASKED
        if size >= TWO_BYTES:
            wide = 2 if size == TWO_BYTES else 8
            size = _wide_size(data[at + 2 : at + 2 + wide])
            start += wide
        end = start + size
        if size < 0 or end > length or size > message_max_bytes:
            break
        if first != WHOLE_BINARY and not (first == WHOLE_TEXT and _is_text(data, start, end, mask)):
            break
        count, total, at = count + 1, total + size, end
    return count, total, at


def _wide_size(encoded: bytes) -> int:
    """Return an extended length, -1 for one that a shorter form could have held."""
    size = int.from_bytes(encoded, "big")
    return size if size >= (TWO_BYTES if len(encoded) == 2 else 1 << 16) else -1


def _is_text(data: bytes, start: int, end: int, mask: int) -> bool:
    payload = data[start:end]
    if mask:
        payload = apply_mask(payload, data[start - mask : start])
    if payload.isascii():
        return True
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


class FrameReader:
    """Reads messages and control frames from a stream of bytes. It raises the first fault each time from then on."""

    __slots__ = (
        "_at", "_buffer", "_fault", "_fragments", "_is_masked", "_kind", "is_inflating", "message_max_bytes",
        "parsed_bytes",
    )  # fmt: skip

    def __init__(self, message_max_bytes: int, *, is_masked: bool) -> None:
        self.message_max_bytes = message_max_bytes
        """The size of a message, after it was inflated."""
        self.is_inflating = False
        """Whether messages may be compressed: that is agreed on."""
        self._is_masked = is_masked
        self._buffer: bytes | bytearray = b""
        self._at = 0
        """Where the next frame begins in the buffer."""
        self._kind = 0
        """The opcode of the message whose fragments arrive, and whether it is compressed; 0 between messages."""
        self._fragments: Fragments | None = None
        self._fault: FrameFault | None = None
        self.parsed_bytes = 0
        """The length of all frames read so far, and of what was inflated."""

    @property
    def buffered_bytes(self) -> int:
        """Bytes received and not yet read."""
        return len(self._buffer) - self._at

    @property
    def is_between_messages(self) -> bool:
        """Whether nothing is buffered, nor a message begun."""
        return not self._buffer and not self._kind and self._fault is None

    def feed(self, data: bytes) -> None:
        """Append received bytes."""
        if self._fault is not None:
            return
        if not self._buffer:
            self._buffer = data
            return
        if isinstance(self._buffer, bytes):
            self._buffer = bytearray(memoryview(self._buffer)[self._at :])
        elif self._at:
            del self._buffer[: self._at]
        self._at = 0
        self._buffer += data

    def next(self) -> Item | None:
        """Return the next message or control frame, None if more bytes are needed. Raises FrameFault.

        A fragment of a message that is not complete is returned as an empty continuation.
        """
        if self._fault is not None:
            raise self._fault
        try:
            if self._buffer and (found := self._frame()) is not None:
                return self._item(*found)
        except FrameFault as fault:
            self._buffer, self._at, self._fragments = b"", 0, None
            self._fault = FrameFault(fault.code, str(fault))
            raise
        return None

    def _frame(self) -> tuple[int, bytes] | None:
        """Return the first byte and the payload of the next frame, None if it is not complete."""
        buffer, at = self._buffer, self._at
        left = len(buffer) - at
        if left < 2:
            return None
        first, second = buffer[at], buffer[at + 1]
        size = self._checked(first, second)
        head = 2
        if size >= TWO_BYTES:
            head = 4 if size == TWO_BYTES else 10
            if left < head:
                return None
            size = int.from_bytes(buffer[at + 2 : at + head], "big")
        if size + (self._fragments.size if self._fragments is not None else 0) > self._received_max_bytes(first):
            raise FrameFault(TOO_LARGE, "message too large")
        start = at + head + (4 if self._is_masked else 0)
        end = start + size
        if end > len(buffer):
            return None
        payload = bytes(buffer[start:end])
        if self._is_masked and payload:
            payload = apply_mask(payload, bytes(buffer[start - 4 : start]))
        self.parsed_bytes += end - at
        self._at = end
        if end == len(buffer):
            self._buffer, self._at = b"", 0
        return first, payload

    def _received_max_bytes(self, first: int) -> int:
        """Return how large a message may be as it is sent: compressed, what does not shrink grows a little."""
        most = self.message_max_bytes
        return most + DEFLATE_OVERHEAD_BYTES + (most >> 10) if (first | self._kind) & COMPRESSED else most

    def _checked(self, first: int, second: int) -> int:
        """Check the first two bytes of a frame; return its length, or 126 or 127 if that follows. Raises FrameFault."""
        opcode, size = first & OPCODE, second & ~MASKED
        # The first frame of a message says that the message is compressed (RFC 7692 6).
        if first & RESERVED and not (self.is_inflating and first & RESERVED == COMPRESSED and opcode in (TEXT, BINARY)):
            raise FrameFault(PROTOCOL_ERROR, "reserved bits")
        if bool(second & MASKED) is not self._is_masked:
            raise FrameFault(PROTOCOL_ERROR, "masking")
        if opcode in (CLOSE, PING, PONG):
            if not first & FIN or size > CONTROL_MAX_BYTES:
                raise FrameFault(PROTOCOL_ERROR, "control frame")
        elif opcode not in (CONTINUATION, TEXT, BINARY):
            raise FrameFault(PROTOCOL_ERROR, "opcode")
        elif (opcode == CONTINUATION) is not bool(self._kind):
            raise FrameFault(PROTOCOL_ERROR, "fragments")
        return size

    def _item(self, first: int, payload: bytes) -> Item:
        """Return the message or control frame that a frame completes, or that it is a fragment. Raises FrameFault."""
        opcode = first & OPCODE
        if opcode >= CLOSE:
            return opcode, payload
        if not self._kind and first & FIN:
            return self._message(first & ~FIN, payload)
        if self._fragments is None:
            self._kind, self._fragments = first & ~FIN, Fragments()
        try:
            self._fragments.add(payload)
        except Refused:
            raise FrameFault(TOO_LARGE, "too many fragments of one message") from None
        if not first & FIN:
            return CONTINUATION, b""
        whole, kind = self._fragments.take(), self._kind
        self._kind, self._fragments = 0, None
        return self._message(kind, whole)

    def _message(self, kind: int, payload: bytes) -> Item:
        if kind & COMPRESSED:
            payload, kind = self._inflated(payload), kind & OPCODE
        if kind == BINARY:
            return BINARY, payload
        try:
            return TEXT, payload.decode()
        except UnicodeDecodeError:
            raise FrameFault(INVALID_DATA, "text is not UTF-8") from None

    def _inflated(self, payload: bytes) -> bytes:
        try:
            message = inflated(payload, self.message_max_bytes)
        except NotDeflated:
            raise FrameFault(INVALID_DATA, "not compressed as agreed") from None
        if len(message) > self.message_max_bytes:
            raise FrameFault(TOO_LARGE, "message too large")
        self.parsed_bytes += len(message)
        return message
