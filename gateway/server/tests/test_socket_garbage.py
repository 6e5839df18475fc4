"""Proxied WebSockets leave nothing to the collector of cycles, however they begin and end."""

import asyncio

import pytest

from gateway.handlers.proxy.tests.websocket.support import HANDSHAKE, proxied
from gateway.tests.http_plane import NOWHERE, caller_of, eventually, route
from gateway.tests.raw_socket import closed, frame, read_frame

TIMES = 10


@pytest.fixture
async def plane(tmp_path):
    lost = route("lost", "/lost", f"ws://127.0.0.1:{NOWHERE}", protocol="websocket")
    async with proxied(tmp_path, more_routes=[lost]) as plane:
        yield plane


async def opened(caller):
    caller.send(caller.head("GET", "/socket", *HANDSHAKE))
    assert (await caller.answer_head()).status == 101


async def echoed(caller):
    caller.send(frame(b"hello"))
    assert await read_frame(caller.reader) == (0x81, b"hello")


async def close(caller):
    await closed(caller)


async def abort(caller):
    caller.abort()


async def break_the_protocol(caller):
    caller.send(b"\xff\xff")
    assert await caller.reader.read()


async def end_sending(caller):
    caller.send(frame(b"last"))
    caller.writer.write_eof()
    assert await read_frame(caller.reader) == (0x81, b"last")


async def all_ended(plane, count):
    await eventually(lambda: len(plane.outcomes) == count and not plane.server.server_state.connections)
    await asyncio.sleep(0.05)  # what is scheduled by now, as transports that close, has run
    plane.connections.opened.clear()  # as usage does


@pytest.mark.parametrize("end", [close, abort, break_the_protocol, end_sending])
async def test_a_proxied_socket_leaves_no_garbage(plane, garbage, end):
    for _ in range(TIMES):
        async with caller_of(plane) as caller:
            await opened(caller)
            await echoed(caller)
            await end(caller)
    await all_ended(plane, TIMES)
    assert not garbage()


@pytest.mark.parametrize(
    ("path", "key", "lines", "status"),
    [
        ("/socket", None, HANDSHAKE, 401),
        ("/nowhere", "", HANDSHAKE, 404),
        ("/lost", "", HANDSHAKE, 502),
        ("/socket", "", HANDSHAKE[:2], 400),
    ],
)
async def test_a_refused_handshake_leaves_no_garbage(plane, garbage, path, key, lines, status):
    for _ in range(TIMES):
        async with caller_of(plane) as caller:
            caller.send(caller.head("GET", path, *lines, key=key))
            assert (await caller.answer()).status == status
    await all_ended(plane, TIMES if status != 400 else 0)
    assert not garbage()


async def test_a_handshake_that_is_broken_off_leaves_no_garbage(plane, garbage):
    for _ in range(TIMES):
        async with caller_of(plane) as caller:
            caller.send(caller.head("GET", "/socket", *HANDSHAKE))
            caller.abort()
    await all_ended(plane, TIMES)
    assert not garbage()
