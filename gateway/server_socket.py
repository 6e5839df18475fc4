"""uvicorn's WebSocket protocol with the bounds that it lacks: fragments, pings, and a keepalive that knows who is slow."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from gateway.refusals import Reason, Refused

FRAGMENTS_MAX = 10_000
"""Of one message: empty ones add nothing to its size, so the size alone bounds no memory."""


class BoundedSocket(WebSocketsSansIOProtocol):
    """One socket of the server."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Say 1006 where the peer went without a close frame: uvicorn says 1005, which is a close frame without a code."""
        if self.handshake_complete and not self.close_sent and self.conn.close_rcvd is None:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": CloseCode.ABNORMAL_CLOSURE.value})
        super().connection_lost(exc)

    def handle_cont(self, event: Frame) -> None:
        """Take one more fragment of a message."""
        if len(self.frames) >= FRAGMENTS_MAX:
            self._end(Refused(Reason.TOO_LARGE))
            return
        super().handle_cont(event)

    def handle_ping(self) -> None:
        """Answer a ping, unless the peer does not read: pongs would pile up without bound."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def keepalive_timeout(self) -> None:
        """No pong came in time. While a limit delays this socket we do not read, so the peer cannot be blamed."""
        if self.read_paused:
            self.pong_timer = None
            self.pending_ping_payload = None
            self.schedule_ping()
        elif not (self.close_sent or self.transport.is_closing()):
            self._end(Refused(Reason.IDLE))

    def _end(self, refused: Refused) -> None:
        code = refused.row.websocket
        self.stop_keepalive()
        self.conn.fail(code, refused.close_reason())
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._tell(code, refused.close_reason())
        self.transport.close()

    def _tell(self, code: int, reason: str) -> None:
        message: Any = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self.queue.put_nowait(message)
