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
from gateway.server.http import BoundedHttp, Site
from gateway.server.websocket import BoundedSocket

SWEEP_S = 0.5


class Server(uvicorn.Server):
    """uvicorn's server, which enforces deadlines while it runs and drains before it stops."""

    def __init__(self, config: uvicorn.Config, site: Site, drain: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._site = site
        self._drain = drain
        self._sweeper: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen and to enforce deadlines."""
        await super().startup(sockets)
        self._sweeper = asyncio.create_task(self._sweep(), name="http deadlines")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, ask open sockets to leave, and finish the requests in flight."""
        for server in self.servers:
            server.close()
        await self._drain()
        # Deadlines hold until the end: a client that stalls in the middle of a request must not delay the shutdown.
        await super().shutdown(sockets)
        await stop_tasks(self._sweeper)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = time.monotonic()
            for connection in list(self._site.open):
                connection.sweep(now)


def server_of(
    application: Any, site: Site, *, drain: Callable[[], Awaitable[None]], lifespan: Literal["on", "off"] = "on"
) -> Server:
    """Return a server of an ASGI application; calls of the data plane bypass ASGI (see :class:`Site`)."""
    bounds = site.bounds
    http: Any = partial(BoundedHttp, site=site)
    websocket: Any = partial(BoundedSocket, stream_message_max_bytes=bounds.stream_message_max_bytes)
    config = uvicorn.Config(
        application,
        http=http,
        ws=websocket,
        loop="uvloop",
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=True,
        backlog=4096,
        ws_max_size=max(bounds.stream_message_max_bytes, bounds.proxied_message_max_bytes),
        ws_ping_interval=bounds.ping_interval_s,
        ws_ping_timeout=bounds.ping_timeout_s,
        ws_per_message_deflate=False,
        timeout_keep_alive=int(bounds.keep_alive_s),
        timeout_graceful_shutdown=int(bounds.drain_s),
    )
    return Server(config, site, drain)


async def serve(
    application: Any, listening: socket.socket, site: Site, *, drain: Callable[[], Awaitable[None]]
) -> None:
    """Serve on a listening socket until SIGTERM, then drain."""
    await server_of(application, site, drain=drain).serve(sockets=[listening])
