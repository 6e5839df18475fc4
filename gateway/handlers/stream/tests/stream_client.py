"""A client of ``/v1/stream`` whose socket is a pair of queues, and the channels that it finds."""

import asyncio
from contextlib import asynccontextmanager

from gateway.channels.publication import Publication
from gateway.handlers.stream.connection import StreamConnection
from gateway.protocol import Protocol
from gateway.tests.event_plane import Wire


@asynccontextmanager
async def connected(plane, *, welcomed=True, subprotocols=(), **call):
    wire = Wire(subprotocols)
    wire.call = plane.call(Protocol.WEBSOCKET, peer=wire, **call)
    wire.serving = asyncio.create_task(StreamConnection(plane, wire.call).serve(wire))
    if welcomed:
        await wire.heard("welcome")
    try:
        yield wire
    finally:
        wire.is_reading.set()
        wire.leave()
        wire.reply = await wire.serving
        if wire.call.connection:
            plane.connections.closed(wire.call.connection)


async def send(plane, address="trades", data=b"1", **more):
    return str((await plane.publisher.publish(plane.call(), Publication(address, data, **more))).sequence)
