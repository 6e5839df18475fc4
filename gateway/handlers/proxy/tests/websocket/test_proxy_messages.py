import asyncio

import pytest

from gateway.handlers.proxy.tests.websocket.support import (
    HANDSHAKE,
    closed,
    proxied,
    socket_of,
)
from gateway.tests.http_plane import (
    WAIT_S,
    ask,
    caller_of,
    echo,
    eventually,
    route,
    upstream_that,
)
from gateway.wire.fragments import EMPTY_MAX


@pytest.mark.parametrize("message", ["hello", "", "\u00e9\U0001f600" * 100, b"\x00\xff" * 1000, b"", "a" * 1_000_000])
async def test_messages_pass_both_ways_as_they_are(plane, message):
    async with socket_of(plane) as socket:
        for _ in range(3):
            await socket.send(message)
            assert await asyncio.wait_for(socket.recv(), WAIT_S) == message


async def test_a_message_in_fragments_arrives_whole(plane):
    async with socket_of(plane) as socket:
        await socket.send(["a", "b", "", "c"])
        assert await asyncio.wait_for(socket.recv(), WAIT_S) == "abc"


async def test_fragments_of_the_upstream_arrive_whole(tmp_path):
    async def handler(socket):
        await socket.send([b"a", b"b", b"c"])
        await socket.wait_closed()

    async with proxied(tmp_path, handler) as plane, socket_of(plane) as socket:
        assert await asyncio.wait_for(socket.recv(), WAIT_S) == b"abc"


async def test_a_message_in_very_many_fragments_arrives_whole(plane):
    async with socket_of(plane) as socket:
        await socket.send(["x"] * 15_000)
        assert await asyncio.wait_for(socket.recv(), WAIT_S) == "x" * 15_000


async def test_very_many_fragments_of_the_upstream_arrive_whole_and_empty_ones_without_end_are_1009(tmp_path):
    async def handler(socket):
        await socket.send(["x"] * 15_000)
        await socket.send(["x", *([""] * (EMPTY_MAX + 1))])

    async with proxied(tmp_path, handler) as plane, socket_of(plane) as socket:
        assert await asyncio.wait_for(socket.recv(), WAIT_S) == "x" * 15_000
        assert (await closed(socket))[0] == 1009


async def test_messages_stay_in_order_and_are_counted(plane):
    async with socket_of(plane) as socket:
        for number in range(1000):
            await socket.send(f"{number:05}")
        assert [await socket.recv() for _ in range(1000)] == [f"{number:05}" for number in range(1000)]
        (connection,) = plane.connections
        assert (connection.messages_in, connection.messages_out) == (1000, 1000)
        assert (connection.bytes_in, connection.bytes_out) == (5000, 5000)
    await eventually(lambda: not len(plane.connections))


async def test_bytes_are_counted_not_characters(plane):
    async with socket_of(plane) as socket:
        await socket.send("\u00e9")
        await socket.recv()
        (connection,) = plane.connections
        assert (connection.bytes_in, connection.bytes_out) == (2, 2)


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, "done"), (1001, ""), (1008, "no"), (4001, "own: \u00e9"), (3000, "")]
)
async def test_the_upstreams_close_passes_through(tmp_path, code, reason):
    async def handler(socket):
        await socket.send("last")
        await socket.close(code, reason)

    async with proxied(tmp_path, handler) as plane, socket_of(plane) as socket:
        assert await asyncio.wait_for(socket.recv(), WAIT_S) == "last"
        assert await closed(socket) == (code, reason)
        await eventually(lambda: not len(plane.connections))
        (row,) = plane.usage._closed
        assert (row["closed_by"], row["close_code"], row["error_class"]) == ("upstream", code, "")


async def test_a_message_that_is_too_large_is_1009(tmp_path):
    async with proxied(tmp_path, proxied_message_max_bytes=1000, stream_message_max_bytes=1000) as plane:
        async with socket_of(plane) as socket:
            await socket.send("a" * 1000)
            assert await asyncio.wait_for(socket.recv(), WAIT_S) == "a" * 1000
            await socket.send("a" * 1001)
            assert (await closed(socket))[0] == 1009


