"""One WebSocket of a caller: its handshake, its keepalive and its end. Frames are those of :mod:`gateway.sockets`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from gateway.listening.tcp_connections import TcpConnection
from gateway.peer import ClientGone, Gate
from gateway.protocols.problem import closing, render
from gateway.refusals import Reason, Refused
from gateway.server.half_closed import is_reset
from gateway.server.handshake import accept_key, refusal, subprotocols_of, switching
from gateway.server.site import CEILING_EXCEEDED, Site
from gateway.sockets.connection import FrameConnection, PassOn
from gateway.wire import websocket as wire
from gateway.wire.deflate import EXTENSIONS, WIDEST, agreed
from gateway.wire.header_fields import Headers
from gateway.wire.websocket import PING, TEXT, FrameFault, compressed_message, frame

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0
HALF_CLOSED_S = 2.0
"""How long a client that has ended its sending side without a close frame gets what is answered to its last frames."""
WRITE_MAX_BYTES = 64 * 1024
"""Frames are joined up to this size, unless one alone is larger."""
STREAM_PATH = b"/v1/stream"
_FAULTS = {
    wire.PROTOCOL_ERROR: Reason.INVALID_REQUEST,
    wire.INVALID_DATA: Reason.INVALID_PAYLOAD,
    wire.TOO_LARGE: Reason.TOO_LARGE,
}
GOING_AWAY = 1012

Serve = Callable[["ServerSocket"], Awaitable[None]]


class ServerSocket(FrameConnection):
    """One WebSocket of the server; implements :class:`gateway.peer.Socket`."""

    __slots__ = (
        "_accept_key", "_agreed", "_is_accepted", "_is_answered", "_is_half_closed", "_server_state", "_site",
        "gate_in", "gate_out", "subprotocols", "tcp",
    )  # fmt: skip

    def __init__(self, site: Site, tcp: TcpConnection, server_state: Any, path: bytes) -> None:
        bounds = site.bounds
        stream_max, proxied_max = bounds.stream_message_max_bytes, bounds.proxied_message_max_bytes
        super().__init__(stream_max if path == STREAM_PATH else max(stream_max, proxied_max))
        self._site = site
        self._server_state = server_state
        self.tcp = tcp
        self._accept_key = b""
        self._agreed: tuple[bytes, int] | None = None
        """The compression that the client's offer allows; None for none, and once the handshake is answered."""
        self._is_accepted = False
        self._is_answered = False
        """The handshake is answered, by ``101`` or otherwise."""
        self._is_half_closed = False
        self.subprotocols: Sequence[str] = ()
        """The subprotocols that the client offers."""
        self.gate_in: Gate | None = None
        """Checks each message of the peer; None if the route's policies look at none."""
        self.gate_out: Gate | None = None

    @property
    def is_accepted(self) -> bool:
        """``101`` was answered."""
        return self._is_accepted

    # The handshake

    def begin(self, transport: asyncio.Transport, headers: Headers, serve: Serve) -> None:
        """Take over a connection whose request is a handshake, and serve it, or refuse a malformed one."""
        self.connection_made(transport)
        self._server_state.connections.add(self)
        self._site.open.add(self)
        self.tcp.busy()
        self.tcp.closed_by(self.shed)
        try:
            self._accept_key = accept_key(headers)
        except Refused as refused:
            self._respond(refused.status, *render(refused.bare()))
            return
        self.subprotocols = subprotocols_of(headers)
        self._agreed = agreed(headers)
        task = self._loop.create_task(self._run(serve))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    async def _run(self, serve: Serve) -> None:
        try:
            await serve(self)
        except Exception:
            logger.exception("serving a WebSocket failed")
        if not self._is_answered and self.transport is not None and not self.transport.is_closing():
            self.transport.write(closing(Refused(Reason.INTERNAL)))
        if not self._close_sent or self._gone is not None:
            self.hang_up()

    async def accept(
        self, subprotocol: str | None = None, headers: Headers | None = None, *, compress: bool = False
    ) -> None:
        """Answer ``101``. Raises ClientGone."""
        self._require_open()
        assert self.transport is not None, "the connection was made"
        self._is_accepted = self._is_answered = True
        self._pinged_at = time.monotonic()
        given = [*self._server_state.default_headers, *(headers or ())]
        if compress and self._agreed is not None:
            extension, self.window_bits = self._agreed
            given.append((EXTENSIONS, extension))
            self.frames.is_inflating = True
        self._agreed = None
        self.transport.write(switching(self._accept_key, given, subprotocol))
        if self._is_half_closed:
            self._end_soon()

    async def deny(self, refused: Refused, limits: Headers) -> None:
        """Refuse the handshake as plain HTTP, with the caller's limits. Raises ClientGone."""
        head, body = render(refused)
        await self.answer(refused.status, [*head, *limits], body)

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer the handshake as plain HTTP. Raises ClientGone."""
        self._require_open()
        self._respond(status, headers, body)

    def _respond(self, status: int, headers: Headers, body: bytes) -> None:
        self._is_answered = True
        if self.transport is not None:
            self.transport.write(refusal(status, headers, body))
            self.transport.close()

    def _require_open(self) -> None:
        if self._gone is not None or self.transport is None or self.transport.is_closing():
            raise ClientGone

    # Messages

    async def receive(self) -> str | bytes:
        """Return the next message. Raises ClientGone with the peer's close code, and what its gate raises."""
        while True:
            received = await self.read()
            if self.gate_in is None:
                return received
            passed = await self.gate_in(received)
            if passed is not None:
                return passed

    async def send(self, message: str | bytes) -> None:
        """Send one message; waits while the peer does not read. Raises ClientGone, and what its gate raises."""
        if self.gate_out is not None:
            passed = await self.gate_out(message)
            if passed is None:
                return
            message = passed
        await self.write(message)

    @property
    def is_compressing(self) -> bool:
        """Messages are sent compressed."""
        return self.window_bits != 0

    @property
    def can_write_now(self) -> bool:
        """Return whether frames can be written at once: no policy looks at them, and the peer reads.

        Ready frames are compressed with the widest window, or not at all: they fit no client that asks for another.
        """
        return self.gate_out is None and self._is_accepted and self.window_bits in (0, WIDEST) and self.is_writable

    def write_now(self, data: bytes) -> None:
        """Write whole messages, as frames."""
        self.write_frames(data)

    async def send_all(self, messages: Sequence[str]) -> None:
        """Send several messages, joined where no policy looks at them. Raises as ``send`` does."""
        frames, size = [], 0
        for message in messages:
            if self.gate_out is not None:
                await self.send(message)
                continue
            payload, bits = message.encode(), self.window_bits
            frames.append(compressed_message(TEXT, payload, bits) if bits else frame(TEXT, payload))
            size += len(frames[-1])
            if size >= WRITE_MAX_BYTES:
                await self._write_all(frames)
                frames, size = [], 0
        if frames:
            await self._write_all(frames)

    async def _write_all(self, frames: list[bytes]) -> None:
        await self.writable()
        self.write_frames(b"".join(frames))

    def pass_with(self, pass_on: PassOn | None) -> None:
        """Offer what arrives to this function while the socket is being read, before it is parsed."""
        self.pass_on = pass_on

    async def send_control(self, message: str | bytes) -> None:
        """Send one message of the gateway's own, which passes no gate. Raises ClientGone."""
        await self.write(message)

    async def close(self, code: int, reason: str = "") -> None:
        """Send the close frame, unless the peer is gone, and wait a while for the peer's."""
        if self._gone is not None or self._close_sent:
            return
        self.send_close(code, reason)
        if self._is_half_closed:
            self.hang_up()
            return
        self._deadline = time.monotonic() + CLOSE_TIMEOUT_S
        self._resume()
        if self.frames.buffered_bytes:
            self._await_close()

    # Its end

    def failed(self, fault: FrameFault) -> None:
        """Fail the connection; the client is told why as everywhere."""
        self._end(fault.code, Refused(_FAULTS[fault.code]).close_reason())

    def _end(self, code: int, reason: str) -> None:
        self._gone = (code, reason)
        self.send_close(code, reason)
        self._wake()
        self.hang_up()

    def hang_up(self) -> None:
        """Close the connection, and abort it if the client does not read the rest in time."""
        super().hang_up()
        self._deadline = self._deadline or time.monotonic() + CLOSE_TIMEOUT_S

    def sweep(self, now: float) -> None:
        """Enforce the deadline of the close, and ping an open connection."""
        bounds = self._site.bounds
        if self._deadline is not None:
            self._sweep_ending(now, self._deadline)
        elif (
            self._is_accepted
            and not self._is_ending
            and not self.keep_alive(now, bounds.ping_interval_s, bounds.ping_timeout_s)
        ):
            self._end(Refused(Reason.IDLE).row.websocket, Refused(Reason.IDLE).close_reason())

    def _sweep_ending(self, now: float, deadline: float) -> None:
        """Abort at the deadline. A client that has closed its socket resets a ping, which has to be looked for."""
        if self.transport is None:
            return
        if now > deadline or (self._is_half_closed and is_reset(self.transport)):
            self.transport.abort()
        elif self._is_half_closed and self.is_writable:
            self.write_frame(PING, b"")

    def shed(self) -> None:
        """Close because of a ceiling: with a refusal if the handshake is not answered yet."""
        if self.transport is None:
            return
        if self._is_answered or self.transport.is_closing():
            self.transport.abort()
        else:
            self.transport.write(CEILING_EXCEEDED)
            self.transport.close()

    def shutdown(self) -> None:
        """Close because the server stops, with what is left open after the drain."""
        if self._is_accepted:
            self.send_close(GOING_AWAY)
        self.hang_up()

    def eof_received(self) -> bool:
        """Go on with what was received, as the client may still read (RFC 9112 9.6); a socket ends soon, as 1006."""
        if self.transport is None or self._close_sent or not self.transport.can_write_eof():
            return False
        self._is_half_closed = True
        if self._is_accepted:
            self._end_soon()
        return not self._is_answered or self._is_accepted

    def _end_soon(self) -> None:
        self._deadline = time.monotonic() + HALF_CLOSED_S

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the ceilings."""
        super().connection_lost(exc)
        self.tcp.closed()
        self._server_state.connections.discard(self)
        self._site.open.discard(self)
