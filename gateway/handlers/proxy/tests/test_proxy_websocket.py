"""Sockets proxied to upstreams: messages, closes and limits both ways, and what faults of either side become."""

import asyncio
import contextlib
import json
import random
import time
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve as serve_sockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.concurrency.stopping import stop_tasks
from gateway.refusals import Reason, Refused
from gateway.tests.http_plane import (
    NOWHERE,
    WAIT_S,
    ask,
    caller_of,
    echo,
    eventually,
    route,
    running,
    say,
    upstream_that,
)
from gateway.wire.fragments import EMPTY_MAX

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
async def proxied(tmp_path, handler=echo_messages, *, upstream=None, **more):
    async with sockets_that(handler, **(upstream or {})) as behind:
        routes = [
            route("socket", "/socket", f"ws://127.0.0.1:{behind.port}/inner", protocol="websocket"),
            route("of", "/of/{rest...}", f"ws://127.0.0.1:{behind.port}/x/{{rest}}?fixed=1", protocol="websocket"),
            route("http", "/http", f"http://127.0.0.1:{behind.port}/"),
        ]
        async with running(tmp_path, routes, **more) as plane:
            plane.behind = behind
            yield plane


@pytest.fixture
async def plane(tmp_path):
    async with proxied(tmp_path) as plane:
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
    """Give all that comes until the other side closes."""
    async with asyncio.timeout(WAIT_S):
        with contextlib.suppress(ConnectionClosed):
            while True:
                yield await socket.recv()


def refused_with(info, status, reason):
    said = json.loads(info.value.response.body)
    assert (info.value.response.status_code, said["status"], said["reason"]) == (status, status, reason)
    return True


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
    async def silent(asked, reader, writer):
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-accept: %b\r\n\r\n" % accept_of(asked.header("sec-websocket-key")[0])
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


async def test_an_upstream_that_is_not_there_is_a_502_before_101(tmp_path):
    routes = [route("socket", "/socket", f"ws://127.0.0.1:{NOWHERE}", protocol="websocket")]
    async with running(tmp_path, routes) as plane:
        with pytest.raises(InvalidStatus) as info:
            await socket_of(plane)
        assert refused_with(info, 502, "upstream-unavailable")
        assert plane.outcomes == [("upstream-unreachable", "handshake_upstream")]


async def test_an_upstream_that_hangs_is_a_504_before_101(tmp_path):
    async def hang(asked, reader, writer):
        await reader.read()
        return True

    async with upstream_that(hang) as behind:
        routes = [route("socket", "/socket", behind.url, protocol="websocket")]
        async with running(tmp_path, routes, upstream_first_byte_timeout_s=0.05) as plane:
            with pytest.raises(InvalidStatus) as info:
                await socket_of(plane)
            assert refused_with(info, 504, "upstream-timeout")
            await eventually(lambda: not behind.open)


NO_SOCKETS = {
    "hangs up": b"",
    "answers as HTTP": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "refuses": b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno",
    "sends elsewhere": b"HTTP/1.1 302 Found\r\nlocation: ws://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
    "lacks the key": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    "has another key": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
    "speaks nonsense": b"nonsense\r\n\r\n",
}


@pytest.mark.parametrize("said", NO_SOCKETS.values(), ids=NO_SOCKETS)
async def test_a_tunnel_is_opened_only_after_the_upstreams_own_101(tmp_path, said):
    async def answer(asked, reader, writer):
        await say(said)(asked, reader, writer)
        await writer.drain()
        return True

    async with upstream_that(answer) as behind:
        routes = [route("socket", "/socket", behind.url, protocol="websocket")]
        async with running(tmp_path, routes) as plane:
            with pytest.raises(InvalidStatus) as info:
                await socket_of(plane)
            assert refused_with(info, 502, "upstream-unavailable")
            assert not len(plane.connections)


@pytest.mark.parametrize("key", [None, "another"])
async def test_who_cannot_be_proved_is_refused_before_101(plane, key):
    headers = [] if key is None else [("x-api-key", key)]
    with pytest.raises(InvalidStatus) as info:
        await socket_of(plane, key=None, headers=headers)
    assert refused_with(info, 401, "unauthenticated")
    assert info.value.response.headers["www-authenticate"]
    assert not plane.behind.requests


@pytest.mark.parametrize(
    ("path", "status", "reason"), [("/nowhere", 404, "not-found"), ("/a%2fb", 400, "invalid-request")]
)
async def test_what_is_not_served_is_refused_before_101(plane, path, status, reason):
    with pytest.raises(InvalidStatus) as info:
        await socket_of(plane, path)
    assert refused_with(info, status, reason)


async def test_a_plain_request_to_a_socket_is_told_to_upgrade(plane):
    assert (await ask(plane, "GET", "/socket")).status == 426


async def test_a_browsers_key_is_ours_alone(plane):
    """``new WebSocket(url, ["bearer", KEY, "chat"])``: the upstream is offered ``chat``, and its choice is answered."""
    async with socket_of(plane, key=None, subprotocols=["bearer", plane.key.text]) as socket:
        assert socket.subprotocol == "bearer"
    async with sockets_that(echo_messages, subprotocols=["chat", "other"]) as behind:
        plane.snapshot.apply(
            [("route", "socket", route("socket", "/socket", f"ws://127.0.0.1:{behind.port}", protocol="websocket"))]
        )
        for offered, chosen in ((["other", "chat"], {"other", "chat"}), (["nothing", "chat"], {"chat"})):
            async with socket_of(plane, key=None, subprotocols=["bearer", plane.key.text, *offered]) as socket:
                assert socket.subprotocol in chosen
        for request in behind.requests:
            assert plane.key.text not in str(request.headers)


