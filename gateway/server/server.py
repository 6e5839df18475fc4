"""The HTTP server: uvicorn on bounded connections, with a drain before it stops."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal

import uvicorn

from gateway.concurrency.stopping import stop_tasks
from gateway.listening.listener import Listener, listen
from gateway.listening.tcp_connections import TcpConnection
from gateway.server.carrier import Carrier
from gateway.server.http import BoundedHttp
from gateway.server.site import CEILING_EXCEEDED, Site

SWEEP_S = 0.5
SWEPT_AT_ONCE = 64
"""Connections swept before others are served: each may have to be refused."""


class Server(uvicorn.Server):
    """uvicorn's server, which enforces deadlines while it runs and drains before it stops."""

    def __init__(self, config: uvicorn.Config, site: Site, drain: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._site = site
        self._drain = drain
        self._listeners: list[Listener] = []
        self._sweeper: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, within the ceilings, and to enforce deadlines."""
        await super().startup([])
        site = self._site
        if (plane := site.plane()) is not None:
            plane.usage.metrics.registry.register(site.capacity)
        for one in sockets or []:
            self._listeners.append(listen(one, self._protocol, site.capacity, site.bounds, CEILING_EXCEEDED))
        self._sweeper = asyncio.create_task(self._sweep(), name="http deadlines")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, ask open sockets to leave, and finish the requests in flight."""
        await self.stop_listening()
        await self._drain()
        # Deadlines hold until the end: a client that stalls in the middle of a request must not delay the shutdown.
        await super().shutdown(sockets)
        await stop_tasks(self._sweeper)

    async def stop_listening(self) -> None:
        """Accept nothing more."""
        for listener in self._listeners:
            await listener.stop()

    def _protocol(self, tcp: TcpConnection) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class
        made: asyncio.Protocol = protocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state, tcp=tcp
        )
        return made

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = time.monotonic()
            for count, connection in enumerate(list(self._site.open), 1):
                if connection in self._site.open:
                    connection.sweep(now)
                if count % SWEPT_AT_ONCE == 0:
                    await asyncio.sleep(0)
            self._site.capacity.sweep(now)


def server_of(
    application: Any, site: Site, *, drain: Callable[[], Awaitable[None]], lifespan: Literal["on", "off"] = "on"
) -> Server:
    """Return a server of an ASGI application; calls of the data plane bypass ASGI (see :class:`Site`)."""
    bounds = site.bounds
    http: Any = partial(BoundedHttp, site=site, carrier=Carrier(site) if site.is_carrying else None)
    config = uvicorn.Config(
        application,
        http=http,
        ws="websockets-sansio",
        loop="uvloop",
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=True,
        backlog=4096,
        timeout_keep_alive=int(bounds.keep_alive_s),
        timeout_graceful_shutdown=int(bounds.drain_s),
    )
    return Server(config, site, drain)


async def serve(
    application: Any, listening: socket.socket, site: Site, *, drain: Callable[[], Awaitable[None]]
) -> None:
    """Serve on a listening socket until SIGTERM, then drain."""
    await server_of(application, site, drain=drain).serve(sockets=[listening])
