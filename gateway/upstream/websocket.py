"""The upstream's side of a proxied WebSocket: its frames made messages, as strictly as those of callers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import picows

from gateway.refusals import Refused, cut
from gateway.wire.fragments import Fragments

logger = logging.getLogger(__name__)

WAITING_MAX = 256
WAITING_MAX_BYTES = 1024 * 1024
"""Messages of the upstream that may wait for the caller; then the upstream is not read."""
PASSED_ON = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
CLIENT_CODES = range(3000, 5000)
NO_CODE = 1005
"""Stands for a close frame without a code."""
OF_MESSAGES = (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY, picows.WSMsgType.CONTINUATION)


class UpstreamSocket(picows.WSListener):
    """The upstream's side: its messages wait in a bounded queue, its close is kept, its silence is its end."""

    def __init__(self, message_max_bytes: int, ping_interval_s: float) -> None:
        self._max_bytes = message_max_bytes
        self._ping_interval_s = ping_interval_s
        self._transport: Any = None
        self._fragments = Fragments()
        self._kind = picows.WSMsgType.TEXT
        self._is_paused = False
        self._waiting_bytes = 0
        self._is_heard = False
        self._is_asked = False
        self._has_begun = False
        self._is_over = False
        self._pinging: asyncio.TimerHandle | None = None
        self.messages: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        """What the upstream said, None at its end."""
        self.close_code = 0
        self.close_reason = ""
        self.writable = asyncio.Event()
        self.writable.set()
        self.deadline: float | None = None
        """Until when the caller may take to read what it is being sent."""
        self.on_expiry: Callable[[], None] = _nothing

    def on_ws_connected(self, transport: Any) -> None:
        """Keep the line."""
        self._transport = transport
        self._pinging = asyncio.get_running_loop().call_later(self._ping_interval_s, self._ping)

    @property
    def has_connected(self) -> bool:
        """The upstream has answered ``101``."""
        return self._transport is not None

    @property
    def subprotocol(self) -> str | None:
        """What the upstream has chosen of what was offered."""
        chosen: str | None = self._transport.response.headers.get("Sec-WebSocket-Protocol")
        return chosen

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """Gather the frames of a message (RFC 6455 5.4). What comes after its end, ours or its own, counts no more."""
        if self._is_over:
            return
        self._is_heard = True
        kind = frame.msg_type
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._malformed("reserved bits")
            return
        if kind == picows.WSMsgType.CLOSE:
            code = int(frame.get_close_code()) if frame.payload_size else NO_CODE
            if not frame.payload_size or may_be_sent(code):
                self._closed(code, frame.get_close_reason() or "")
            else:
                self._malformed("close code")
        elif kind in OF_MESSAGES:
            self._take(frame, kind)

    def _take(self, frame: Any, kind: picows.WSMsgType) -> None:
        """Take a frame of a message: a continuation where one has begun, and nothing else then."""
        if (kind == picows.WSMsgType.CONTINUATION) is not self._has_begun:
            self._malformed("fragments")
        elif self._fragments.size + frame.payload_size > self._max_bytes:
            self._closed(1009, "message of the upstream too large")
        elif frame.fin and not self._has_begun:
            self._kind = kind
            self._hand_on(frame.get_payload_as_bytes())
        else:
            self._gather(frame, kind)

    def _gather(self, frame: Any, kind: picows.WSMsgType) -> None:
        if not self._has_begun:
            self._kind = kind
        self._has_begun = not frame.fin
        try:
            self._fragments.add(frame.get_payload_as_bytes())
        except Refused:
            self._closed(1009, "too many fragments of one message")
            return
        if frame.fin:
            self._hand_on(self._fragments.take())

    def on_ws_disconnected(self, transport: Any) -> None:
        """Say that nothing more will come."""
        if self._pinging is not None:
            self._pinging.cancel()
        self.messages.put_nowait(None)
        self.writable.set()

    def pause_writing(self) -> None:
        """The upstream does not read: neither do we, from the caller."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """It reads again."""
        self.writable.set()

    async def send(self, message: str | bytes) -> None:
        """Pass a message on; waits while the upstream does not read."""
        if not self.writable.is_set():
            await self.writable.wait()
        if isinstance(message, str):
            self._transport.send(picows.WSMsgType.TEXT, message.encode())
        else:
            self._transport.send(picows.WSMsgType.BINARY, message)

    def taken(self, bytes_: int) -> None:
        """A message of so many bytes was taken out; there may be room to read again."""
        self._waiting_bytes -= bytes_
        if (
            self._is_paused
            and self.messages.qsize() < WAITING_MAX // 2
            and self._waiting_bytes < WAITING_MAX_BYTES // 2
        ):
            self._is_paused = False
            self._is_asked = False  # its answer may lie unread
            self._transport.underlying_transport.resume_reading()

    def hang_up(self, code: int, reason: str = "") -> None:
        """Close the line with a code that may be sent."""
        if self._transport is None or self._transport.is_close_frame_sent:
            return
        self._transport.send_close(code if may_be_sent(code) else 1000, cut(reason).encode() or None)
        self._transport.disconnect(graceful=self.writable.is_set())

    def expire(self) -> None:
        """The caller takes too long to read a message."""
        self.deadline = None
        self.on_expiry()

    def _closed(self, code: int, reason: str) -> None:
        self._is_over = True
        self.close_code, self.close_reason = code, reason
        self.hang_up(code)

    def _malformed(self, what: str) -> None:
        """Fail the connection (RFC 6455 7.1.7). The caller did nothing wrong: for it the upstream is lost."""
        self._is_over = True
        logger.warning("the upstream broke the WebSocket protocol: %s", what)
        self.hang_up(1002)

    def _hand_on(self, payload: bytes) -> None:
        try:
            self.messages.put_nowait(payload.decode() if self._kind == picows.WSMsgType.TEXT else payload)
        except UnicodeDecodeError:
            self._closed(1007, "text of the upstream is not UTF-8")
            return
        self._waiting_bytes += len(payload)
        if not self._is_paused and (self.messages.qsize() > WAITING_MAX or self._waiting_bytes > WAITING_MAX_BYTES):
            self._is_paused = True
            self._transport.underlying_transport.pause_reading()

    def _ping(self) -> None:
        """Ask for a sign of life; an upstream that has not given one since the last time is lost."""
        if self._is_asked and not self._is_heard and not self._is_paused:
            self._transport.disconnect(graceful=False)
            return
        self._is_heard = False
        self._is_asked = True
        self._transport.send_ping()
        self._pinging = asyncio.get_running_loop().call_later(self._ping_interval_s, self._ping)


def _nothing() -> None:
    """Stand where nobody has asked to be told."""


def may_be_sent(code: int) -> bool:
    """RFC 6455 7.4: 1004 to 1006 and 1015 never travel."""
    return code in PASSED_ON or code in CLIENT_CODES
