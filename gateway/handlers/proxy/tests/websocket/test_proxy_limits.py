import asyncio
import json
import time

import pytest
from websockets.exceptions import InvalidStatus

from gateway.concurrency.stopping import stop_tasks
from gateway.handlers.proxy.tests.websocket.support import (
    LIMIT,
    closed,
    messages_of,
    proxied,
    refused_with,
    socket_of,
)
from gateway.tests.http_plane import (
    WAIT_S,
    eventually,
)


def per_ten_hours(metric, amount, exceed="reject", **more):
    return {"metric": metric, "amount": amount, "per": 36_000, "exceed": exceed, **more}


@pytest.mark.parametrize("limit", [("messages_in", 5), ("bytes_in", 500)])
async def test_a_message_beyond_its_limit_is_refused_in_band_and_the_socket_stays(tmp_path, limit):
    limits = [per_ten_hours(*limit), {"metric": "messages_in", "amount": 1000, "per": 1}]
    async with proxied(tmp_path, limits=limits) as plane, socket_of(plane) as socket:
        for number in range(8):
            await socket.send(f"{number:<100}")
        body = [await asyncio.wait_for(socket.recv(), WAIT_S) for _ in range(8)]
        echoes, errors = (
            [one for one in body if not one.startswith("{")],
            [json.loads(one) for one in body if one.startswith("{")],
        )
        assert [int(echo) for echo in echoes] == [0, 1, 2, 3, 4]
        assert [(error["type"], error["reason"]) for error in errors] == [("error", "rate-limited")] * 3
        assert all(error["retry_after_s"] > 0 for error in errors)
        assert errors[0]["violated-policies"] == [f"{limit[0]}-per-36000s"]
        (connection,) = plane.connections
        assert (connection.messages_in, connection.messages_out) == (8, 5)
        assert connection.refusals == {"rate-limited": 3}


@pytest.mark.parametrize("limit", [("messages_in", 5), ("bytes_in", 500), ("messages_out", 5), ("bytes_out", 500)])
async def test_a_limit_that_closes_says_so_and_closes_with_4429(tmp_path, limit):
    async with proxied(tmp_path, limits=[per_ten_hours(*limit, "close")]) as plane, socket_of(plane) as socket:
        for _ in range(6):
            await socket.send("x" * 100)
        body = [one async for one in messages_of(socket)]
        assert json.loads(body[-1])["violated-policies"] == [f"{limit[0]}-per-36000s"]
        code, reason = await closed(socket)
        assert code == 4429
        assert json.loads(reason)["reason"] == "rate-limited"
        assert json.loads(reason)["retry_after_s"] > 0
        await eventually(lambda: plane.usage._closed)
        (row,) = plane.usage._closed
        assert (row["messages_in"], row["close_code"], row["error_class"]) == (6, 4429, "policy_limit")


async def test_a_flood_is_closed_at_a_multiple_of_the_limit(tmp_path):
    limits = [{"metric": "messages_in", "amount": 5, "per": 10, "close_at": 4}]
    async with proxied(tmp_path, limits=limits) as plane, socket_of(plane) as socket:
        for _ in range(100):
            await socket.send("x")
        assert (await closed(socket))[0] == 4429


@pytest.mark.parametrize("metric", ["messages_out", "bytes_out"])
async def test_what_an_upstream_says_beyond_a_limit_is_held_back_and_not_lost(tmp_path, metric):
    amount = 5 if metric == "messages_out" else 500
    limits = [{"metric": metric, "amount": amount, "per": 0.5, "close_at": 1}]
    async with proxied(tmp_path, limits=limits) as plane, socket_of(plane) as socket:
        for number in range(10):
            await socket.send(f"{number:<100}")
        echoes, errors = [], []
        while len(echoes) < 10:
            one = await asyncio.wait_for(socket.recv(), WAIT_S)
            (errors if one.startswith("{") else echoes).append(one)
        assert [int(echo) for echo in echoes] == [*range(10)]
        assert json.loads(errors[0])["reason"] == "rate-limited"


