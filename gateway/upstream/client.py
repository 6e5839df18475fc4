"""HTTP/1.1 client: pooled keep-alive connections, with deadlines for what is in flight on them.

A connection returns to its pool only when its response was read to the end and its request was sent whole, so that no
response ever reaches another caller.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from gateway.refusals import Reason, Refused
from gateway.snapshot.documents import Timeouts
from gateway.upstream.connection import UpstreamBroken, UpstreamConnection
from gateway.upstream.deadlines import Deadlines, Timed
from gateway.upstream.origin import Origin
from gateway.upstream.outbound import Endpoint, Network, is_address, is_forbidden, is_own
from gateway.upstream.tls import rereadable
from gateway.wire.header_fields import Headers
from gateway.wire.via import own_entry

if TYPE_CHECKING:
    from gateway.config import Config

IDLE_POOLED_S = 30.0
FRESH_S = 1.5
"""A request that must not be repeated goes on a connection that was idle for no longer. Servers close idle ones after
two seconds or more, and what is sent to them at that moment is lost."""
POOL_MAX = 512
"""The number of idle connections kept for one upstream."""
JUDGED_MAX = 1024
"""Addresses of upstreams that are remembered with what was found about them."""
AS_SET = Timeouts()
_URL_SAFE = "/%:@!$&'()*+,;=~?"


@dataclass(frozen=True, slots=True)
class Response:
    """A response that was read whole, or as far as its bound."""

    status: int
    headers: Headers
    body: bytes


class TooLong(Exception):
    """The body of a response exceeds its bound; ``response`` holds what was read of it."""

    def __init__(self, response: Response) -> None:
        super().__init__("the response is too long")
        self.response = response


class UpstreamClient:
    """Connections to upstreams, pooled by origin."""

    def __init__(self, config: Config) -> None:
        self._may_be_reached = _reachable(config.outbound_allowed_networks, config.own_endpoints)
        self._connect_timeout_s = config.upstream_connect_timeout_s
        self.first_byte_timeout_s = config.upstream_first_byte_timeout_s
        self.idle_timeout_s = config.upstream_idle_timeout_s
        self._pools: dict[Origin, deque[UpstreamConnection]] = {}
        self._deadlines = Deadlines(self._close_idle)
        self._in_use = self._deadlines.timed
        self._timeouts: Timeouts | None = None
        """Those of the last call, which are not compared again."""
        self.tls = ssl.create_default_context()
        self.via = own_entry(config.key_pepper)
        """What is added to ``Via`` of requests to upstreams, and of their responses."""
        self.via_line = b"via: %b\r\n" % self.via

    async def lend(
        self, origin: Origin, timeouts: Timeouts = AS_SET, *, is_new: bool = False, may_repeat: bool = True
    ) -> UpstreamConnection:
        """Return a connection; the caller must hand it to ``take_back`` in any case. Raises Refused.

        A request that must not be repeated gets no connection that the upstream is likely to close, or has closed.
        """
        pooled = None if is_new else self.lend_now(origin, timeouts, may_repeat=may_repeat)
        return pooled or self._lent(await self._connect(origin, timeouts.connect_s), timeouts)

    def lend_now(
        self, origin: Origin, timeouts: Timeouts = AS_SET, *, may_repeat: bool = True
    ) -> UpstreamConnection | None:
        """Return an idle connection as :meth:`lend` does, or None if there is none."""
        connection = self._pooled(origin) if may_repeat else self._fresh(origin)
        return None if connection is None else self._lent(connection, timeouts)

    def _lent(self, connection: UpstreamConnection, timeouts: Timeouts) -> UpstreamConnection:
        connection.first_byte_s = timeouts.first_byte_s or self.first_byte_timeout_s
        connection.idle_s = timeouts.idle_s or self.idle_timeout_s
        if timeouts is not self._timeouts:
            self._timeouts = timeouts
            shortest_s = min(connection.first_byte_s, connection.idle_s)
            if shortest_s < self._deadlines.shortest_s:
                self._deadlines.shorten(shortest_s)
        self._in_use.add(connection)
        return connection

    def take_back(self, connection: UpstreamConnection, *, keep_alive: bool = True) -> None:
        """Pool a connection if its response was read whole and it may be kept alive, or else close it."""
        self._in_use.discard(connection)
        connection.deadline = None
        pool = self._pools.get(connection.origin)
        if pool is None:
            pool = self._pools[connection.origin] = deque()
        if keep_alive and connection.can_be_kept and len(pool) < POOL_MAX:
            connection.pooled_at = time.monotonic()
            pool.append(connection)
        else:
            connection.close()

    async def fetch(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        max_bytes: int,
        keep_alive: bool = True,
    ) -> Response:
        """Send one request and return its response, read whole; redirects are not followed.

        A request is repeated once if the upstream had closed a pooled connection before it answered. Raises Refused
        and UpstreamBroken, and TooLong for a body of more than ``max_bytes``.
        """
        origin = Origin.of(url)
        request = format_request(method, url, headers if keep_alive else {**headers, "connection": "close"}, body)
        is_head_request = method == "HEAD"
        connection = await self.lend(origin, is_new=not keep_alive)
        try:
            return await _exchange(connection, request, max_bytes, is_head_request=is_head_request)
        except UpstreamBroken:
            if not connection.is_reused or connection.has_begun_to_answer:
                raise
        finally:
            self.take_back(connection, keep_alive=keep_alive)
        connection = await self.lend(origin, is_new=True)
        try:
            return await _exchange(connection, request, max_bytes, is_head_request=is_head_request)
        finally:
            self.take_back(connection, keep_alive=keep_alive)

    def time(self, timed: Timed) -> None:
        """Enforce a deadline from now on."""
        self._deadlines.begin()
        self._in_use.add(timed)

    def time_no_more(self, timed: Timed) -> None:
        """Stop enforcing a deadline."""
        self._in_use.discard(timed)

    def expect(self, connection: UpstreamConnection, within_s: float) -> None:
        """Set the deadline for the upstream's next output."""
        connection.deadline = time.monotonic() + within_s

    async def close(self) -> None:
        """Close all pooled connections."""
        self._deadlines.end()
        for pool in self._pools.values():
            for connection in pool:
                connection.close()
        self._pools.clear()

    def _pooled(self, origin: Origin) -> UpstreamConnection | None:
        pool = self._pools.get(origin)
        while pool:
            # The connection used last is the least likely to have been closed meanwhile.
            connection = pool.pop()
            if connection.is_usable:
                connection.is_reused = True
                return connection
        return None

    def _fresh(self, origin: Origin) -> UpstreamConnection | None:
        """Return a pooled connection that was used just now and is open, as far as the kernel knows."""
        pool, since = self._pools.get(origin), time.monotonic() - FRESH_S
        while pool and pool[-1].pooled_at >= since:
            connection = pool.pop()
            if connection.is_usable and connection.is_quiet:
                connection.is_reused = True
                return connection
            connection.close()
        return None

    async def _connect(self, origin: Origin, within_s: float | None) -> UpstreamConnection:
        self._deadlines.begin()
        connection = UpstreamConnection(origin)
        await self.open(connection, within_s)
        return connection

    async def open(self, connection: UpstreamConnection, within_s: float | None = None) -> None:
        """Connect a new connection to the first address of its origin that accepts, over TLS where that says so.

        Raises Refused.
        """
        within_s = within_s or self._connect_timeout_s
        try:
            async with asyncio.timeout(within_s):
                for host, port in await self.addresses(connection.origin):
                    if await self._open(connection, host, port):
                        return
        except TimeoutError:
            raise _not_connected(within_s) from None
        except (OSError, UnicodeError):
            # The name could not be resolved.
            pass
        raise Refused(Reason.UPSTREAM_UNAVAILABLE, cause="upstream-unreachable")

    async def _open(self, connection: UpstreamConnection, host: str, port: int) -> bool:
        """Connect to one address; return False if nothing accepts there."""
        origin = connection.origin
        tls: dict[str, Any] = {"ssl": rereadable(self.tls), "server_hostname": origin.host} if origin.is_tls else {}
        try:
            await asyncio.get_running_loop().create_connection(lambda: connection, host, port, **tls)
        except OSError:
            return False
        return True

    async def addresses(self, origin: Origin) -> list[tuple[str, int]]:
        """Resolve a host and leave out forbidden addresses (see :mod:`.outbound`). Raises OSError."""
        found = [(origin.host, origin.port)]
        if not is_address(origin.host):
            loop = asyncio.get_running_loop()
            resolved = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
            found = [(str(address[0]), int(address[1])) for *_, address in resolved]
        return [address for address in found if self._may_be_reached(*address)]

    def _close_idle(self, now: float) -> None:
        for pool in self._pools.values():
            while pool and now - pool[0].pooled_at > IDLE_POOLED_S:
                pool.popleft().close()


