"""An exchange directly on a connection of the server, without ASGI messages in between.

It takes the place of uvicorn's request cycle, so that pipelining, keep-alive and shutdown work as they do for Django.
Handlers behave as over ASGI, and so do the bytes on the wire.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from gateway.call import Call, Reply
from gateway.peer import ClientGone
from gateway.protocols.exchange import WITHOUT_BODY, Exchange
from gateway.protocols.http import serve_call
from gateway.refusals import Refused
from gateway.wire.header_fields import Headers, lines_of

if TYPE_CHECKING:
    from gateway.plane import Plane
    from gateway.server.connection import HttpConnection

logger = logging.getLogger(__name__)


class _StatusLines(dict[int, bytes]):
    """The status line of each status; without a phrase for one that has no name."""

    def __missing__(self, status: int) -> bytes:
        return b"HTTP/1.1 %d \r\n" % status


STATUS_LINES = _StatusLines(
    {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
)
CHUNKED = b"transfer-encoding: chunked\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EXAMINED = frozenset({b"content-length", b"connection", b"upgrade", b"trailer"})


class DirectExchange(Exchange):
    """One request and its response on a connection of the server."""

    __slots__ = (
        "_ends_with_connection", "_failure", "_has_upgrade", "_is_chunked", "_is_head", "_lines", "_phrase", "_plane",
        "_probe", "_protocol", "_trailers", "_waiter", "body", "disconnected", "handling", "keep_alive", "more_body",
        "on_gone", "on_response", "response_complete", "takes_chunks", "task", "waiting_for_100_continue",
    )  # fmt: skip

    def __init__(
        self,
        plane: Plane,
        call: Call,
        protocol: HttpConnection,
        *,
        keep_alive: bool,
        takes_chunks: bool,
        expects_100: bool,
    ) -> None:
        super().__init__(plane, call)
        self._plane = plane
        self._protocol = protocol
        self._failure: Refused | None = None
        self._lines: list[bytes] = []
        self._phrase: tuple[int, bytes] | None = None
        self._trailers = b""
        self._has_upgrade = False
        self._is_chunked = False
        self._ends_with_connection = False
        self._is_head = call.method == "HEAD"
        self._waiter: asyncio.Future[None] | None = None
        self._probe: tuple[bytes, Callable[[], bool] | None] | None = None
        self.task: asyncio.Task[None] | None = None
        self.handling: Awaitable[Reply] | None = None
        """What goes on with a call that was carried so far."""
        self.body = bytearray()
        self.more_body = True
        self.disconnected = False
        self.keep_alive = keep_alive
        self.takes_chunks = takes_chunks
        """False for HTTP/1.0, where the end of the connection ends the response."""
        self.on_gone: Callable[[], None] | None = None
        self.waiting_for_100_continue = expects_100
        self.response_complete = False
        self.on_response: Any = protocol.on_response_complete

    @property
    def response_started(self) -> bool:
        """Whether the head is sent, or about to be."""
        return self.has_started

    @property
    def message_event(self) -> DirectExchange:
        """The event that uvicorn sets when the exchange changes: the exchange itself."""
        return self

    def set(self) -> None:
        """Wake the waiter: a part of the body arrived, it ended, or the client disconnected."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self.disconnected and self.on_gone is not None:
            self.on_gone()

    def go_on(self, handling: Awaitable[Reply], body_bytes: int) -> None:
        """Go on with a call that was carried so far, and whose body of this size has been passed on."""
        self.handling, self.more_body = handling, False
        self.is_read, self.bytes_in = True, body_bytes

    def fail(self, refused: Refused) -> None:
        """End the body with a refusal, which its reader raises; it is answered and counted like any other."""
        self._failure = refused
        self.keep_alive = False
        self.set()

    def watch(self, gone: Callable[[], None] | None) -> None:
        """Call ``gone`` once the client has disconnected; None cancels that."""
        self.on_gone = gone
        if gone is not None and self.disconnected:
            gone()

    def probe_with(self, part: bytes, may_send: Callable[[], bool] | None = None) -> None:
        """Send this part of the body, if it may be sent then, once the client has ended its sending side."""
        self._probe = (part, may_send)

    def probe(self) -> None:
        """Find out whether a client that has ended its sending side still reads: a reset returns if not."""
        if self._probe is None or self._lines or self.response_complete or not self.has_started:
            return
        part, may_send = self._probe
        if may_send is None or may_send():
            self._protocol.transport.write(b"".join(chunk(part, more=True) if self._is_chunked else (part,)))

    def probe_early(self) -> None:
        """Find that out before the response, by an interim one: clients skip those (RFC 9110 15.2), not of HTTP/1.0."""
        if self.takes_chunks and not self.has_started:
            self._protocol.transport.write(CONTINUE)

    async def run_asgi(self, application: Any) -> None:
        """Serve the call, as uvicorn's cycle would run an application."""
        try:
            await serve_call(self._plane, self._call, self, self.handling)
        except ConnectionAbortedError:
            self._break_off()
        except Exception:
            logger.exception("serving a call failed")
            self._protocol.transport.close()
        finally:
            if not self.response_complete and not self.disconnected:
                self._protocol.transport.close()
            self.on_response = _nothing

    async def send(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the body; the head goes with the first. Raises ClientGone."""
        protocol = self._protocol
        if protocol.flow.write_paused and not self.disconnected:
            await protocol.flow.drain()
        if self.disconnected:
            raise ClientGone
        lines, self._lines = self._lines, []
        if not self._is_head:
            lines += chunk(body, self._trailers, more=more) if self._is_chunked else (body,)
        protocol.transport.write(b"".join(lines))
        if not more:
            self._end()

    @property
    def can_write_now(self) -> bool:
        """Return whether the head is sent, the body is not at its end, and the client reads."""
        protocol = self._protocol
        return (
            self.has_started
            and not self._lines
            and not self.response_complete
            and not self.disconnected
            and not protocol.flow.write_paused
            and not protocol.transport.is_closing()
        )

    def write_now(self, data: bytes) -> None:
        """Write a part of the body without waiting."""
        self._protocol.transport.write(_shared_chunk(data) if self._is_chunked else data)

    def inform(self, status: int, headers: Headers) -> None:
        """Send an interim response; a client of HTTP/1.0 cannot receive one (RFC 9110 15.2)."""
        if self.takes_chunks and not self.has_started and not self.disconnected:
            fields = lines_of(self._policies.unchanged(self._call, status, headers))
            self._protocol.transport.write(b"%b%b\r\n" % (STATUS_LINES[status], fields))

    def name_status(self, status: int, phrase: bytes) -> None:
        """Send this reason phrase with the status."""
        self._phrase = (status, phrase)

    def trail(self, trailers: Headers) -> None:
        """Send trailers after the last chunk; none to a client that does not accept them (RFC 9110 6.5.1)."""
        if self._is_chunked and self._takes_trailers():
            self._trailers = lines_of(self._policies.unchanged(self._call, 0, trailers))

    def _end(self) -> None:
        self.response_complete = True
        self.set()
        if not self.keep_alive:
            if self.more_body:
                self._protocol.linger()
            else:
                self._protocol.transport.close()
        self.on_response()

    def _break_off(self) -> None:
        """End an incomplete response. If the end of the connection ends the response, reset it (RFC 9112 8)."""
        transport = self._protocol.transport
        socket_ = transport.get_extra_info("socket")
        if self._ends_with_connection and socket_ is not None:
            socket_.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            transport.close()

    async def gone(self) -> None:
        """Return once the client has disconnected."""
        while not self.disconnected and not self.response_complete:
            await self._wait()

    @property
    def expects_continue(self) -> bool:
        """Whether the client sends the body once it is asked for it (RFC 9110 10.1.1)."""
        return self.waiting_for_100_continue

    @property
    def has_part(self) -> bool:
        """Whether a read returns, or raises, at once."""
        return bool(self.body or not self.more_body or self._buffered is not None or self.disconnected or self._failure)

    async def _part(self) -> bytes:
        protocol = self._protocol
        if self.waiting_for_100_continue and not self.has_started:
            self.waiting_for_100_continue = False
            if not self.has_part and not protocol.transport.is_closing():
                protocol.transport.write(CONTINUE)
        while not self.body and self.more_body and not self.disconnected and self._failure is None:
            protocol.flow.resume_reading()
            await self._wait()
        if self.disconnected:
            raise ClientGone
        if self._failure is not None:
            failure, self._failure, self.is_read = self._failure, None, True
            try:
                raise failure
            finally:
                del failure
        part, self.body = bytes(self.body), bytearray()
        self.is_read = not self.more_body
        return part

    async def _head(self, status: int, headers: Headers) -> None:
        if self.waiting_for_100_continue:
            # The client may or may not send the body that was not requested, so the connection cannot be reused.
            self.keep_alive = False
        if self._phrase is not None and self._phrase[0] == status:
            lines = [b"HTTP/1.1 %d %b\r\n" % self._phrase]
        else:
            lines = [STATUS_LINES[status]]
        has_length = is_without_body = status in WITHOUT_BODY
        for header in (*self._protocol.server_state.default_headers, *headers):
            if header[0] in EXAMINED:
                if header[0] == b"content-length" and not is_without_body:
                    has_length = True
                elif not self._is_sent(*header):
                    continue
            lines.append(b"%b: %b\r\n" % header)
        lines += (*self._framing(has_length=has_length), b"\r\n")
        self._lines.append(joined_lines(lines))

    def _is_sent(self, name: bytes, value: bytes) -> bool:
        """Return whether a header of the connection is sent; ``_framing`` writes ``Connection`` itself."""
        if name == b"content-length":
            return False
        if name == b"connection":
            self.keep_alive = self.keep_alive and value != b"close"
            return False
        if name == b"upgrade":
            self._has_upgrade = True
        return name != b"trailer" or self._takes_trailers()

    def _framing(self, *, has_length: bool) -> list[bytes]:
        """Return the header lines that frame the body: chunked, or ended by closing the connection (RFC 9112 6.3)."""
        lines = []
        if not has_length and self.takes_chunks:
            self._is_chunked = True
            lines.append(CHUNKED)
        elif not has_length:
            self.keep_alive = False
            self._ends_with_connection = True
        if self._has_upgrade:
            # It is of this connection, and must be named so (RFC 9110 7.8).
            lines.append(b"connection: upgrade\r\n" if self.keep_alive else b"connection: upgrade, close\r\n")
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
        return lines

    async def _wait(self) -> None:
        self._waiter = self._protocol.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


def joined_lines(lines: list[bytes]) -> bytes:
    """Return the lines of a head as one text. Raises ValueError if one has a line break inside."""
    head = b"".join(lines)
    count = len(lines)
    if head.count(b"\n") != count or head.count(b"\r") != count:
        raise ValueError("a response header contains a line break")
    return head


def chunk(body: bytes, trailers: bytes = b"", *, more: bool) -> tuple[bytes, ...]:
    """Return a part of a chunked body, with the last chunk and the trailers unless there is more (RFC 9112 7.1)."""
    chunk = (b"%x\r\n" % len(body), body, b"\r\n") if body else ()
    return chunk if more else (*chunk, b"0\r\n%b\r\n" % trailers)


@lru_cache(maxsize=2)
def _shared_chunk(body: bytes) -> bytes:
    """Return a chunk, made once for all streams that are sent the same part one after the other."""
    return b"".join(chunk(body, more=True))


def _nothing() -> None:
    """Replace the completion callback once it has been called."""
