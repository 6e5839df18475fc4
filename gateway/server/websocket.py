"""uvicorn's WebSocket protocol with bounds on fragments and pongs, and a keepalive that tolerates back-pressure."""

from __future__ import annotations

import logging
from asyncio import BaseTransport
from dataclasses import replace
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets import http11
from websockets.datastructures import Headers
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from gateway.listening.tcp_connections import TcpConnection
from gateway.protocols.exchange import WITHOUT_BODY
from gateway.protocols.problem import render
from gateway.protocols.socket import FRAMES
from gateway.refusals import Reason, Refused
from gateway.server.site import CEILING_EXCEEDED
from gateway.wire.fragments import Fragments

logger = logging.getLogger(__name__)
"""uvicorn and websockets log each handshake to it, as ``info``; by default only warnings are written."""

http11.MAX_LINE_LENGTH = 64 * 1024
"""The head was bounded before it is parsed here; the library's own 8 KiB a line is less than what is accepted."""
CLOSE_TIMEOUT_S = 5.0
DETAIL_MAX_CHARS = 200
STREAM_PATH = "/v1/stream"
SLICE_BYTES = 4 * 1024
"""Parsed before other connections are served: some seven hundred of the smallest frames, or a part of one."""
_FAULTS: dict[int, Reason] = {
    CloseCode.PROTOCOL_ERROR: Reason.INVALID_REQUEST,
    CloseCode.INVALID_DATA: Reason.INVALID_PAYLOAD,
    CloseCode.MESSAGE_TOO_BIG: Reason.TOO_LARGE,
}


