"""The data plane with all its listeners over real sockets, and subscribers of each protocol that read raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from gateway.asgi import serve
from gateway.listening.capacity import Capacity
from gateway.log.event import Event
from gateway.server.server import server_of
from gateway.server.site import Site
from gateway.tests.event_plane import QUIET_S, WAIT_S, EventPlane, channel
from gateway.tests.mqtt_client import subscribe
from gateway.tests.mqtt_plane import mqtt_plane
from gateway.tests.servers import started
from gateway.wire.mqtt import codec
from gateway.wire.mqtt.packets import V5, Connect

MARK = re.compile(rb'"n":(\d+)}')
NO_RETAINED = 0x20
"""QoS 0, and no retained event at the beginning (3.8.3.1)."""
PROTOCOLS = ("websocket", "sse", "mqtt")


@asynccontextmanager
async def all_protocols(nats_url: str, folder: Path, **settings: Any) -> AsyncIterator[EventPlane]:
    """Serve one channel, ``trades``, over WebSocket, SSE and MQTT, as the product does."""
    async with mqtt_plane(nats_url, folder, [channel("trades")], **settings) as plane:

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await serve(plane, scope, receive, send)  # type: ignore[arg-type]

        site = Site(plane.config, lambda: plane, lambda path: False, _unexpected, Capacity(plane.config))  # type: ignore[arg-type, return-value]
        server = server_of(application, site, drain=_nothing, lifespan="off")
        server.capture_signals = nullcontext  # type: ignore[assignment, method-assign]
        listening = socket.create_server(("127.0.0.1", 0))
        plane.port = listening.getsockname()[1]  # type: ignore[attr-defined]
        plane.writers = []  # type: ignore[attr-defined]
        async with started(server, listening):
            yield plane
            for writer in plane.writers:  # type: ignore[attr-defined]
                writer.transport.abort()


def _unexpected(refused: Any) -> None:
    """Fail on a request that never became a call."""
    raise AssertionError(refused)


async def _nothing() -> None:
    pass


class Subscriber:
    """A subscriber of ``trades``, and the ``n`` of the events that reached it."""

    def __init__(self, plane: EventPlane, protocol: str) -> None:
        self._plane = plane
        self._protocol = protocol
        self.received = b""

    async def open(self) -> Subscriber:
        """Connect and subscribe; return once the next event would be delivered."""
        plane, key = self._plane, self._plane.key.text
        before = set(plane.connections)
        port = plane.mqtt_port if self._protocol == "mqtt" else plane.port  # type: ignore[attr-defined]
        # A small window: what a subscriber does not read waits at the gateway, not in the kernels.
        connected = socket.socket()
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connected.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connected, ("127.0.0.1", port))
        self.reader, self.writer = await asyncio.open_connection(sock=connected)
        plane.writers.append(self.writer)  # type: ignore[attr-defined]
        await getattr(self, f"_open_{self._protocol}")(key)
        (self.connection,) = set(plane.connections) - before
        self.received = b""
        return self

    async def _open_websocket(self, key: str) -> None:
        lines = ["GET /v1/stream HTTP/1.1", "host: gateway", "connection: upgrade", "upgrade: websocket"]
        lines += [f"x-api-key: {key}", "sec-websocket-version: 13", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        await self.until(b'"welcome"')
        frame = b'{"type":"subscribe","channel":"trades"}'
        self.writer.write(bytes((0x81, 0x80 | len(frame), 0, 0, 0, 0)) + frame)
        await self.until(b'"subscribed"')

    async def _open_sse(self, key: str) -> None:
        self.writer.write(
            f"GET /v1/events?channel=trades HTTP/1.1\r\nhost: gateway\r\nx-api-key: {key}\r\n\r\n".encode()
        )
        await self.until(b"\nid:")

    async def _open_mqtt(self, key: str) -> None:
        self.writer.write(codec.connect(Connect(V5, "", True, 0, username="u", password=key.encode())))
        self.writer.write(subscribe(V5, 1, ("trades", NO_RETAINED)))
        await self.until(b"\x90\x04\x00\x01\x00\x00")

    async def until(self, wanted: bytes | Callable[[bytes], bool]) -> None:
        """Read until these bytes have come, or until the condition holds."""
        async with asyncio.timeout(WAIT_S):
            while not (wanted(self.received) if callable(wanted) else wanted in self.received):
                part = await self.reader.read(65536)
                assert part, "still open"
                self.received += part

    async def rest(self) -> None:
        """Read what still comes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(QUIET_S):
                while part := await self.reader.read(65536):
                    self.received += part

    async def has(self, count: int) -> list[int]:
        """Return the numbers of so many events, once they have come."""
        await self.until(lambda received: len(MARK.findall(received)) >= count)
        return self.numbers

    @property
    def numbers(self) -> list[int]:
        return [int(number) for number in MARK.findall(self.received)]

    @property
    def account(self) -> tuple[int, int]:
        """Return how many events and bytes of payload the gateway has counted."""
        return self.connection.messages_out, self.connection.bytes_out


def arrive(plane: EventPlane, numbers: range, padding: str = "") -> int:
    """Let events arrive from NATS in one turn of the event loop; return the bytes of their payloads."""
    feed = plane.hub._feeds["trades"]
    found = plane.snapshot.channel("trades")
    assert found is not None
    stream, size = found[0].stream, 0
    for number in numbers:
        data = f'{{"p":"{padding}","n":{number}}}'.encode()
        size += len(data)
        feed._deliver(stream, Event("trades", "trades", feed.head(stream) + 1, "2026-11-30T00:00:00Z", data))
    return size
