"""The HTTP server: uvicorn on connections of ours, with a drain before it stops."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import uvicorn

from gateway.concurrency.stopping import stop_tasks
from gateway.server.http import BoundedHttp, Site
from gateway.server.websocket import BoundedSocket

SWEEP_S = 0.5


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
        # Deadlines count to the last: who stands still in the middle of a request must not hold up all of it.
        await super().shutdown(sockets)
        await stop_tasks(self._sweeper)


def server_of(
    application: Any, site: Site, *, drain: Callable[[], Awaitable[None]], lifespan: Literal["on", "off"] = "on"
) -> Server:
    """Make the server of an ASGI application; paths that are not the application's go straight to the data plane."""
    BoundedHttp.site = site
    config = site.bounds
    BoundedSocket.stream_message_max_bytes = config.stream_message_max_bytes
    return Server(
        uvicorn.Config(
            application,
            http=BoundedHttp,
            ws=BoundedSocket,
            loop="uvloop",
            lifespan=lifespan,
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


async def serve(
    application: Any, listening: socket.socket, site: Site, *, drain: Callable[[], Awaitable[None]]
) -> None:
    """Serve on a listening socket until SIGTERM, then drain."""
    await server_of(application, site, drain=drain).serve(sockets=[listening])


async def _sweep() -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        now = time.monotonic()
        for protocol in list(BoundedHttp.open):
            protocol.sweep(now)