async def test_a_quota_of_what_an_upstream_says_ends_the_socket(tmp_path):
    limits = [{"metric": "messages_out", "amount": 3, "per": "month"}]
    async with proxied(tmp_path, limits=limits) as plane, socket_of(plane) as socket:
        for _ in range(5):
            await socket.send("x")
        assert (await closed(socket))[0] == 4429


async def test_a_frame_larger_than_the_bucket_passes_when_it_is_full_and_is_owed(tmp_path):
    async with proxied(tmp_path, limits=[per_ten_hours("bytes_in", 1000)]) as plane, socket_of(plane) as socket:
        await socket.send(b"x" * 500_000)
        assert len(await asyncio.wait_for(socket.recv(), WAIT_S)) == 500_000
        await socket.send(b"x")
        error = json.loads(await asyncio.wait_for(socket.recv(), WAIT_S))
        assert error["retry_after_s"] == pytest.approx(499_001 * 36, rel=0.001)


async def test_a_delayed_caller_is_not_read_and_its_window_closes(tmp_path):
    limits = [{"metric": "bytes_in", "amount": 100_000, "per": 1, "burst": 10_000, "exceed": "delay"}]
    async with proxied(tmp_path, limits=limits) as plane, socket_of(plane) as socket:
        (connection,) = plane.connections

        async def flood():
            while True:
                await socket.send(b"x" * 10_000)

        flooding = asyncio.create_task(flood())
        began_at = time.monotonic()
        await asyncio.sleep(0.5)
        assert connection.bytes_in <= 10_000 + 100_000 * (time.monotonic() - began_at) + 2 * 10_000
        await eventually(lambda: socket.transport.get_write_buffer_size() > 0)
        await stop_tasks(flooding)


async def test_pings_and_pongs_cost_nothing(tmp_path):
    limits = [per_ten_hours("messages_in", 1, "close"), per_ten_hours("bytes_in", 1, "close")]
    async with proxied(tmp_path, limits=limits) as plane, socket_of(plane) as socket:
        for _ in range(20):
            await asyncio.wait_for(await socket.ping(b"x" * 100), WAIT_S)
        await socket.send("x")
        assert await asyncio.wait_for(socket.recv(), WAIT_S) == "x"


async def test_the_101_and_a_refusal_before_it_tell_the_limits(tmp_path):
    limits = [{"metric": "connections", "amount": 1, "per": 60}, {"metric": "bytes_out", "amount": 100, "per": 1}]
    async with proxied(tmp_path, limits=limits) as plane, socket_of(plane) as socket:
        policy = '"connections-per-60s";q=1;w=60, "bytes_out-per-1s";q=100;w=1;qu="content-bytes"'
        assert socket.response.headers["ratelimit-policy"] == policy
        assert socket.response.headers["ratelimit"].startswith('"connections-per-60s";r=0;t=')
        with pytest.raises(InvalidStatus) as info:
            await socket_of(plane)
        assert refused_with(info, 429, "rate-limited")
        assert info.value.response.headers["ratelimit-policy"] == policy
        assert int(info.value.response.headers["retry-after"]) <= 60


async def test_messages_may_be_delayed_instead(tmp_path):
    limits = [{**LIMIT, "metric": "messages_in", "amount": 20, "per": 1, "burst": 2, "exceed": "delay"}]
    async with proxied(tmp_path, limits=limits) as plane, socket_of(plane) as socket:
        for number in range(10):
            await socket.send(str(number))
        assert [await asyncio.wait_for(socket.recv(), WAIT_S) for _ in range(10)] == [str(n) for n in range(10)]
        (connection,) = plane.connections
        assert connection.throttled > 0


async def test_more_open_sockets_than_allowed_are_refused_before_101(tmp_path):
    limits = [{**LIMIT, "metric": "open_connections", "amount": 1, "burst": 1, "per": 1}]
    async with proxied(tmp_path, limits=limits) as plane, socket_of(plane):
        with pytest.raises(InvalidStatus) as info:
            await socket_of(plane)
        assert refused_with(info, 429, "too-many-connections")
