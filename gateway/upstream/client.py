"""HTTP/1.1 client of the proxy: pooled keep-alive connections, and deadlines for what is under way on them.

A connection goes back to its pool only when its answer was read to its end and nothing of ours is left to send, so that
no answer ever reaches another caller.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import deque
from typing import TYPE_CHECKING, Any
from typing import Protocol as Interface

from gateway.concurrency.stopping import stop_tasks
from gateway.refusals import Reason, Refused
from gateway.upstream.connection import Origin, UpstreamConnection
from gateway.upstream.outbound import is_forbidden

if TYPE_CHECKING:
    from gateway.config import Config

IDLE_POOLED_S = 30.0
POOL_MAX = 512
"""Idle connections kept for one upstream."""
SWEEP_S = 0.5


class Timed(Interface):
    """What ends when its deadline has passed."""

    deadline: float | None

    def expire(self) -> None:
        """The deadline has passed."""


class UpstreamClient:
    """Connections to upstreams, kept for the next request of this process."""

    def __init__(self, config: Config) -> None:
        self._allowed_networks = config.outbound_allowed_networks
        self._connect_timeout_s = config.upstream_connect_timeout_s
        self.first_byte_timeout_s = config.upstream_first_byte_timeout_s
        self.idle_timeout_s = config.upstream_idle_timeout_s
        self._pools: dict[Origin, deque[UpstreamConnection]] = {}
        self._in_use: set[Timed] = set()
        self.tls = ssl.create_default_context()
        self._sweeper: asyncio.Task[None] | None = None

    async def lend(self, origin: Origin, *, is_new: bool = False) -> UpstreamConnection:
        """Lend a connection, to be given back whatever happens. Raises Refused."""
        connection = (None if is_new else self._pooled(origin)) or await self._connect(origin)
        self._in_use.add(connection)
        return connection

    def take_back(self, connection: UpstreamConnection) -> None:
        """Keep a connection for the next request, but only where its answer was read whole."""
        self._in_use.discard(connection)
        connection.deadline = None
        if connection.can_be_kept:
            self._keep(connection)
        else:
            connection.close()

    def time(self, timed: Timed) -> None:
        """Look at a deadline from now on."""
        self._sweeper = self._sweeper or asyncio.create_task(self._sweep(), name="upstream deadlines")
        self._in_use.add(timed)

    def time_no_more(self, timed: Timed) -> None:
        """Look at it no longer."""
        self._in_use.discard(timed)

    def expect(self, connection: UpstreamConnection, within_s: float) -> None:
        """Give the upstream so long for what comes next."""
        connection.deadline = time.monotonic() + within_s

    async def close(self) -> None:
        """Hang up on every upstream."""
        await stop_tasks(self._sweeper)
        for pool in self._pools.values():
            for connection in pool:
                connection.close()
        self._pools.clear()

    def _pooled(self, origin: Origin) -> UpstreamConnection | None:
        pool = self._pools.get(origin)
        while pool:
            # The last one used is the least likely to have been closed meanwhile.
            connection = pool.pop()
            if connection.is_usable:
                connection.is_reused = True
                return connection
        return None

    def _keep(self, connection: UpstreamConnection) -> None:
        connection.pooled_at = time.monotonic()
        pool = self._pools.setdefault(connection.origin, deque())
        if len(pool) >= POOL_MAX:
            connection.close()
        else:
            pool.append(connection)

    async def _connect(self, origin: Origin) -> UpstreamConnection:
        self._sweeper = self._sweeper or asyncio.create_task(self._sweep(), name="upstream deadlines")
        connected = await self.connect_socket(origin)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: UpstreamConnection(origin),
                    sock=connected,
                    ssl=self.tls if origin.is_tls else None,
                    server_hostname=origin.host if origin.is_tls else None,
                )
        except OSError:
            connected.close()
            raise Refused(Reason.UPSTREAM_UNAVAILABLE, cause="upstream-unreachable") from None
        return connection

    async def connect_socket(self, origin: Origin) -> socket.socket:
        """Connect to the first address of the host that answers. Raises Refused."""
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                for family, address in await self.addresses(origin):
                    connected = await _connected(family, address)
                    if connected is not None:
                        return connected
        except TimeoutError:
            raise Refused(Reason.UPSTREAM_UNAVAILABLE, cause="upstream-connect-timeout") from None
        except (OSError, UnicodeError):
            # The name could not be resolved.
            pass
        raise Refused(Reason.UPSTREAM_UNAVAILABLE, cause="upstream-unreachable")

    async def addresses(self, origin: Origin) -> list[tuple[int, Any]]:
        """Resolve a host, without the addresses that no upstream may have (see :mod:`.outbound`). Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        return [
            (family, address)
            for family, *_, address in found
            if not is_forbidden(str(address[0]), self._allowed_networks)
        ]

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = time.monotonic()
            for connection in list(self._in_use):
                if connection.deadline is not None and connection.deadline < now:
                    connection.expire()
            for pool in self._pools.values():
                while pool and now - pool[0].pooled_at > IDLE_POOLED_S:
                    pool.popleft().close()


async def _connected(family: int, address: Any) -> socket.socket | None:
    """Connect to one address; None where nobody answers there."""
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(made, address)
    except OSError:
        made.close()
        return None
    except BaseException:
        made.close()
        raise
    return made