class Frames(ServerProtocol):
    """The frames of one socket; faults of the peer become refusals."""

    def accept(self, request: Request) -> Response:
        """Answer a handshake. Why it is refused is not kept with the frames that raised it: they refer to it."""
        response = super().accept(request)
        if self.handshake_exc is not None:
            self.handshake_exc.__traceback__ = self.handshake_exc.__context__ = self.handshake_exc.__cause__ = None
        return response

    def reject(self, status: int, text: str) -> Response:
        """Return the refusal of a handshake; for another version, with the supported one (RFC 6455 4.4)."""
        refused = Refused(Reason.INVALID_REQUEST, text.strip()[:DETAIL_MAX_CHARS])
        if "Sec-WebSocket-Version" in text:
            supported = ((b"upgrade", b"websocket"), (b"sec-websocket-version", b"13"))
            refused = Refused(Reason.UPGRADE_REQUIRED, refused.detail, headers=supported)
        headers, body = render(refused)
        options = b"upgrade, close" if refused.reason is Reason.UPGRADE_REQUIRED else b"close"
        lines = [(name.decode(), value.decode()) for name, value in [*headers, (b"connection", options)]]
        return Response(refused.status, HTTPStatus(refused.status).phrase, Headers(lines), body)

    def send_response(self, response: Response) -> None:
        """Send the answer to a handshake without the type that uvicorn guesses, and no length where no body follows.

        uvicorn's own names are capitalised, the gateway's are not.
        """
        given = [header for header in response.headers.raw_items() if header[0] != "Content-Type"]
        if response.status_code in WITHOUT_BODY:
            given = [header for header in given if header[0].lower() != "content-length"]
        super().send_response(replace(response, headers=Headers(given)))

    def fail(self, code: int, reason: str = "") -> None:
        """Fail the connection (RFC 6455 7.1.7)."""
        fault = _FAULTS.get(code)
        super().fail(code, reason if fault is None else Refused(fault).close_reason())

    def recv_frame(self, frame: Frame) -> None:
        """Process a frame. A close frame may come between the fragments of a message (RFC 6455 5.4)."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


class BoundedSocket(WebSocketsSansIOProtocol):
    """One WebSocket of the server."""

    def __init__(self, *arguments: Any, stream_message_max_bytes: int | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.stream_message_max_bytes = stream_message_max_bytes
        """The bound of a message on ``/v1/stream``; elsewhere the server's own bound applies."""
        self.logger = logger
        self.conn = Frames(max_size=self.config.ws_max_size, logger=logger)
        self.fragments = Fragments()
        self._unparsed = bytearray()
        self._extensions: dict[str, Any] = {}
        """What the application may use besides ASGI; refers to this connection as long as it is open."""
        self._is_half_closed = False
        self.tcp: TcpConnection | None = self.app_state.get("tcp")

    def connection_made(self, transport: BaseTransport) -> None:
        """Start; the closing handshake has its own deadline."""
        super().connection_made(transport)
        self.close_timeout = CLOSE_TIMEOUT_S
        if self.tcp is not None:
            self.client = (self.tcp.ip, self.tcp.port)
            self.tcp.busy()
            self.tcp.closed_by(self.shed)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived: a large read slice by slice, as it may hold tens of thousands of frames."""
        is_parsing = bool(self._unparsed)
        if not is_parsing and len(data) <= SLICE_BYTES:
            super().data_received(data)
            return
        self._unparsed += data
        if not is_parsing:
            self._parse_slice()

    def _parse_slice(self) -> None:
        part = bytes(self._unparsed[:SLICE_BYTES])
        if self.transport.is_closing():
            self._unparsed.clear()
            return
        super().data_received(part)
        del self._unparsed[:SLICE_BYTES]
        if self._unparsed:
            # Until all is parsed, nothing more is read, so neither does the end of the stream overtake it.
            self.transport.pause_reading()
            self.loop.call_soon(self._parse_slice)
        elif not self.read_paused:
            self.transport.resume_reading()

    @property
    def can_write_frames(self) -> bool:
        """Return whether the socket is open and its client reads: no more is unsent than the transport buffers."""
        return self.writable.is_set() and not self.close_sent and not self.transport.is_closing()

    def write_frames(self, frames: bytes) -> None:
        """Write whole messages, as frames."""
        self.transport.write(frames)

    async def can_write(self) -> None:
        """Wait until frames can be written. Raises ClientDisconnected."""
        while not self.can_write_frames:
            if self.writable.is_set():
                raise ClientDisconnected
            await self.writable.wait()

    async def receive(self) -> Any:
        """Return the next message for the application, and read on once there is none left."""
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            if not self._unparsed:
                self.transport.resume_reading()
        return message

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer a handshake that was sent whole. An open socket ends with its client's sending side, as 1006."""
        self._is_half_closed = True
        return self.handshake_initiated and not self.handshake_complete and self.transport.can_write_eof()

    def start_keepalive(self) -> None:
        """Keep the accepted socket alive, unless its client has ended its sending side meanwhile."""
        if self._is_half_closed:
            self.transport.close()
        else:
            super().start_keepalive()

    def shed(self) -> None:
        """Close because of a ceiling: with a refusal if the handshake is not answered yet."""
        if self.handshake_complete or self.transport.is_closing():
            self.transport.abort()
        else:
            self.transport.write(CEILING_EXCEEDED)
            self.transport.close()

    @property
    def is_unreadable(self) -> bool:
        """Whether parsing the head again failed: uvicorn would leave the connection open without an answer."""
        return self.conn.handshake_exc is not None and not self.handshake_initiated

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the ceilings. Report 1006 if the peer left without a close frame, for which uvicorn reports 1005."""
        if self.tcp is not None:
            self.tcp.closed()
        if self.handshake_complete and not self.close_sent and self.conn.close_rcvd is None:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": CloseCode.ABNORMAL_CLOSURE.value})
        super().connection_lost(exc)
        # They refer to this connection; as a cycle all would stay until a collection, which stops all traffic.
        self.conn.parser.close()
        del self.conn.parser
        self.conn.handshake_exc = self.conn.parser_exc = None
        self._extensions.clear()

    def handle_connect(self, event: Request) -> None:
        """Start the handshake, and set the bound of messages by its path."""
        if event.path.partition("?")[0] == STREAM_PATH and self.stream_message_max_bytes is not None:
            self.conn.max_message_size = self.stream_message_max_bytes
        super().handle_connect(event)
        if not self.handshake_complete:
            self._extensions = cast("dict[str, Any]", self.scope["extensions"])
            self._extensions[FRAMES] = self
        if not self.handshake_complete and event.path.find("?") == len(event.path) - 1:
            # In ASGI, an empty query and none are the same.
            self.scope["state"]["has_empty_query"] = True

    async def run_asgi(self) -> None:
        """Run the application. uvicorn would log an error for each handshake that is refused by an answer."""
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            return
        except Exception:
            logger.exception("serving a WebSocket failed")
            self.send_500_response()
        finally:
            if self.close_timer is None:
                self.transport.close()

    def handle_cont(self, event: Frame) -> None:
        """Process one more fragment of a message."""
        try:
            self.fragments.add(bytes(event.data))
        except Refused as refused:
            self._end(refused)
            return
        if event.fin:
            self.send_receive_event_to_app()

    def send_receive_event_to_app(self) -> None:
        """Queue a whole message, or fail on invalid UTF-8, for which uvicorn would log a stack trace."""
        (whole,), self.frames = self.frames, []
        if self.fragments.size:
            whole += self.fragments.take()
        if self.close_sent:
            return
        if self.curr_msg_data_type == "text":
            try:
                self.queue.put_nowait({"type": "websocket.receive", "text": whole.decode()})
            except UnicodeDecodeError:
                self._end(Refused(Reason.INVALID_PAYLOAD), CloseCode.INVALID_DATA)
                return
        else:
            self.queue.put_nowait({"type": "websocket.receive", "bytes": whole})
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def handle_ping(self) -> None:
        """Answer a ping, unless the peer does not read: pongs would queue without bound."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def keepalive_timeout(self) -> None:
        """Close if no pong came in time, unless reading was paused by a limit: the pong may be unread then."""
        if self.read_paused:
            self.pong_timer = None
            self.pending_ping_payload = None
            self.schedule_ping()
        elif not self.transport.is_closing():
            self._end(Refused(Reason.IDLE))

    def _end(self, refused: Refused, code: int | None = None) -> None:
        if self.close_sent:
            return
        code = code or refused.row.websocket
        self.stop_keepalive()
        self.conn.fail(code, refused.close_reason())
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": refused.close_reason()})
        if self.writable.is_set():
            self.transport.close()
        else:
            # The queued data would never be read and would keep the socket open.
            self.transport.abort()
