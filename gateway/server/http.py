"""One HTTP connection: uvicorn's protocol with the deadlines and bounds that it lacks.

Heads: complete within 10 s, 32 KiB, 100 headers, a path of 8 KiB. Bodies: no slower than 500 B/s (:mod:`.pace`).
Ambiguous framing (RFC 9112 6.3, 11.2) is refused with 400, and the connection is closed.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.utils import get_local_addr, is_ssl

from gateway.listening.tcp_connections import TcpConnection
from gateway.protocol import Protocol
from gateway.protocols.http import accepted
from gateway.protocols.problem import closing
from gateway.refusals import Reason, Refused
from gateway.server import methods, upgrades
from gateway.server.carrier import Carrier
from gateway.server.carrying_http import CarryingHttp
from gateway.server.connection import disconnect
from gateway.server.exchange import DirectExchange
from gateway.server.flow import Flow, Waiting
from gateway.server.half_closed import probe
from gateway.server.heads import fault_of_head, fault_of_old_head, has_empty_query, malformed, target_parts
from gateway.server.pace import Pace
from gateway.server.site import CEILING_EXCEEDED, Site
from gateway.server.websocket import ServerSocket
from gateway.wire.header_fields import lines_of
from gateway.wire.host import is_host

if TYPE_CHECKING:
    from gateway.plane import Plane

LINGER_S = 2.0
"""How long input is still read and dropped after a refusal: closing at once would lose the answer"""
PIPELINED_MAX = 50
"""Requests of one connection that may wait for the answer of an earlier one (RFC 9112 9.3.2)."""
PARTS_MAX, PART_MIN_BYTES = 2000, 16
"""More chunks that arrive at once must have so many bytes on average: each takes time, however small."""
LOOKED_AT = frozenset({b"content-length", b"transfer-encoding", b"expect", b"host"})
OF_UPGRADES = frozenset({b"connection", b"upgrade", b"http2-settings"})


class BoundedHttp(CarryingHttp):
    """uvicorn's HTTP protocol with deadlines and bounds."""

    __slots__ = ("_head_bytes", "_hosts", "_lengths", "_method", "_parting", "_parts", "_parts_from")

    def __init__(
        self, *arguments: Any, site: Site, tcp: TcpConnection, carrier: Carrier | None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.site = site
        self.tcp = tcp
        self.carrier, self.carried, self.known = carrier, None, None
        self.pipeline = Waiting()  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # What else uvicorn notes of a connection is looked up for the scopes of the application alone.
        self.connections.add(self)
        self.transport, self.flow = transport, Flow(transport)
        self.client = (self.tcp.ip, self.tcp.port)
        self.head_began_at = time.monotonic()
        self.body_began_at = self.idle_since = None
        self._pace = Pace(self.site.bounds, 0.0)
        self._body_bytes = self._head_bytes = self._parts = self._parts_from = 0
        self._hosts = self._lengths = 0
        self._received = 0
        """Bytes received since the head, or the last part of the body, that the parser has not reported yet."""
        self._running = self._lingers_until = None
        self._method = self._parting = b""
        """The method being read, if the parser does not know it; a refusal that waits for the requests before it."""
        self._is_refused = False
        self._is_half_closed = False
        self._unsent = (0, 0.0)
        self.site.open.add(self)
        self.tcp.closed_by(self.shed)

    def connection_lost(self, exc: Exception | None) -> None:
        self.hand_over()
        self.tcp.closed()
        self.site.open.discard(self)
        for cycle in (self._running, *(queued for queued, _ in self.pipeline)):
            disconnect(cycle)
        self.pipeline.clear()
        super().connection_lost(exc)
        # They refer to this connection; as a cycle they would stay until a collection, which stops all traffic.
        self.cycle = self._running = None  # type: ignore[assignment]

    def shutdown(self) -> None:
        """Close: at once if nothing is being answered, otherwise after the answer."""
        self.hand_over()
        if self._running is None or self._running.response_complete:
            self.transport.close()
        else:
            self._running.keep_alive = False

    def data_received(self, data: bytes) -> None:
        if self._is_refused or self._carries(data):
            return
        self.idle_since = None
        before = self.cycle
        is_start = not self._received
        if self.head_began_at is None and self.body_began_at is None:
            is_start = True
            self.head_began_at = time.monotonic()
        began_at, body_bytes = (self.head_began_at, self.body_began_at), self._body_bytes
        self._parts, self._parts_from = 0, body_bytes
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            if methods.ERROR in str(error):
                self._replace_method(data, is_first=is_start and self.cycle is before)
                return
            self._refuse(malformed(f"it is not HTTP/1.1 ({error})"))
            return
        if (self.head_began_at, self.body_began_at) == began_at != (None, None) and self._body_bytes == body_bytes:
            self._bound(len(data))

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer the requests that were sent before the client ended its sending side, and close (RFC 9112 9.6)."""
        self.hand_over()
        last = self.cycle
        if last is None or last.response_complete or last.disconnected or not self.transport.can_write_eof():
            return False
        self._is_half_closed = True
        self._probed_at = time.monotonic()
        probe(self.transport)
        if self.body_began_at is not None:
            self._refuse(malformed("its body ends before it is complete"))
        elif not self._parting:
            last.keep_alive = False
        if isinstance(self._running, DirectExchange):
            self._running.probe()
        return True

    def _bound(self, size: int) -> None:
        """Bound what the parser buffers or skips silently: half a header, a trailer, a chunk extension."""
        self._received += size
        if self._received > self.site.bounds.head_max_bytes + self.site.bounds.path_max_bytes:
            self._refuse(Refused(Reason.HEAD_TOO_LARGE))

    def _upgrade(self, rest: bytes) -> None:
        """Upgrade to WebSocket. Other upgrades are ignored (RFC 9110 7.8): the request is parsed again without them."""
        if self._is_refused:
            return
        method = self.parser.get_method()
        if self._should_upgrade():
            self._open_socket(rest)
        elif method == b"CONNECT":
            self._refuse(Refused(Reason.METHOD_NOT_IMPLEMENTED, "The gateway does not serve CONNECT."))
        else:
            line = b"%b %b HTTP/%b\r\n" % (method, self.url, self.parser.get_http_version().encode())
            kept = lines_of(header for header in self.headers if header[0] not in OF_UPGRADES)
            self.parser = httptools.HttpRequestParser(self)
            self.data_received(b"%b%b\r\n%b" % (line, kept, rest))

    def _replace_method(self, data: bytes, *, is_first: bool) -> None:
        """Parse a request again whose method the parser does not know. Behind another request, its start is unknown."""
        try:
            self._method = methods.unknown_method(data if is_first else b"")
        except Refused as refused:
            self._refuse(refused.bare())
            return
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(methods.STAND_IN + data[len(self._method) :])

    def _get_upgrade(self) -> bytes | None:
        return upgrades.requested(self.headers)

    def _open_socket(self, rest: bytes) -> None:
        """Hand the connection over to a WebSocket, with what was sent behind the head."""
        if upgrades.has_body(self.headers) or self.parser.get_method() != b"GET":
            self._refuse(malformed("a WebSocket is opened by a GET without a body"))
            return
        self.site.open.discard(self)
        self.connections.discard(self)
        socket = ServerSocket(self.site, self.tcp, self.server_state, target_parts(self.url)[0])
        self.transport.set_protocol(socket)
        socket.begin(self.transport, self.headers, upgrades.served_by(self, self.url, self.headers))
        if rest:
            socket.data_received(rest)
        # It refers to this connection, which will not notice its end.
        self.parser = None  # type: ignore[assignment]

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        self.tcp.busy()
        if isinstance(cycle, DirectExchange):
            # The server keeps no reference to this task: it waits for the connection, which waits for its answer.
            cycle.task = self.loop.create_task(cycle.run_asgi(app))
        else:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Continue with the next request, or become idle: the sweep measures that, without a timer per request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing() or self._lingers_until is not None:
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        while self.pipeline:
            cycle, application = self.pipeline.pop()
            if cycle.disconnected:
                continue
            self._start_asgi_task(cycle, application)
            return
        if self._parting:
            self._part(self._parting)
        else:
            self.idle_since = time.monotonic()
            self.tcp.idle()

    def on_message_begin(self) -> None:
        """Begin a request; uvicorn's scope is made only for requests to the application."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._head_bytes = self._hosts = self._lengths = self._received = 0
        self.body_began_at = None
        if self.head_began_at is None:
            self.head_began_at = time.monotonic()

    def _make_scope(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        self.server, self.scheme = get_local_addr(self.transport), "https" if is_ssl(self.transport) else "http"
        self.app_state = {**self.app_state, "tcp": self.tcp}
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > self.site.bounds.path_max_bytes:
            self._refuse(Refused(Reason.PATH_TOO_LONG))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_began_at is None:
            # A trailer, which must never be taken for a header of the request (RFC 9110 6.5.1).
            return
        lowered = name.lower()
        self.headers.append((lowered, value))
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self.site.bounds.head_max_bytes or len(self.headers) > self.site.bounds.head_max_count:
            self._refuse(Refused(Reason.HEAD_TOO_LARGE))
        if lowered in LOOKED_AT:
            self._look_at(lowered, value)

    def _look_at(self, lowered: bytes, value: bytes) -> None:
        """Read a header that says how the request is framed, or to whom it goes."""
        if lowered == b"host":
            self._hosts += 1
            if not is_host(value):
                self._refuse(malformed("its Host is not a host name or address, with a port or without"))
        elif lowered == b"expect":
            # In HTTP/1.0 it is ignored (RFC 9110 10.1.1).
            self.expect_100_continue = value.lower() == b"100-continue" and self.parser.get_http_version() == "1.1"
        else:
            self._lengths += 1
            if self._lengths > 1:
                self._refuse(malformed("its length is given twice"))
            elif lowered == b"transfer-encoding" and value.strip(b" \t").lower() != b"chunked":
                self._refuse(malformed("`chunked` is the only supported Transfer-Encoding"))

    def on_headers_complete(self) -> None:
        if self._is_refused:
            return
        version = self.parser.get_http_version()
        fault = fault_of_head(version, self.url, hosts=self._hosts)
        if not fault and version == "1.0":
            fault = fault_of_old_head(self.headers, upgrade=self._get_upgrade())
        if fault:
            self._refuse(malformed(fault))
        elif (scarce := self.site.scarcity(self.url)) is not None:
            self._refuse(scarce)
        elif self.parser.should_upgrade():
            if self._should_upgrade():
                self._make_scope()
                super().on_headers_complete()
        else:
            self._head_complete(version)

    def _head_complete(self, version: str) -> None:
        """Start a call of the data plane, or a cycle of the application."""
        if len(self.pipeline) >= PIPELINED_MAX:
            self._refuse(malformed("too many requests before it are not answered yet"))
            return
        self.head_began_at = None
        self._body_bytes = self._received = 0
        if self._lengths:
            self.body_began_at = time.monotonic()
            self._pace = Pace(self.site.bounds, self.body_began_at)
        plane = self.site.plane()
        if plane is not None:
            path, query = target_parts(self.url)
            if not self.site.is_elsewhere(path):
                self._begin(plane, path, query, version)
                return
        self._make_scope()
        super().on_headers_complete()

    def _begin(self, plane: Plane, path: bytes, query: bytes, version: str) -> None:
        """Start a call of the data plane, or queue it behind the one being answered (pipelining, RFC 9112 9.3.2)."""
        method = (self._method or self.parser.get_method()).decode("ascii")
        self._method = b""
        call = accepted(plane, Protocol.HTTP, method, path, query, self.headers, self.tcp.ip, self.tcp)
        call.has_empty_query = has_empty_query(self.url)
        before = self.cycle
        exchange = DirectExchange(
            plane,
            call,
            self,
            keep_alive=version == "1.1" and self.parser.should_keep_alive(),
            takes_chunks=version == "1.1",
            expects_100=self.expect_100_continue,
        )
        self.cycle = exchange  # type: ignore[assignment]
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        self._received = 0
        if not self._is_refused:
            self._body_bytes += len(body)
            self._parts += 1
            if self._parts > PARTS_MAX and self._body_bytes - self._parts_from < self._parts * PART_MIN_BYTES:
                self._refuse(malformed("its chunks are too small"))
            if self.cycle and self.cycle.response_complete and self._body_bytes > self.site.bounds.body_max_bytes:
                # Nobody reads it any more, and no limit counts it.
                self.linger()
            super().on_body(body)

    def on_message_complete(self) -> None:
        self.body_began_at = None
        cycle: Any = self.cycle
        if self._is_refused or self.parser.should_upgrade():
            return
        if cycle.response_complete:
            # It was answered before its body was complete: only now is the connection idle.
            self.idle_since = time.monotonic()
            return
        cycle.more_body = False
        cycle.message_event.set()

    def shed(self) -> None:
        """Close because of a ceiling: with a refusal if a head is awaited, in the middle of an answer without."""
        self.hand_over()
        is_answering = self._running is not None and not self._running.response_complete
        if is_answering or self._lingers_until is not None or self.transport.is_closing():
            self.transport.abort()
            return
        if self.head_began_at is not None:
            self.transport.write(CEILING_EXCEEDED)
        self.transport.close()

    def _refuse(self, refused: Refused) -> None:
        """Send a refusal once the earlier requests are answered, and close; nothing more is read."""
        if self._is_refused:
            return
        self._is_refused = True
        running = None if self._running is None or self._running.response_complete else self._running
        reading: Any = self.cycle if self.body_began_at is not None and not self.cycle.response_complete else None
        if isinstance(reading, DirectExchange):
            reading.fail(refused)
            return
        self.site.refused(refused)
        if reading is not None:
            # Django is notified that its client is gone.
            disconnect(reading)
            running = None if reading is running else running
        if running is not None:
            self._parting = closing(refused)
        elif reading is not None and reading.response_started:
            self.transport.close()
        else:
            self._part(closing(refused))

    def linger(self) -> None:
        """Close once the client has stopped sending, or has had time to read the response."""
        self._is_refused = True
        if self._is_half_closed or not self.transport.can_write_eof():
            self.transport.close()
            return
        self._lingers_until = time.monotonic() + LINGER_S
        self.flow.resume_reading()
        self.transport.write_eof()

    def _part(self, last: bytes) -> None:
        self.transport.write(last)
        self.linger()
