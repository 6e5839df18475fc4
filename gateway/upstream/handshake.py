"""The opening handshake with the upstream of a WebSocket (RFC 6455 4.1), which is answered by 101 or refused."""

from __future__ import annotations

import base64
import os
from typing import Any

import httptools

from gateway.sockets.connection import FrameConnection
from gateway.upstream.connection import UpstreamBroken, UpstreamConnection
from gateway.upstream.origin import Origin
from gateway.wire.header_fields import Headers, lines_of
from gateway.wire.websocket import accept_of


class Handshake(UpstreamConnection):
    """A connection that requests an upgrade. Once it is answered the socket takes over; a refusal is a response."""

    def __init__(self, origin: Origin, target: bytes, headers: Headers, socket: FrameConnection) -> None:
        super().__init__(origin)
        self._key = base64.b64encode(os.urandom(16))
        self._request = (
            b"GET %b HTTP/1.1\r\n%bupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\n"
            b"sec-websocket-key: %b\r\n\r\n" % (target, lines_of(headers), self._key)
        )
        self._socket: FrameConnection | None = socket
        self.subprotocol: str | None = None
        """The subprotocol that the upstream chose, if any."""
        self._is_upgraded = False

    async def upgraded(self) -> bool:
        """Wait for the answer; return whether it is 101, or else a response to read.

        Raises UpstreamBroken, also for a 101 that does not answer this request.
        """
        while not await self.head():
            self.interim.clear()
        if self.status != 101:
            return False
        if not self._is_upgraded:
            raise UpstreamBroken("101 that does not answer the request for an upgrade to websocket")
        return True

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._parser = httptools.HttpResponseParser(self)
        transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._socket = None

    def on_headers_complete(self) -> None:
        assert self._parser is not None, "called by the parser"
        if self._parser.get_status_code() == 101:
            self.status, self.has_answered = 101, True
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self.status != 101:
            super().on_message_complete()

    def _switched(self, rest: bytes) -> None:
        """Hand the connection over to the socket, with what was sent behind the head."""
        fields = dict(self.headers)
        is_answer = fields.get(b"sec-websocket-accept", b"").strip() == accept_of(self._key)
        if fields.get(b"upgrade", b"").lower() != b"websocket" or not is_answer or self._transport is None:
            return
        self._is_upgraded = True
        chosen = fields.get(b"sec-websocket-protocol")
        self.subprotocol = None if chosen is None else chosen.strip().decode("latin-1")
        # They refer to this connection, which will not notice its end.
        self._parser, socket, self._socket = None, self._socket, None
        assert socket is not None, "it is handed over once"
        self._transport.set_protocol(socket)
        socket.connection_made(self._transport)
        if rest:
            socket.data_received(rest)
