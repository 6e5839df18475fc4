import asyncio
import json
import random

import pytest

from gateway.handlers.proxy.tests.websocket.support import (
    HANDSHAKE,
    closed,
    proxied,
    socket_of,
)
from gateway.refusals import Reason, Refused
from gateway.tests.http_plane import (
    WAIT_S,
    caller_of,
    eventually,
    route,
    running,
    upstream_that,
)


@pytest.mark.parametrize(("code", "reason"), [(1000, "done"), (1001, ""), (4001, "own: \u00e9")])
async def test_the_callers_close_passes_through(tmp_path, code, reason):
    ends = asyncio.get_running_loop().create_future()

    async def handler(socket):
        await socket.wait_closed()
        ends.set_result((socket.close_code, socket.close_reason))

    async with proxied(tmp_path, handler) as plane:
        async with socket_of(plane) as socket:
            await socket.close(code, reason)
        assert await asyncio.wait_for(ends, WAIT_S) == (code, reason)
        await eventually(lambda: plane.usage._closed)
        (row,) = plane.usage._closed
        assert (row["closed_by"], row["close_code"]) == ("client", code)


async def test_a_caller_that_is_just_gone_takes_its_upstream_along(tmp_path):
    ended = asyncio.Event()

    async def handler(socket):
        await socket.wait_closed()
        ended.set()

    async with proxied(tmp_path, handler) as plane:
        async with socket_of(plane) as socket:
            socket.transport.abort()
            await asyncio.wait_for(ended.wait(), WAIT_S)
        await eventually(lambda: plane.usage._closed)
        assert plane.usage._closed[0]["error_class"] == "client_gone"


async def test_an_upstream_that_is_lost_is_1014(tmp_path):
    async def handler(socket):
        await socket.recv()
        socket.transport.abort()

    async with proxied(tmp_path, handler) as plane, socket_of(plane) as socket:
        await socket.send("go")
        assert await closed(socket) == (1014, '{"reason":"upstream-unavailable"}')
        await eventually(lambda: plane.usage._closed)
        (row,) = plane.usage._closed
        assert (row["closed_by"], row["close_code"], row["error_class"]) == ("gateway", 1014, "upstream_lost")


async def test_an_upstream_that_gives_no_sign_of_life_is_1014(tmp_path):
    async def silent(requested, reader, writer):
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-accept: %b\r\n\r\n" % accept_of(requested.header("sec-websocket-key")[0])
        )
        await reader.read()
        return True

    async with upstream_that(silent) as behind:
        routes = [route("socket", "/socket", behind.url, protocol="websocket")]
        async with running(tmp_path, routes, ping_interval_s=0.05) as plane, socket_of(plane) as socket:
            assert (await closed(socket))[0] == 1014


async def test_an_upstream_that_answers_pings_stays(tmp_path):
    async with proxied(tmp_path, ping_interval_s=0.05) as plane, socket_of(plane) as socket:
        await asyncio.sleep(0.5)
        await socket.send("still there?")
        assert await asyncio.wait_for(socket.recv(), WAIT_S) == "still there?"


async def test_a_revoked_key_closes_its_sockets(plane):
    async with socket_of(plane) as socket, socket_of(plane, key=plane.other_key) as other:
        plane.snapshot.apply([("key", plane.key.id, None)])
        assert await closed(socket) == (3000, '{"reason":"key-revoked"}')
        await other.send("untouched")
        assert await asyncio.wait_for(other.recv(), WAIT_S) == "untouched"


async def test_a_drain_asks_sockets_to_come_back(plane):
    async with socket_of(plane) as socket:
        await socket.send("x")
        await socket.recv()
        (connection,) = plane.connections
        connection.close(Refused(Reason.DRAINING, retry_after_s=0))
        code, reason = await closed(socket)
        assert (code, json.loads(reason)["reason"]) == (1012, "draining")


async def test_a_caller_that_does_not_read_is_dropped_and_costs_only_itself(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.handlers.proxy.websocket.SEND_TIMEOUT_S", 0.1)

    async def flood(socket):
        while True:
            await socket.send(bytes(100_000))

    async with proxied(tmp_path, flood) as plane, caller_of(plane) as caller:
        caller.send(caller.head("GET", "/socket", *HANDSHAKE))
        assert (await caller.answer_head()).status == 101
        caller.writer.transport.pause_reading()
        await eventually(lambda: plane.usage._closed)
        (row,) = plane.usage._closed
        assert row["error_class"] == "too_slow"


async def test_an_upstream_that_does_not_read_slows_its_caller(tmp_path):
    may_read = asyncio.Event()
    received = []

    async def slow(socket):
        await may_read.wait()
        async for message in socket:
            received.append(len(message))

    async with proxied(tmp_path, slow) as plane, socket_of(plane) as socket:

        async def send():
            for _ in range(200):
                await socket.send(bytes(100_000))

        sending = asyncio.create_task(send())
        await asyncio.sleep(0.5)
        assert not sending.done()
        (connection,) = plane.connections
        assert connection.bytes_in < 15_000_000
        may_read.set()
        await asyncio.wait_for(sending, WAIT_S)
        await eventually(lambda: len(received) == 200)


async def test_callers_that_leave_at_random_never_leave_a_message_to_another(plane):
    chance = random.Random(7)

    async def call(number):
        async with socket_of(plane) as socket:
            for turn in range(chance.randint(0, 30)):
                body = f"{number}.{turn}"
                await socket.send(body)
                if chance.random() < 0.1:
                    socket.transport.abort()
                    return
                assert await asyncio.wait_for(socket.recv(), WAIT_S) == body

    for _ in range(3):
        await asyncio.gather(*(call(number) for number in range(40)))
    await eventually(lambda: not len(plane.connections))


def accept_of(key):
    import base64
    import hashlib

    return base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
