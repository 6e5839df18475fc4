"""The client's side of a WebSocket in bytes, without a library whose own cycles would be counted."""

from __future__ import annotations

import asyncio
from typing import Any

MASK = b"\x01\x02\x03\x04"
TEXT, CLOSE = 0x81, 0x88


def frame(payload: bytes, first: int = TEXT, mask: bytes = MASK) -> bytes:
    """Return a masked frame."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    else:
        length = b"\xfe" + size.to_bytes(2, "big") if size < 1 << 16 else b"\xff" + size.to_bytes(8, "big")
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([first]) + length + mask + masked


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return the first byte and the payload of the next frame."""
    async with asyncio.timeout(20):
        first, size = await reader.readexactly(2)
        if size >= 126:
            size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
        return first, await reader.readexactly(size)


async def closed(caller: Any, code: int = 1000) -> tuple[int, str]:
    """Close, and return the code and the reason of the other side's close frame."""
    caller.send(frame(code.to_bytes(2, "big"), CLOSE))
    while True:
        first, payload = await read_frame(caller.reader)
        if first == CLOSE:
            assert await caller.reader.read() == b""
            return int.from_bytes(payload[:2], "big"), payload[2:].decode()