def _not_connected(within_s: float) -> Refused:
    return Refused(
        Reason.UPSTREAM_TIMEOUT,
        f"The upstream accepted no connection within {within_s:g} s (connect_s).",
        cause="upstream-connect-timeout",
    )


def _reachable(allowed: tuple[Network, ...], own: frozenset[Endpoint]) -> Callable[[str, int], bool]:
    """Return what tells whether an address may be connected to, and remembers that."""

    @lru_cache(JUDGED_MAX)
    def may_be_reached(host: str, port: int) -> bool:
        return not is_forbidden(host, allowed) and not is_own(host, port, own)

    return may_be_reached


def format_request(method: str, url: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Format a request. Raises UnicodeError for a URL or a header that is not ASCII."""
    parts = urlsplit(url)
    target = quote(parts.path or "/", safe=_URL_SAFE) + (
        f"?{quote(parts.query, safe=_URL_SAFE)}" if parts.query else ""
    )
    lines = [f"{method} {target} HTTP/1.1", f"host: {host_field(url)}"]
    if body or method == "POST":
        lines.append(f"content-length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def host_field(url: str) -> str:
    """Return the value of the Host field of a URL, with its port unless that is the default of the scheme."""
    origin = Origin.of(url)
    default = 443 if origin.is_tls else 80
    return origin.authority.rpartition(":")[0] if origin.port == default else origin.authority


async def _exchange(
    connection: UpstreamConnection, request: bytes, max_bytes: int, *, is_head_request: bool
) -> Response:
    connection.begin(request, is_head_request=is_head_request)
    while not await connection.head():
        connection.interim.clear()
    body = bytearray()
    while part := await connection.read():
        body += part
        if len(body) > max_bytes:
            connection.close()
            raise TooLong(Response(connection.status, connection.headers, bytes(body[:max_bytes])))
    return Response(connection.status, connection.headers, bytes(body))
