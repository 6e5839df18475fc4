"""The upstream's side of a proxied WebSocket, whose frames are read as strictly as those of callers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gateway.sockets.connection import FrameConnection
from gateway.wire import websocket as wire
from gateway.wire.websocket import PING, FrameFault, may_be_sent

logger = logging.getLogger(__name__)


class UpstreamSocket(FrameConnection):
    """The upstream's side: keeps its close code, and pings it."""

    __slots__ = ("_ping_interval_s", "_pinging", "close_code", "close_reason", "deadline", "on_expiry", "subprotocol")
    is_client = True

    def __init__(self, message_max_bytes: int, ping_interval_s: float) -> None:
        super().__init__(message_max_bytes)
        self._ping_interval_s = ping_interval_s
        self._pinging: asyncio.TimerHandle | None = None
        self.subprotocol: str | None = None
        """The subprotocol that the upstream chose, if any."""
        self.close_code = 0
        """The code that the connection was closed with; 0 if the upstream was lost."""
        self.close_reason = ""
        self.deadline: float | None = None
        """Until when the client may take to read the message being sent."""
        self.on_expiry: Callable[[], None] = _nothing

    @property
    def has_connected(self) -> bool:
        """Whether the upstream has answered ``101``."""
        return self.transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a connection whose handshake is answered, and start to ping."""
        super().connection_made(transport)
        self._pinging = self._loop.call_later(self._ping_interval_s, self._keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        """End what reads the messages."""
        if self._pinging is not None:
            self._pinging.cancel()
            self._pinging = None
        super().connection_lost(exc)

    def disconnect(self, code: int, reason: str = "") -> None:
        """Close the connection; a code that must not be sent becomes 1000."""
        if self.transport is None or self._close_sent:
            return
        self.send_close(code if may_be_sent(code) else wire.NORMAL, reason)
        self.hang_up()

    def expire(self) -> None:
        """The client takes too long to read a message."""
        self.deadline = None
        self.on_expiry()

    def failed(self, fault: FrameFault) -> None:
        """Fail the connection (RFC 6455 7.1.7); for the client, an upstream that breaks the protocol is lost."""
        if fault.code == wire.PROTOCOL_ERROR:
            logger.warning("the upstream broke the WebSocket protocol: %s", fault)
        else:
            self.close_code, self.close_reason = fault.code, f"{fault} (of the upstream)"
        self._gone = (self.close_code, self.close_reason)
        self.disconnect(fault.code)

    def close_received(self, code: int, reason: str) -> None:
        """Keep the code and the reason of the upstream."""
        self.close_code, self.close_reason = code, reason
        self._gone = (code, reason)
        self.disconnect(code)

    def _keep_alive(self) -> None:
        """Ping the upstream, and disconnect it if it sent nothing since the last ping; what is unread is no silence."""
        if self.transport is None:
            return
        if self._ping and not self._is_heard and not self._is_paused and not self.frames.buffered_bytes:
            self.transport.abort()
            return
        self._is_heard = False
        self._ping = b"alive"
        self.write_frame(PING, self._ping)
        self._pinging = self._loop.call_later(self._ping_interval_s, self._keep_alive)


def _nothing() -> None:
    """The default callback."""
