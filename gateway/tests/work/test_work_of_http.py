"""What requests and messages through a route take of the event loop: the bounds are in :mod:`.bounds`."""

import asyncio

import pytest

from gateway.handlers.proxy.tests.websocket.support import HANDSHAKE
from gateway.tests.http_plane import route, running
from gateway.tests.raw_socket import frame
from gateway.tests.work.bounds import BOUNDS
from gateway.tests.work.counts import count
from gateway.tests.work.peers import connected, upstream

REPEATS = 100


@pytest.fixture
async def plane(tmp_path):
    with upstream() as port:
        routes = [
            route("r", "/r", f"http://127.0.0.1:{port}"),
            route("socket", "/socket", f"ws://127.0.0.1:{port}", protocol="websocket"),
        ]
        async with running(tmp_path, routes) as plane:
            yield plane


@pytest.fixture
async def line(plane):
    line = connected(plane.port)
    yield line
    line.close()


def request(plane, method, path, *lines, body=b""):
    all_ = [f"{method} {path} HTTP/1.1", "host: gateway.test", f"x-api-key: {plane.key.text}", *lines]
    if body:
        all_.append(f"content-length: {len(body)}")
    return "\r\n".join([*all_, "", ""]).encode() + body


@pytest.mark.parametrize(
    ("name", "method", "body", "is_carrying"),
    [
        ("carried GET", "GET", b"", True),
        ("carried POST", "POST", b"x" * 1024, True),
        ("GET on the path", "GET", b"", False),
    ],
)
async def test_a_request_stays_within_its_bounds(plane, line, name, method, body, is_carrying):
    sent = request(plane, method, "/r", body=body)

    def ask(times=REPEATS):
        for _ in range(times):
            line.send(sent)
            assert line.response() == (200, b"ok")

    await asyncio.to_thread(ask, 1)
    (connection,) = plane.server._site.open
    connection.carrier = connection.carrier if is_carrying else None
    assert not (await count(lambda: asyncio.to_thread(ask), REPEATS)).beyond(BOUNDS[name])


async def test_an_echo_through_a_tunnel_stays_within_its_bounds(plane, line):
    sent = frame(b"hello")

    def echo():
        for _ in range(REPEATS):
            line.send(sent)
            assert line.read(7) == b"\x81\x05hello"

    def open_socket():
        line.send(request(plane, "GET", "/socket", *HANDSHAKE))
        assert line.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101")

    await asyncio.to_thread(open_socket)
    assert not (await count(lambda: asyncio.to_thread(echo), REPEATS)).beyond(BOUNDS["echo through a tunnel"])
