"""Runs the product's HTTP server in a test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.concurrency.stopping import stop_tasks
from gateway.server.server import Server


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
