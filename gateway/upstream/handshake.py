"""The opening handshake with the upstream of a WebSocket (RFC 6455 4.1), which is answered by 101 or refused."""

from __future__ import annotations

import logging
from typing import Any

import httptools
import picows
from picows.picows import WSProtocol  # type: ignore[attr-defined]

from gateway.upstream.connection import Origin, UpstreamBroken, UpstreamConnection
from gateway.wire.header_fields import lines_of

logger = logging.getLogger("picows.client")

READ_BUFFER_BYTES = 16 * 1024
NEGOTIATED = frozenset({b"sec-websocket-accept", b"sec-websocket-protocol"})


class Handshake(UpstreamConnection):
    """A connection that requests an upgrade. Its frames are picows's once it is answered; a refusal is a response.

    picows itself would drop the connection with a refusal, and whatever of its body had not arrived yet.
    """

    def __init__(
        self,
        origin: Origin,
        target: str,
        headers: list[tuple[str, str]],
        listener: picows.WSListener,
        *,
        frame_max_bytes: int,
    ) -> None:
        super().__init__(origin)
        self._frames: Any = WSProtocol(
            origin.authority, target, True, lambda: listener, logger, True, None, False, 10, 10,
            picows.WSAutoPingStrategy.PING_WHEN_IDLE, True, frame_max_bytes, headers, READ_BUFFER_BYTES,
        )  # fmt: skip
        self._is_upgraded = False

    async def upgraded(self) -> bool:
        """Wait for the answer; return whether it is 101, or else a response to read.

        Raises UpstreamBroken, and ``picows.WSError`` for a 101 that does not answer this request.
        """
        while not await self.head():
            self.interim.clear()
        if self.status != 101:
            return False
        if not self._is_upgraded:
            raise UpstreamBroken("101 without an upgrade to websocket")
        await self._frames.wait_until_handshake_complete()
        return True

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._parser = httptools.HttpResponseParser(self)
        self._frames.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._frames = None

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
        """Hand the connection over to picows, which reads one exact head: only what was negotiated is passed to it."""
        fields = dict(self.headers)
        if fields.get(b"upgrade", b"").lower() != b"websocket" or self._transport is None:
            return
        self._is_upgraded = True
        # It refers to this connection, which will not notice its end.
        self._parser = None
        negotiated = lines_of(field for field in self.headers if field[0] in NEGOTIATED)
        head = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n%b\r\n"
        # uvloop chooses how to read when it begins to.
        self._transport.pause_reading()
        self._transport.set_protocol(self._frames)
        self._transport.resume_reading()
        _feed(self._frames, head % negotiated + rest)


def _feed(protocol: Any, data: bytes) -> None:
    """Pass data to a protocol that has a buffer of its own."""
    while data:
        buffer = protocol.get_buffer(len(data))
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        protocol.buffer_updated(size)
        data = data[size:]
