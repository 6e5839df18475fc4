"""uvicorn's WebSocket protocol with what it lacks: bounds on fragments and pongs, a keepalive that blames the right."""

from __future__ import annotations

from asyncio import BaseTransport

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from gateway.refusals import Reason, Refused

FRAGMENTS_MAX = 10_000
"""Of one message: empty ones add nothing to its size, so the size alone bounds no memory."""


CLOSE_TIMEOUT_S = 5.0


class BoundedSocket(WebSocketsSansIOProtocol):
    """One socket of the server."""

    def connection_made(self, transport: BaseTransport) -> None:
        """Begin; a closing handshake will have its own deadline."""
        super().connection_made(transport)
        self.close_timeout = CLOSE_TIMEOUT_S

    def connection_lost(self, exc: Exception | None) -> None:
        """Say 1006 where the peer went without a close frame; uvicorn says 1005, as of a close frame with no code."""
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
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": refused.close_reason()})
        if self.writable.is_set():
            self.transport.close()
        else:
            # What waits to be sent would never be, and hold the socket open.
            self.transport.abort()
