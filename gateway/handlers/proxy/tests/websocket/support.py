import asyncio
import contextlib
import json
from contextlib import asynccontextmanager

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve as serve_sockets
from websockets.exceptions import ConnectionClosed

from gateway.tests.http_plane import (
    WAIT_S,
    route,
    running,
)

HANDSHAKE = ("upgrade: websocket", "connection: Upgrade", "sec-websocket-version: 13",
             "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip


LIMIT = {"name": "", "per": 3600, "scope": "consumer", "exceed": "reject", "mode": "enforce", "fail": "open"}


async def echo_messages(socket):
    async for message in socket:
        await socket.send(message)


@asynccontextmanager
async def sockets_that(handler, **more):
    """Run an upstream of sockets; it keeps the requests that it has got."""
    requests = []

    async def keep(socket, request):
        requests.append(request)

    async with serve_sockets(handler, "127.0.0.1", 0, process_request=keep, compression=None, **more) as server:
        server.port = server.sockets[0].getsockname()[1]
        server.requests = requests
        yield server


@asynccontextmanager
async def proxied(tmp_path, handler=echo_messages, *, upstream=None, more_routes=(), **more):
    async with sockets_that(handler, **(upstream or {})) as behind:
        routes = [
            route("socket", "/socket", f"ws://127.0.0.1:{behind.port}/inner", protocol="websocket"),
            route("of", "/of/{rest...}", f"ws://127.0.0.1:{behind.port}/x/{{rest}}?fixed=1", protocol="websocket"),
            route("http", "/http", f"http://127.0.0.1:{behind.port}/"),
            *more_routes,
        ]
        async with running(tmp_path, routes, **more) as plane:
            plane.behind = behind
            yield plane


def socket_of(plane, path="/socket", *, key="", headers=(), **more):
    key = plane.key if key == "" else key
    sent = [*headers, *([("authorization", f"Bearer {key.text}")] if key is not None else [])]
    return connect(
        f"ws://127.0.0.1:{plane.port}{path}", additional_headers=sent, open_timeout=WAIT_S, compression=None, **more
    )


async def closed(socket):
    """Wait for the other side's close. Gives its code and reason, None where the line just broke."""
    async with asyncio.timeout(WAIT_S):
        try:
            while True:
                await socket.recv()
        except ConnectionClosed as end:
            return (end.rcvd.code, end.rcvd.reason) if end.rcvd else None


async def messages_of(socket):
    """Return all messages until the other side closes."""
    async with asyncio.timeout(WAIT_S):
        with contextlib.suppress(ConnectionClosed):
            while True:
                yield await socket.recv()


def refused_with(info, status, reason):
    answer = json.loads(info.value.response.body)
    assert (info.value.response.status_code, answer["status"], answer["reason"]) == (status, status, reason)
    return True
