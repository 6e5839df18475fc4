"""A listener for MQTT over the parts of a Plane that events need."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.concurrency.stopping import stop_tasks
from gateway.handlers.mqtt.connection import handle_mqtt
from gateway.listening.capacity import Capacity
from gateway.log.event import Event
from gateway.protocols.mqtt import serve
from gateway.tests.event_plane import EventPlane, running


@asynccontextmanager
async def mqtt_plane(
    nats_url: str, folder: Path, channels: list[dict[str, Any]], *, capacity: Capacity | None = None, **settings: Any
) -> AsyncIterator[EventPlane]:
    """Run a listener with these channels, whose logs are new and empty."""
    async with running(nats_url, folder, channels, **settings) as plane:
        plane.handlers["mqtt"] = handle_mqtt
        listening = socket.create_server(("127.0.0.1", 0))
        accepting, sweeper = await serve(plane, listening, capacity or Capacity(plane.config))
        plane.mqtt_port = listening.getsockname()[1]
        try:
            yield plane
        finally:
            await accepting.stop()
            await plane.connections.drain(5)
            await stop_tasks(sweeper)


@asynccontextmanager
async def another_listener(plane: EventPlane) -> AsyncIterator[int]:
    """Run a second listener, which knows nothing of the connections of the first, and yield its port."""
    listening = socket.create_server(("127.0.0.1", 0))
    accepting, sweeper = await serve(plane, listening, Capacity(plane.config))
    try:
        yield listening.getsockname()[1]
    finally:
        await accepting.stop()
        await stop_tasks(sweeper)


async def stored(plane: EventPlane, address: str) -> list[Event]:
    """Return what the log holds of an address."""
    found = plane.snapshot.channel(address)
    assert found is not None, "there is such a channel"
    return await plane.log.history(found[0], found[0].subject, 0, 1000)
