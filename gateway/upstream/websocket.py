"""The upstream's side of a proxied WebSocket: reads its frames into messages, as strictly as those of callers."""

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
"""Beyond this many bytes of queued messages the upstream is not read."""
PASSED_ON = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
CLIENT_CODES = range(3000, 5000)
NO_CODE = 1005
"""Represents a close frame without a code (RFC 6455 7.4.1)."""
DATA_FRAMES = (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY, picows.WSMsgType.CONTINUATION)


class UpstreamSocket(picows.WSListener):
    """The upstream's side: queues its messages within bounds, keeps its close code, and pings it."""

    def __init__(self, message_max_bytes: int, ping_interval_s: float) -> None:
        self._max_bytes = message_max_bytes
        self._ping_interval_s = ping_interval_s
        self._transport: Any = None
        self._fragments = Fragments()
        self._kind = picows.WSMsgType.TEXT
        self._is_paused = False
        self._waiting_bytes = 0
        self._is_heard = False
        self._awaits_pong = False
        self._has_begun = False
        self._is_over = False
        self._pinging: asyncio.TimerHandle | None = None
        self.messages: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        """The messages of the upstream, None at the end."""
        self.close_code = 0
        self.close_reason = ""
        self.writable = asyncio.Event()
        self.writable.set()
        self.deadline: float | None = None
        """Until when the client may take to read the message being sent."""
        self.on_expiry: Callable[[], None] = _nothing

    def on_ws_connected(self, transport: Any) -> None:
        """Keep the transport, and start to ping."""
        self._transport = transport
        self._pinging = asyncio.get_running_loop().call_later(self._ping_interval_s, self._ping)

    @property
    def has_connected(self) -> bool:
        """Whether the upstream has answered ``101``."""
        return self._transport is not None

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the upstream chose, if any."""
        chosen: str | None = self._transport.response.headers.get("Sec-WebSocket-Protocol")
        return chosen

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """Collect the frames of a message (RFC 6455 5.4). Frames after a close, of either side, are ignored."""
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
        elif kind in DATA_FRAMES:
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
        """End the queue of messages."""
        if self._pinging is not None:
            self._pinging.cancel()
        self.messages.put_nowait(None)
        self.writable.set()

    def pause_writing(self) -> None:
        """Stop reading from the client while the upstream does not read."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """Resume reading from the client."""
        self.writable.set()

    async def send(self, message: str | bytes) -> None:
        """Send a message; waits while the upstream does not read."""
        if not self.writable.is_set():
            await self.writable.wait()
        if isinstance(message, str):
            self._transport.send(picows.WSMsgType.TEXT, message.encode())
        else:
            self._transport.send(picows.WSMsgType.BINARY, message)

    def taken(self, bytes_: int) -> None:
        """Note that a message of this size was taken from the queue, and resume reading if there is room."""
        self._waiting_bytes -= bytes_
        if (
            self._is_paused
            and self.messages.qsize() < WAITING_MAX // 2
            and self._waiting_bytes < WAITING_MAX_BYTES // 2
        ):
            self._is_paused = False
            self._awaits_pong = False  # the pong may be unread
            self._transport.underlying_transport.resume_reading()

    def disconnect(self, code: int, reason: str = "") -> None:
        """Close the connection; a code that must not be sent becomes 1000."""
        if self._transport is None or self._transport.is_close_frame_sent:
            return
        self._transport.send_close(code if may_be_sent(code) else 1000, cut(reason).encode() or None)
        self._transport.disconnect(graceful=self.writable.is_set())

    def expire(self) -> None:
        """The client takes too long to read a message."""
        self.deadline = None
        self.on_expiry()

    def _closed(self, code: int, reason: str) -> None:
        self._is_over = True
        self.close_code, self.close_reason = code, reason
        self.disconnect(code)

    def _malformed(self, what: str) -> None:
        """Fail the connection (RFC 6455 7.1.7); for the client, the upstream is lost."""
        self._is_over = True
        logger.warning("the upstream broke the WebSocket protocol: %s", what)
        self.disconnect(1002)

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
        """Ping the upstream, and disconnect it if it sent nothing since the last ping."""
        if self._awaits_pong and not self._is_heard and not self._is_paused:
            self._transport.disconnect(graceful=False)
            return
        self._is_heard = False
        self._awaits_pong = True
        self._transport.send_ping()
        self._pinging = asyncio.get_running_loop().call_later(self._ping_interval_s, self._ping)


def _nothing() -> None:
    """The default callback."""


def may_be_sent(code: int) -> bool:
    """Return whether a close code may be sent: 1004 to 1006 and 1015 may not (RFC 6455 7.4)."""
    return code in PASSED_ON or code in CLIENT_CODES