@pytest.mark.parametrize("message", ["a" * 2000, ["a" * 600, "a" * 600]])
async def test_an_upstreams_message_that_is_too_large_is_1009(tmp_path, message):
    async def handler(socket):
        await socket.send(message)
        await socket.wait_closed()

    async with proxied(tmp_path, handler, proxied_message_max_bytes=1000) as plane, socket_of(plane) as socket:
        assert (await closed(socket))[0] == 1009


async def test_a_frame_that_says_it_is_huge_is_refused_before_it_comes(plane):
    async with caller_of(plane) as caller:
        caller.send(caller.head("GET", "/socket", *HANDSHAKE))
        assert (await caller.answer_head()).status == 101
        caller.send(b"\x82\xff" + (1 << 62).to_bytes(8) + b"mask")
        async with asyncio.timeout(WAIT_S):
            assert int.from_bytes((await caller.reader.readexactly(4))[2:]) == 1009


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x82\x00\x00\x00\x00\xff\xfe", 1007),
        (b"\x81\x02hi", 1002),
        (b"\x83\x80\x00\x00\x00\x00", 1002),
        (b"\xc1\x80\x00\x00\x00\x00", 1002),
        (b"\x80\x80\x00\x00\x00\x00", 1002),
        (b"\x89\xfe\x00\x7e\x00\x00\x00\x00" + bytes(126), 1002),
    ],
    ids=["no UTF-8", "no mask", "unknown opcode", "reserved bit", "continues nothing", "large ping"],
)
async def test_a_malformed_frame_ends_its_own_connection_alone(plane, frame, code):
    async with socket_of(plane) as other, caller_of(plane) as caller:
        caller.send(caller.head("GET", "/socket", *HANDSHAKE))
        assert (await caller.answer_head()).status == 101
        caller.send(frame)
        async with asyncio.timeout(WAIT_S):
            assert int.from_bytes((await caller.reader.readexactly(4))[2:]) == code
        await other.send("untouched")
        assert await asyncio.wait_for(other.recv(), WAIT_S) == "untouched"


async def test_an_upstream_that_sends_no_utf_8_is_1007(tmp_path):
    async def handler(socket):
        socket.transport.write(b"\x81\x02\xff\xfe")
        await socket.wait_closed()

    async with proxied(tmp_path, handler) as plane, socket_of(plane) as socket:
        assert (await closed(socket))[0] == 1007


@pytest.mark.parametrize(
    "frames",
    [b"\xc1\x02hi", b"\x80\x02hi", b"\x01\x01a\x81\x01b", b"\x88\x02\x00\x00", b"\x83\x00", b"\x88\x02\x03\xee"],
    ids=["reserved bit", "continues nothing", "message in a message", "close code 0", "unknown opcode", "code 1006"],
)
async def test_an_upstream_that_breaks_the_protocol_is_lost_and_told_so(tmp_path, frames):
    reported = []

    async def handler(socket):
        await socket.send("before")
        socket.transport.write(frames)
        reported.append(await closed(socket))

    async with proxied(tmp_path, handler) as plane, socket_of(plane) as socket:
        assert await asyncio.wait_for(socket.recv(), WAIT_S) == "before"
        assert await closed(socket) == (1014, '{"reason":"upstream-unavailable"}')
        await eventually(lambda: reported)
    assert reported[0][0] == 1002


async def test_what_an_upstream_says_after_its_end_is_not_heard(tmp_path):
    async def handler(socket):
        socket.transport.write(b"\x88\x02\x0f\xa0" + b"\x81\x04late")
        await socket.wait_closed()

    async with proxied(tmp_path, handler) as plane, socket_of(plane) as socket:
        assert await closed(socket) == (4000, "")


async def test_a_close_of_the_upstream_that_blames_the_protocol_passes_through(tmp_path):
    async def handler(socket):
        await socket.close(1002, "not as agreed")

    async with proxied(tmp_path, handler) as plane, socket_of(plane) as socket:
        assert await closed(socket) == (1002, "not as agreed")


async def test_http_and_sockets_share_a_server(plane):
    async with upstream_that(echo) as behind:
        plane.snapshot.apply([("route", "http", route("http", "/http", f"{behind.url}/http"))])
        async with socket_of(plane) as socket:
            assert (await ask(plane, "GET", "/http")).body == b"/http "
            await socket.send("x")
            assert await asyncio.wait_for(socket.recv(), WAIT_S) == "x"
