import time

import pytest
from websockets.asyncio.server import serve as serve_sockets

from gateway.handlers import me, ticket
from gateway.handlers.proxy import http as upstream_handler
from gateway.handlers.proxy import websocket
from gateway.handlers.tests.test_channels_on_the_wire import served
from gateway.handlers.tests.tokens.token_clients import CHANNELS, TOKENS_ALONE
from gateway.tests.http_plane import route, upstream_that
from gateway.tests.identity_provider import identity_provider
from gateway.tests.mqtt_plane import mqtt_plane


async def feed(requested, reader, writer):
    """Send an event, and then nothing for a long time."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: first\n\n")
    await reader.read()
    return True


async def echo(socket):
    async for message in socket:
        await socket.send(message)


@pytest.fixture
async def provider():
    async with identity_provider() as made:
        yield made


@pytest.fixture
async def plane(nats_server, valkey, tmp_path, provider):
    async with serve_sockets(echo, "127.0.0.1", 0, compression=None) as upstream, upstream_that(feed) as feeding:
        port = upstream.sockets[0].getsockname()[1]
        routes = [
            route("proxied", "/proxied", f"ws://127.0.0.1:{port}/", protocol="websocket"),
            route("feed", "/feed", feeding.url, protocol="sse"),
            TOKENS_ALONE,
        ]
        settings = {"routes": routes, "redis_url": valkey.url}
        async with mqtt_plane(nats_server.url, tmp_path, CHANNELS, **settings) as plane:
            plane.handlers |= {
                "websocket": websocket.proxy,
                "upstream": upstream_handler.forward,
                "ticket": ticket.issue,
                "me": me.show,
            }
            plane.snapshot.apply([("issuer", "idp", provider.document())])
            plane.connections.start()
            plane.key_sets.start()
            async with served(plane) as plane.port:
                yield plane
            await plane.connections.stop()


@pytest.fixture
def an_hour_later(monkeypatch):
    """Set the clock forward, once what is to expire is open."""
    now = time.time

    def later():
        monkeypatch.setattr(time, "time", lambda: now() + 3600)

    return later
