"""WebSockets whose client ends its sending side: what it sent before is handled, and answered (RFC 9112 9.6)."""

import asyncio
import json

import pytest

from gateway.handlers.proxy.tests.websocket.support import HANDSHAKE, proxied
from gateway.tests.event_plane import running
from gateway.tests.http_plane import caller_of, eventually
from gateway.tests.raw_socket import CLOSE, frame, read_frame
from gateway.tests.servers import served


@pytest.fixture
def ends_soon(monkeypatch):
    monkeypatch.setattr("gateway.server.websocket.HALF_CLOSED_S", 0.1)


async def opened(caller, path):
    caller.send(caller.head("GET", path, *HANDSHAKE))
    assert (await caller.answer_head()).status == 101


async def next_message(caller):
    while (read := await read_frame(caller.reader))[0] == 0x89:
        pass
    return read


async def test_an_upstream_gets_the_last_frames_and_its_answers_pass(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.server.websocket.HALF_CLOSED_S", 20)
    is_half_closed = asyncio.Event()

    async def answer_late(socket):
        async for message in socket:
            await is_half_closed.wait()
            await socket.send(message)

    async with proxied(tmp_path, answer_late) as plane, caller_of(plane) as caller:
        await opened(caller, "/socket")
        caller.send(frame(b"one") + frame(b"two"))
        caller.writer.write_eof()
        (connection,) = plane.server._site.open
        await eventually(lambda: connection._is_half_closed)
        is_half_closed.set()
        assert [await next_message(caller) for _ in range(2)] == [(0x81, b"one"), (0x81, b"two")]


async def test_the_close_of_the_upstream_ends_it_at_once(tmp_path):
    async def leave(socket):
        await socket.send(await socket.recv())
        await socket.close(4001, "bye")

    async with proxied(tmp_path, leave) as plane, caller_of(plane) as caller:
        await opened(caller, "/socket")
        caller.send(frame(b"last"))
        caller.writer.write_eof()
        assert await next_message(caller) == (0x81, b"last")
        assert await next_message(caller) == (CLOSE, (4001).to_bytes(2, "big") + b"bye")
        assert await caller.is_closed()


async def test_frames_of_a_stream_are_answered(nats_server, tmp_path, ends_soon):
    async with (
        running(nats_server.url, tmp_path, []) as plane,
        served(plane, plane.config) as plane.server,
        caller_of(plane) as caller,
    ):
        await opened(caller, "/v1/stream")
        caller.send(frame(b'{"type": "ping", "ref": "1"}'))
        caller.writer.write_eof()
        while json.loads((await next_message(caller))[1]) != {"type": "pong", "ref": "1"}:
            pass
        assert not (await caller.reader.read()).replace(b"\x89\x00", b"")


@pytest.mark.parametrize("is_gone", [False, True])
async def test_it_ends_as_1006_soon(tmp_path, request, is_gone):
    if not is_gone:
        request.getfixturevalue("ends_soon")
    async with proxied(tmp_path) as plane, caller_of(plane) as caller:
        await opened(caller, "/socket")
        caller.writer.close() if is_gone else caller.writer.write_eof()
        await eventually(lambda: plane.usage._closed)
        (row,) = plane.usage._closed
        assert (row["close_code"], row["error_class"]) == (1006, "client_gone")
