"""Runs the product's HTTP server in a test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from gateway.asgi import serve
from gateway.concurrency.stopping import stop_tasks
from gateway.config import Config
from gateway.listening.capacity import Capacity
from gateway.refusals import Refused
from gateway.server.server import Server, server_of
from gateway.server.site import Site


@asynccontextmanager
async def served(
    plane: Any,
    config: Config,
    *,
    is_direct: bool = True,
    capacity: Capacity | None = None,
    drain: Callable[[], Awaitable[None]] | None = None,
    is_carrying: bool = True,
) -> AsyncIterator[Server]:
    """Serve a data plane on a free port, ``plane.port``; ``is_direct=False`` sends every call through ASGI's messages.

    It is drained before it stops where ``drain`` is passed. ``plane.never_calls`` has what was refused before it
    became a call.
    """
    plane.never_calls = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await serve(plane, scope, receive, send)

    def refused(one: Refused) -> None:
        plane.never_calls.append(one)

    async def not_at_all() -> None:
        """Leave what is open to the end of the test."""

    site = Site(
        config,
        lambda: plane if is_direct else None,
        lambda path: False,
        refused,
        capacity or Capacity(config),
        is_carrying=is_carrying,
    )
    server = server_of(application, site, drain=drain or not_at_all, lifespan="off")
    server.capture_signals = nullcontext  # type: ignore[assignment, method-assign]
    listening = socket.create_server(("127.0.0.1", 0))
    plane.port = listening.getsockname()[1]
    async with serving(server, listening) if drain else started(server, listening):
        yield server


@asynccontextmanager
async def serving(server: Server, listening: socket.socket) -> AsyncIterator[None]:
    """Run all of the server, which takes its time to stop."""
    task = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield
    finally:
        server.should_exit = server.force_exit = True
        await task


@asynccontextmanager
async def started(server: Server, listening: socket.socket) -> AsyncIterator[None]:
    """Run the server without the loop that waits for its end."""
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.on_tick(0)
    await server.startup(sockets=[listening])
    try:
        yield
    finally:
        await server.stop_listening()
        for protocol in list(server.server_state.connections):
            protocol.transport.abort()
        await stop_tasks(server._sweeper, *server.server_state.tasks)
