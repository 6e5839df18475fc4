"""One HTTP connection: uvicorn's protocol with the deadlines and bounds that it lacks.

Heads: complete within 10 s, 32 KiB, 100 headers, a path of 8 KiB. Bodies: no slower than 500 B/s after 5 s. Framing
that two readers could read in two ways (RFC 9112 6.3, 11.2) is refused with 400 and the connection closed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.config import Config
from gateway.protocol import Protocol
from gateway.protocols.http import accepted, rendered
from gateway.refusals import Reason, Refused
from gateway.server.exchange import DirectExchange
from gateway.server.websocket import BoundedSocket

if TYPE_CHECKING:
    from gateway.plane import Plane

LINGER_S = 2.0
"""How long what a refused caller still sends is read and dropped: closing at once would destroy its answer."""
LOOKED_AT = frozenset({b"content-length", b"transfer-encoding", b"expect", b"host"})
OF_UPGRADES = frozenset({b"connection", b"upgrade", b"http2-settings"})
VERSIONS = frozenset({"1.1", "1.0"})
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
        self.idle_since: float | None = None
        """Since when nothing was asked on a connection that was used before."""
        self._body_bytes = 0
        self._head_bytes = 0
        self._hosts = 0
        self._lengths = 0
        self._received = 0
        """Bytes that came since the head began, or since the body's last part, and have meant nothing yet."""
        self._running: Any = None
        """The cycle that is being answered; ``cycle`` is the one that is being read."""
        self._is_refused = False
        self._parting = b""
        """A refusal that waits until the requests before it are answered."""
        self._lingers_until: float | None = None
        self._unsent = (0, 0.0)
        self.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open.discard(self)
        for cycle in (self._running, *(queued for queued, _ in self.pipeline)):
            _disconnect(cycle)
        self.pipeline.clear()
        super().connection_lost(exc)
        # They know this connection: together they would stay until the collector of cycles stops all traffic.
        self.cycle = self._running = None  # type: ignore[assignment]

    def shutdown(self) -> None:
        """Take leave: at once where nothing is being answered, else after that."""
        if self._running is None or self._running.response_complete:
            self.transport.close()
        else:
            self._running.keep_alive = False

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        self.idle_since = None
        if self.head_began_at is None and self.body_began_at is None:
            self.head_began_at = time.monotonic()
        began_at, body_bytes = (self.head_began_at, self.body_began_at), self._body_bytes
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._refuse(_malformed(f"it is not HTTP/1.1 ({error})"))
            return
        if (self.head_began_at, self.body_began_at) == began_at != (None, None) and self._body_bytes == body_bytes:
            self._bound(len(data))

    def _bound(self, size: int) -> None:
        """Bound what the parser holds or skips without a word: half a header, a trailer, a chunk's extension."""
        self._received += size
        if self._received > self.site.bounds.head_max_bytes + self.site.bounds.path_max_bytes:
            self._refuse(Refused(Reason.HEAD_TOO_LARGE))

    def _upgrade(self, rest: bytes) -> None:
        """Become a WebSocket. Other upgrades are ignored (RFC 9110 7.8): the request is read again without them."""
        if self._is_refused:
            return
        method = self.parser.get_method()
        if self._should_upgrade():
            self.handle_websocket_upgrade()
        elif method == b"CONNECT":
            self._refuse(_malformed("CONNECT is not served"))
        else:
            lines = [b"%b %b HTTP/1.1\r\n" % (method, self.url)]
            lines += [b"%b: %b\r\n" % header for header in self.headers if header[0] not in OF_UPGRADES]
            self.parser = httptools.HttpRequestParser(self)
            self.data_received(b"".join([*lines, b"\r\n", rest]))

    def _get_upgrade(self) -> bytes | None:
        """Say what the connection is to become; uvicorn knows one Connection header, and there may be several."""
        tokens = b",".join(value for name, value in self.headers if name == b"connection").lower().split(b",")
        if b"upgrade" not in [token.strip() for token in tokens]:
            return None
        return next((value.lower() for name, value in self.headers if name == b"upgrade"), None)

    def handle_websocket_upgrade(self) -> None:
        self.open.discard(self)
        super().handle_websocket_upgrade()
        socket = self.transport.get_protocol()
        if isinstance(socket, BoundedSocket) and socket.is_unreadable:
            refused = _malformed("its head cannot be read")
            self.site.refused(refused)
            self.transport.write(_on_the_wire(refused))
            self.transport.close()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        if isinstance(cycle, DirectExchange):
            # The server need not keep this task too: it waits for the connection, which waits for its answer.
            cycle.task = self.loop.create_task(cycle.run_asgi(app))
        else:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Go on with the next request, or begin to be idle: the sweep counts that, no timer a request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing() or self._lingers_until is not None:
            return
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

    def on_message_begin(self) -> None:
        """Begin a request; uvicorn's scope is made only for those that are the application's."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._head_bytes = self._hosts = self._lengths = self._received = 0
        self.body_began_at = None
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
        if self.head_began_at is None:
            # A trailer: it comes when the request is under way, and must not be taken for one of its headers.
            return
        lowered = name.lower()
        self.headers.append((lowered, value))
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self.site.bounds.head_max_bytes or len(self.headers) > self.site.bounds.head_max_count:
            self._refuse(Refused(Reason.HEAD_TOO_LARGE))
        if lowered not in LOOKED_AT:
            return
        if lowered == b"host":
            self._hosts += 1
        elif lowered == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        else:
            self._lengths += 1
            if self._lengths > 1:
                self._refuse(_malformed("its length is said twice"))
            elif lowered == b"transfer-encoding" and value.strip().lower() != b"chunked":
                self._refuse(_malformed("only `chunked` is taken as Transfer-Encoding"))

    def on_headers_complete(self) -> None:
        if self._is_refused:
            return
        version = self.parser.get_http_version()
        if version not in VERSIONS:
            self._refuse(_malformed("it is not HTTP/1.1"))
        elif self._hosts > 1 or (self._hosts == 0 and version == "1.1"):
            self._refuse(_malformed("it needs one Host"))
        elif self._lengths and version == "1.0" and (b"transfer-encoding", b"chunked") in self.headers:
            self._refuse(_malformed("HTTP/1.0 has no Transfer-Encoding"))
        elif self.parser.should_upgrade():
            if self._should_upgrade():
                self._make_scope()
                super().on_headers_complete()
        else:
            self._head_complete(version)

    def _head_complete(self, version: str) -> None:
        """Start what was asked for: a call of the data plane, or a cycle of the application."""
        self.head_began_at = None
        self._body_bytes = self._received = 0
        self.body_began_at = time.monotonic() if self._lengths else None
        plane = self.site.plane()
        if plane is not None:
            path, query = _target(self.url)
            if not self.site.is_elsewhere(path):
                self._begin(plane, path, query, version)
                return
        self._make_scope()
        super().on_headers_complete()

    def _begin(self, plane: Plane, path: bytes, query: bytes, version: str) -> None:
        """Start a call of the data plane, or queue it behind the one that is being answered (pipelining)."""
        ip = self.client[0] if self.client else "0.0.0.0"
        method = self.parser.get_method().decode("ascii")
        call = accepted(plane, Protocol.HTTP, method, path, query, self.headers, ip)
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
            super().on_body(body)

    def on_message_complete(self) -> None:
        self.body_began_at = None
        if not self._is_refused and not self.parser.should_upgrade():
            super().on_message_complete()

    def sweep(self, now: float) -> None:
        """Close the connection where its head or its body takes too long, or its answer is not read."""
        if self._lingers_until is not None and now > self._lingers_until:
            self.transport.abort()
        elif self.flow.write_paused or self.transport.is_closing():
            self._sweep_unread(now)
        elif self._is_refused:
            return
        elif self.idle_since is not None:
            self._sweep_idle(now - self.idle_since)
        else:
            self._sweep_request(now)

    def _sweep_idle(self, idle_s: float) -> None:
        if idle_s > self.site.bounds.keep_alive_s:
            self.transport.close()

    def _sweep_request(self, now: float) -> None:
        """Refuse a head that is not complete in time, and a body that comes too slowly."""
        bounds = self.site.bounds
        if self.head_began_at is not None and now - self.head_began_at > bounds.head_timeout_s:
            self._refuse(
                Refused(Reason.IDLE, f"The request's head was not complete within {bounds.head_timeout_s:g} s.")
            )
        elif self.body_began_at is not None and not self.flow.read_paused:
            late_s = now - self.body_began_at - bounds.body_rate_grace_s
            if late_s > 0 and self._body_bytes < late_s * bounds.body_rate_floor_bytes_per_s:
                self._refuse(Refused(Reason.IDLE, "The request's body comes too slowly."))

    def _sweep_unread(self, now: float) -> None:
        """Hang up on a caller that takes nothing of what waits for it."""
        size, since = self._unsent
        waiting = self.transport.get_write_buffer_size()
        if waiting == 0 or waiting != size:
            self._unsent = (waiting, now)
        elif now - since > self.site.bounds.send_timeout_s:
            self.transport.abort()

    def _refuse(self, refused: Refused) -> None:
        """Say no on the wire and close, once what was asked before is answered; nothing more is read."""
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
            # Django learns that its caller is gone.
            _disconnect(reading)
            running = None if reading is running else running
        if running is not None:
            self._parting = _on_the_wire(refused)
        elif reading is not None and reading.response_started:
            self.transport.close()
        else:
            self._part(_on_the_wire(refused))

    def linger(self) -> None:
        """Close once the caller has stopped to send, or has had time enough to read what it was told."""
        self._is_refused = True
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self._lingers_until = time.monotonic() + LINGER_S
        self.flow.resume_reading()
        self.transport.write_eof()

    def _part(self, last: bytes) -> None:
        self.transport.write(last)
        self.linger()


def _target(url: bytes) -> tuple[bytes, bytes]:
    """Give the path and the query of a request target. Its host, where it names one, chooses nothing."""
    if url[:1] == b"/" and b"#" not in url:
        path, _, query = url.partition(b"?")
        return path, query
    parsed = httptools.parse_url(url)
    return parsed.path or b"/", parsed.query or b""


def _disconnect(cycle: Any) -> None:
    """Tell a cycle, ours or uvicorn's, that its caller is gone."""
    if cycle is not None and not cycle.response_complete:
        cycle.disconnected = True
        cycle.message_event.set()


def _on_the_wire(refused: Refused) -> bytes:
    headers, body = rendered(refused)
    lines = [b"HTTP/1.1 %d %b\r\n" % (refused.status, REASON_PHRASES.get(refused.status, b""))]
    lines += [b"%b: %b\r\n" % header for header in headers]
    return b"".join([*lines, b"connection: close\r\n\r\n", body])


def _malformed(what: str) -> Refused:
    return Refused(Reason.INVALID_REQUEST, f"The request is malformed: {what}.", cause="malformed-request")