async def test_a_subprotocol_that_the_upstream_did_not_choose_is_not_promised(plane):
    async with sockets_that(echo_messages) as behind:
        plane.snapshot.apply(
            [("route", "socket", route("socket", "/socket", f"ws://127.0.0.1:{behind.port}", protocol="websocket"))]
        )
        async with socket_of(plane, subprotocols=["chat"]) as socket:
            assert socket.subprotocol is None
        async with socket_of(plane, key=None, subprotocols=["chat", "bearer", plane.key.text]) as socket:
            assert socket.subprotocol == "bearer"


async def test_the_upstream_sees_who_calls_and_nothing_that_pretends_to_be_us(plane):
    headers = [
        ("X-Consumer-Name", "boss"), ("x_consumer_name", "boss"), ("X-Forwarded-For", "9.9.9.9"),
        ("Connection", "X-Secret"), ("X-Secret", "1"), ("X-Kept", "yes"), ("Forwarded", "for=9.9.9.9"),
    ]  # fmt: skip
    async with socket_of(plane, "/of/a/b?q=1", headers=headers) as socket:
        await socket.send("x")
        await socket.recv()
    (request,) = plane.behind.requests
    assert request.path == "/x/a/b?fixed=1&q=1"
    sent = {name.lower(): request.headers.get_all(name) for name in request.headers}
    assert sent["x-consumer-name"] == ["acme"]
    assert sent["x-forwarded-for"] == ["127.0.0.1"]
    assert sent["x-forwarded-host"] == [f"127.0.0.1:{plane.port}"]
    assert sent["host"] == [f"127.0.0.1:{plane.behind.port}"]
    assert sent["x-kept"] == ["yes"]
    assert not set(sent) & {"authorization", "x-secret", "forwarded", "x_consumer_name"}
    assert plane.key.text not in str(sent)


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
    told = []

    async def handler(socket):
        await socket.send("before")
        socket.transport.write(frames)
        told.append(await closed(socket))

    async with proxied(tmp_path, handler) as plane, socket_of(plane) as socket:
        assert await asyncio.wait_for(socket.recv(), WAIT_S) == "before"
        assert await closed(socket) == (1014, '{"reason":"upstream-unavailable"}')
        await eventually(lambda: told)
    assert told[0][0] == 1002


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


def per_ten_hours(metric, amount, exceed="reject", **more):
    return {"metric": metric, "amount": amount, "per": 36_000, "exceed": exceed, **more}


@pytest.mark.parametrize("limit", [("messages_in", 5), ("bytes_in", 500)])
async def test_a_message_beyond_its_limit_is_refused_in_band_and_the_socket_stays(tmp_path, limit):
    limits = [per_ten_hours(*limit), {"metric": "messages_in", "amount": 1000, "per": 1}]
    async with proxied(tmp_path, limits=limits) as plane, socket_of(plane) as socket:
        for number in range(8):
            await socket.send(f"{number:<100}")
        said = [await asyncio.wait_for(socket.recv(), WAIT_S) for _ in range(8)]
        echoes, errors = (
            [one for one in said if not one.startswith("{")],
            [json.loads(one) for one in said if one.startswith("{")],
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
        said = [one async for one in messages_of(socket)]
        assert json.loads(said[-1])["violated-policies"] == [f"{limit[0]}-per-36000s"]
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


async def test_http_and_sockets_share_a_server(plane):
    async with upstream_that(echo) as behind:
        plane.snapshot.apply([("route", "http", route("http", "/http", f"{behind.url}/http"))])
        async with socket_of(plane) as socket:
            assert (await ask(plane, "GET", "/http")).body == b"/http "
            await socket.send("x")
            assert await asyncio.wait_for(socket.recv(), WAIT_S) == "x"


async def test_callers_that_leave_at_random_never_leave_a_message_to_another(plane):
    chance = random.Random(7)

    async def call(number):
        async with socket_of(plane) as socket:
            for turn in range(chance.randint(0, 30)):
                said = f"{number}.{turn}"
                await socket.send(said)
                if chance.random() < 0.1:
                    socket.transport.abort()
                    return
                assert await asyncio.wait_for(socket.recv(), WAIT_S) == said

    for _ in range(3):
        await asyncio.gather(*(call(number) for number in range(40)))
    await eventually(lambda: not len(plane.connections))


def accept_of(key):
    import base64
    import hashlib

    return base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


async def test_a_proxied_socket_takes_its_context_along(tmp_path):
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    async with proxied(tmp_path) as plane:
        for given in (trace, "00-x"):
            headers = {"X-API-Key": plane.key.text, "traceparent": given, "tracestate": "a=1"}
            async with connect(f"ws://127.0.0.1:{plane.port}/socket", additional_headers=headers):
                pass
        (first, second) = plane.behind.requests
        assert (first.headers["traceparent"], first.headers["tracestate"]) == (trace, "a=1")
        assert second.headers["traceparent"] not in (trace, "00-x")
        assert "tracestate" not in second.headers
