"""One side of a WebSocket over TCP, driven by what arrives: no task and no timer of its own.

Frames are parsed as the messages are asked for, so that a reader that falls behind delays its peer by TCP. Where a
message needs nobody's attention, :attr:`FrameConnection.pass_on` may take it as it came, before it is parsed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from gateway.peer import ClientGone
from gateway.refusals import cut
from gateway.wire import websocket as wire
from gateway.wire.deflate import COMPRESSED_MIN_BYTES, SLICE_BYTES, compressing
from gateway.wire.websocket import BINARY, CLOSE, COMPRESSED, PING, PONG, TEXT, FrameFault, FrameReader

TURN_BYTES = 4 * 1024
"""Frames of one connection that are parsed before others are served, in bytes: thousands may arrive in one read."""
READ_AHEAD_BYTES = 64 * 1024
"""Received and not yet parsed; beyond it the peer is not read."""

PassOn = Callable[[bytes], int]
"""Takes whole messages at the start of what arrived, and returns how many bytes they had."""


class FrameConnection(asyncio.Protocol):
    """An open WebSocket, of either side."""

    __slots__ = (
        "_can_write", "_close_sent", "_deadline", "_gone", "_is_heard", "_is_paused", "_loop", "_ping", "_pinged_at",
        "_turn_at", "_waiter", "frames", "pass_on", "transport", "window_bits",
    )  # fmt: skip
    is_client = False
    """Whether this side is the client of the connection, whose frames are masked."""

    def __init__(self, message_max_bytes: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.frames = FrameReader(message_max_bytes, is_masked=not self.is_client)
        self.pass_on: PassOn | None = None
        self.window_bits = 0
        """The window that messages are compressed with, as a power of two; 0 if they are not compressed."""
        self._waiter: asyncio.Future[None] | None = None
        self._can_write: asyncio.Future[None] | None = None
        self._turn_at = 0
        self._is_paused = False
        self._close_sent = False
        self._gone: tuple[int, str] | None = None
        """The code and reason that the connection ended with, once nothing more is received."""
        self._deadline: float | None = None
        """When the connection is aborted although the peer has not closed it."""
        self._ping = b""
        """The payload of the ping that is not answered yet."""
        self._pinged_at = 0.0
        self._is_heard = False
        """Whether anything was received since the last ping."""

    @property
    def is_writable(self) -> bool:
        """Whether the connection is open and the peer reads: no more is unsent than the transport buffers."""
        return self._can_write is None and not self._is_ending

    @property
    def _is_ending(self) -> bool:
        return self._close_sent or self._gone is not None or self.transport is None or self.transport.is_closing()

    async def read(self) -> str | bytes:
        """Return the next message. Raises ClientGone with the code and the reason of the end."""
        frames = self.frames
        while True:
            item = self._next()
            if item is None:
                if self._gone is not None:
                    raise ClientGone(*self._gone)
                self._resume()
                self._waiter = self._loop.create_future()
                await self._waiter
                self._turn_at = frames.parsed_bytes
                continue
            if frames.parsed_bytes - self._turn_at > TURN_BYTES:
                await asyncio.sleep(0)
                self._turn_at = frames.parsed_bytes
            opcode, payload = item
            if opcode in (TEXT, BINARY):
                return payload
            if opcode:
                self._control(opcode, payload)  # type: ignore[arg-type]  # only a message is text

    def _next(self) -> wire.Item | None:
        if self._gone is not None and self._gone[0] != wire.ABNORMAL:
            return None
        try:
            return self.frames.next()
        except FrameFault as fault:
            self.failed(fault)
            return None

    async def write(self, message: str | bytes) -> None:
        """Send one message; waits while the peer does not read. Raises ClientGone."""
        await self.writable()
        opcode, payload = (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message)
        if self.window_bits and len(payload) >= COMPRESSED_MIN_BYTES:
            opcode, payload = await self._compressed(opcode, payload)
        self.write_frame(opcode, payload)

    async def _compressed(self, opcode: int, payload: bytes) -> tuple[int, bytes]:
        """Return a message compressed, if it shrinks, while others are served. Raises ClientGone."""
        parts: list[bytes] = []
        for part in compressing(payload, self.window_bits):
            parts.append(part)
            if len(payload) > SLICE_BYTES:
                await asyncio.sleep(0)
        await self.writable()
        smaller = b"".join(parts)
        return (opcode | COMPRESSED, smaller) if len(smaller) < len(payload) else (opcode, payload)

    async def writable(self) -> None:
        """Wait until the peer reads. Raises ClientGone."""
        while self._can_write is not None:
            await asyncio.shield(self._can_write)
        if self._is_ending:
            raise ClientGone(*(self._gone or ()))

    def write_frame(self, opcode: int, payload: bytes) -> None:
        """Write a frame, without waiting for the peer to read."""
        if self.transport is not None:
            mask = os.urandom(4) if self.is_client else b""
            self.transport.write(wire.frame(opcode, payload, mask))

    def write_frames(self, frames: bytes) -> None:
        """Write whole messages, as frames; only where :attr:`is_writable`."""
        if self.transport is not None:
            self.transport.write(frames)

    def send_close(self, code: int, reason: str = "") -> None:
        """Send the close frame, unless it was sent."""
        if not self._close_sent and self.transport is not None and not self.transport.is_closing():
            self._close_sent = True
            self.write_frame(CLOSE, wire.close_payload(code, cut(reason)))

    def failed(self, fault: FrameFault) -> None:
        """Fail the connection (RFC 6455 7.1.7)."""
        raise NotImplementedError

    def close_received(self, code: int, reason: str) -> None:
        """End as the peer has closed."""
        self._gone = (code, reason)
        self.send_close(code)
        self.hang_up()

    def hang_up(self) -> None:
        """Close the connection once what was written is sent, or at once if the peer does not read."""
        if self.transport is None:
            return
        if self._can_write is None:
            self.transport.close()
        else:
            self.transport.abort()

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            # Unless the peer does not read: pongs would queue without bound.
            if self.is_writable:
                self.write_frame(PONG, payload)
        elif opcode == PONG:
            if payload == self._ping:
                self._ping = b""
        else:
            try:
                self.close_received(*wire.closed_with(payload))
            except FrameFault as fault:
                self.failed(fault)

    # Keepalive

    def keep_alive(self, now: float, interval_s: float, timeout_s: float) -> bool:
        """Ping the peer when it is time to; return False if it has not answered in time.

        A pong may be unread while messages wait for their reader: that is no silence.
        """
        if self._is_paused or self.frames.buffered_bytes:
            self._ping, self._pinged_at = b"", now
        elif self._ping:
            return now - self._pinged_at <= timeout_s
        elif now - self._pinged_at >= interval_s:
            self._ping, self._pinged_at = os.urandom(4), now
            self.write_frame(PING, self._ping)
        return True

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._is_heard = True
        frames = self.frames
        if self._waiter is not None and self.pass_on is not None and frames.is_between_messages:
            passed = self.pass_on(data)
            if passed:
                if passed == len(data):
                    return
                data = data[passed:]
        if self._close_sent:
            is_awaiting = bool(frames.buffered_bytes) and self._is_paused
            frames.feed(data)
            if not is_awaiting:
                self._await_close()
            return
        frames.feed(data)
        if self._waiter is not None:
            self._wake()
        elif frames.buffered_bytes > READ_AHEAD_BYTES:
            self._pause()

    def _await_close(self) -> None:
        """Drop what is received after the close frame was sent; the peer's own ends the connection (RFC 6455 7.1.1)."""
        frames = self.frames
        ends_at = frames.parsed_bytes + TURN_BYTES
        try:
            while (item := frames.next()) is not None and item[0] != CLOSE:
                if frames.parsed_bytes > ends_at:
                    self._pause()
                    self._loop.call_soon(self._await_close)
                    return
        except FrameFault:
            item = (CLOSE, b"")
        if item is None:
            self._resume()
        else:
            self.hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._gone is None:
            self._gone = (wire.ABNORMAL, "")
        self.pass_on = None
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._can_write = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._can_write is not None and not self._can_write.done():
            self._can_write.set_result(None)
        self._can_write = None

    def _pause(self) -> None:
        if not self._is_paused and self.transport is not None and not self.transport.is_closing():
            self._is_paused = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self._is_paused and self.transport is not None and not self.transport.is_closing():
            self._is_paused = False
            self.transport.resume_reading()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
