"""The HTTP server: uvicorn with the deadlines and bounds that it lacks, and a drain before it stops.

Heads: complete within 10 s, 32 KiB, 100 headers, a path of 8 KiB. Bodies: no slower than 500 B/s after 5 s. Framing
that two readers could read in two ways (RFC 9112 6.3, 11.2) is refused with 400 and the connection closed.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.call import Protocol
from gateway.config import Config
from gateway.protocols.http import accepted, rendered
from gateway.refusals import Reason, Refused
from gateway.server_exchange import DirectExchange
from gateway.server_socket import BoundedSocket

if TYPE_CHECKING:
    from gateway.plane import Plane

SWEEP_S = 0.5
OF_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"expect"})
REASON_PHRASES = {
    400: b"Bad Request",
    408: b"Request Timeout",
    414: b"URI Too Long",
    431: b"Request Header Fields Too Large",
}


@dataclass(frozen=True, slots=True)
class Site:
    """What the connections of this process serve, and within which bounds."""

    bounds: Config
    plane: Callable[[], Plane | None]
    """Gives the data plane that calls go to straight, without ASGI's messages; None sends all to the application."""
    is_elsewhere: Callable[[bytes], bool]
    """Says whether a path is the application's and not the data plane's."""
    refused: Callable[[Refused], None]
    """Counts what never became a call."""


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP protocol with deadlines and bounds."""

    site: ClassVar[Site]
    open: ClassVar[set[BoundedHttp]] = set()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.head_began_at: float | None = time.monotonic()
        self.body_began_at: float | None = None
        self._body_bytes = 0
        self._head_bytes = 0
        self._lengths: list[bytes] = []
        self._is_refused = False
        self._tail = b""
        self.idle_since: float | None = None
        """Since when nothing was asked on a connection that was used before."""
        self.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open.discard(self)
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self.open.discard(self)
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        self.idle_since = None
        if self.head_began_at is None and self.body_began_at is None:
            self.head_began_at = time.monotonic()
        if self.head_began_at is not None and self._has_bare_line_feed(data):
            self._refuse(_malformed("a line does not end with CRLF"))
            return
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Go on with the next request, or begin to be idle: the sweep counts that, no timer a request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, application = self.pipeline.pop()
            self._start_asgi_task(cycle, application)
        else:
            self.idle_since = time.monotonic()

    def send_400_response(self, msg: str) -> None:
        if not self._is_refused:
            self._refuse(_malformed("the request is not HTTP/1.1"))

    def on_message_begin(self) -> None:
        """Begin a request; uvicorn's scope is made only for those that are the application's."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._head_bytes = 0
        self._lengths = []
        if self.head_began_at is None:
            self.head_began_at = time.monotonic()

    def _make_scope(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.site.bounds.path_max_bytes:
            self._refuse(Refused(Reason.PATH_TOO_LONG))

    def on_header(self, name: bytes, value: bytes) -> None:
        lowered = name.lower()
        self.headers.append((lowered, value))
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self.site.bounds.head_max_bytes or len(self.headers) > self.site.bounds.head_max_count:
            self._refuse(Refused(Reason.HEAD_TOO_LARGE))
        if lowered not in OF_FRAMING:
            return
        if lowered == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        else:
            self._lengths.append(lowered)
            if len(self._lengths) > 1:
                self._refuse(_malformed("its length is said twice"))
            elif lowered == b"transfer-encoding" and value.strip().lower() != b"chunked":
                self._refuse(_malformed("only `chunked` is taken as Transfer-Encoding"))
            elif lowered == b"content-length" and not value.isdigit():
                self._refuse(_malformed("Content-Length is not a number"))

    def on_headers_complete(self) -> None:
        if self._is_refused:
            return
        self.head_began_at = None
        self._body_bytes = 0
        self.body_began_at = time.monotonic() if self._lengths else None
        plane = self.site.plane()
        if plane is not None and not (self.parser.should_upgrade() and self._should_upgrade()):
            target = httptools.parse_url(self.url)
            if not self.site.is_elsewhere(target.path):
                self._begin(plane, target)
                return
        self._make_scope()
        super().on_headers_complete()

    def _begin(self, plane: Plane, target: Any) -> None:
        """Start a call of the data plane, or queue it behind the one that is being answered (pipelining)."""
        ip = self.client[0] if self.client else "0.0.0.0"
        method = self.parser.get_method().decode("ascii")
        call = accepted(plane, Protocol.HTTP, method, target.path, target.query or b"", self.headers, ip)
        before = self.cycle
        keep_alive = self.parser.get_http_version() == "1.1" and self.parser.should_keep_alive()
        exchange = DirectExchange(plane, call, self, keep_alive=keep_alive, expects_100=self.expect_100_continue)
        self.cycle = exchange  # type: ignore[assignment]
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        if not self._is_refused:
            self._body_bytes += len(body)
            super().on_body(body)

    def on_message_complete(self) -> None:
        self.body_began_at = None
        if not self._is_refused:
            super().on_message_complete()

    def sweep(self, now: float) -> None:
        """Close the connection where its head or its body takes too long."""
        bounds = self.site.bounds
        if self.idle_since is not None:
            if now - self.idle_since > bounds.keep_alive_s and not self.transport.is_closing():
                self.transport.close()
        elif self.head_began_at is not None and now - self.head_began_at > bounds.head_timeout_s:
            self._refuse(
                Refused(Reason.IDLE, f"The request's head was not complete within {bounds.head_timeout_s:g} s.")
            )
        elif self.body_began_at is not None and not self.flow.read_paused:
            late_s = now - self.body_began_at - bounds.body_rate_grace_s
            if late_s > 0 and self._body_bytes < late_s * bounds.body_rate_floor_bytes_per_s:
                self._refuse(Refused(Reason.IDLE, "The request's body comes too slowly."))

    def _has_bare_line_feed(self, data: bytes) -> bool:
        """Look for a LF without CR in a head; what follows the head is a body and may hold anything."""
        if not self._tail and data.endswith(b"\r\n\r\n"):
            return data.count(b"\n") != data.count(b"\r\n")
        joined = self._tail + data
        head, end, _ = joined.partition(b"\r\n\r\n")
        looked_at = head if end else joined
        self._tail = b"" if end else joined[-3:]
        return looked_at.count(b"\n") != looked_at.count(b"\r\n")

    def _refuse(self, refused: Refused) -> None:
        """Say no on the wire and close; nothing more is read."""
        if self._is_refused:
            return
        self._is_refused = True
        self.site.refused(refused)
        self.open.discard(self)
        if self.cycle is not None and not self.cycle.response_complete:
            # A request under way learns that its caller is gone; its answer may have begun, so none is put into it.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.close()
                return
        headers, body = rendered(refused)
        lines = [b"HTTP/1.1 %d %b\r\n" % (refused.status, REASON_PHRASES.get(refused.status, b""))]
        lines += [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(b"".join([*lines, b"connection: close\r\n\r\n", body]))
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server, which drains before it stops and sweeps deadlines while it runs."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._drain = drain
        self._sweeper: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen and to sweep."""
        await super().startup(sockets)
        self._sweeper = asyncio.create_task(_sweep(), name="http deadlines")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to listen, ask open sockets to leave, finish what runs."""
        for server in self.servers:
            server.close()
        await self._drain()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await super().shutdown(sockets)


async def serve(
    application: Any, listening: socket.socket, site: Site, *, drain: Callable[[], Awaitable[None]]
) -> None:
    """Serve an ASGI application on a listening socket until SIGTERM, then drain.

    Paths that are not the application's go straight to the site's data plane.
    """
    BoundedHttp.site = site
    config = site.bounds
    server = Server(
        uvicorn.Config(
            application,
            http=BoundedHttp,
            ws=BoundedSocket,
            loop="uvloop",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=True,
            backlog=4096,
            ws_max_size=max(config.stream_message_max_bytes, config.proxied_message_max_bytes),
            ws_ping_interval=config.ping_interval_s,
            ws_ping_timeout=config.ping_timeout_s,
            ws_per_message_deflate=False,
            timeout_keep_alive=int(config.keep_alive_s),
            timeout_graceful_shutdown=int(config.drain_s),
        ),
        drain,
    )
    await server.serve(sockets=[listening])


async def _sweep() -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        now = time.monotonic()
        for protocol in list(BoundedHttp.open):
            protocol.sweep(now)


def _malformed(what: str) -> Refused:
    return Refused(Reason.INVALID_REQUEST, f"The request is malformed: {what}.", cause="malformed-request")
