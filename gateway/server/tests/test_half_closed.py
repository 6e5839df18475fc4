"""Clients that end their sending side: they get their answers; those that reset the connection are gone."""

import asyncio
import json

import pytest
import websockets

from gateway.tests.http_plane import WAIT_S, caller_of, echo, eventually, large, route, running, upstream_that

EVENT = b"data: 1\n\n"
PING = b"\x89\x00"
UPGRADE = (
    "upgrade: websocket",
    "connection: upgrade",
    "sec-websocket-version: 13",
    "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
)


class Slow:
    """An upstream that answers once it may."""

    def __init__(self):
        self.may_answer = asyncio.Event()

    async def __call__(self, requested, reader, writer):
        await self.may_answer.wait()
        await echo(requested, reader, writer)


@pytest.fixture
def slow():
    return Slow()


@pytest.fixture
async def behind(slow):
    async with upstream_that(slow) as upstream:
        yield upstream


async def wait_for_the_end(requested, reader, writer):
    """Answer nothing; return once the gateway has closed the connection."""
    await reader.read()
    return True


@pytest.mark.parametrize("is_direct", [True, False], ids=["direct", "over ASGI"])
@pytest.mark.parametrize("body", [b"", b"abc"], ids=["GET", "POST"])
async def test_a_client_that_ends_its_sending_side_gets_its_answer(tmp_path, slow, behind, body, is_direct):
    """Kludex/uvicorn#1264, envoyproxy/envoy#2066."""
    async with (
        running(tmp_path, [route("r", "/r", behind.url)], is_direct=is_direct) as plane,
        caller_of(plane) as caller,
    ):
        lines = [f"content-length: {len(body)}"] if body else []
        caller.send(caller.head("POST" if body else "GET", "/r", *lines) + body)
        caller.writer.write_eof()
        await eventually(lambda: behind.requests)
        slow.may_answer.set()
        answer = await caller.answer()
        assert (answer.status, answer.body) == (200, b"/ " + body)
        assert answer.header("connection") == "close"
        assert await caller.is_closed()
        assert plane.outcomes == [("ok", "")]


async def test_the_end_may_come_while_the_answer_is_awaited(tmp_path, slow, behind):
    async with running(tmp_path, [route("r", "/r", behind.url)]) as plane, caller_of(plane) as caller:
        caller.send(caller.head("GET", "/r"))
        await eventually(lambda: behind.requests)
        caller.writer.write_eof()
        (connection,) = plane.server._site.open
        await eventually(lambda: connection._is_half_closed)
        slow.may_answer.set()
        assert (await caller.answer()).status == 200
        assert await caller.is_closed()


async def test_all_requests_before_the_end_are_answered(tmp_path, slow, behind):
    async with running(tmp_path, [route("r", "/r", behind.url)]) as plane, caller_of(plane) as caller:
        caller.send(b"".join(caller.head("GET", f"/r?{number}") for number in range(5)))
        caller.writer.write_eof()
        slow.may_answer.set()
        answers = [await caller.answer() for _ in range(5)]
        assert [answer.body for answer in answers] == [f"/?{number} ".encode() for number in range(5)]
        assert await caller.is_closed()


async def test_a_malformed_request_before_the_end_is_answered_too(tmp_path, slow, behind):
    async with running(tmp_path, [route("r", "/r", behind.url)]) as plane, caller_of(plane) as caller:
        caller.send(caller.head("GET", "/r") + b"GET /r HTTP/1.1\r\nx y\r\n\r\n")
        caller.writer.write_eof()
        slow.may_answer.set()
        assert [(await caller.answer()).status for _ in range(2)] == [200, 400]
        assert await caller.is_closed()


async def test_a_refusal_reaches_a_client_that_ended_its_sending_side(tmp_path, behind):
    async with running(tmp_path, [route("r", "/r", behind.url)]) as plane, caller_of(plane) as caller:
        caller.send(caller.head("GET", "/r", key=None))
        caller.writer.write_eof()
        assert (await caller.answer()).status == 401
        assert await caller.is_closed()


async def test_an_idle_connection_is_closed_with_its_sending_side(tmp_path, slow, behind):
    slow.may_answer.set()
    async with running(tmp_path, [route("r", "/r", behind.url)]) as plane:
        for requests in (0, 1):
            async with caller_of(plane) as caller:
                for _ in range(requests):
                    assert (await caller.ask("GET", "/r")).status == 200
                caller.writer.write_eof()
                assert await caller.is_closed()
                await eventually(lambda: not plane.server.server_state.connections)


async def test_a_body_that_ends_before_its_length_is_refused(tmp_path):
    async with (
        upstream_that(echo) as behind,
        running(tmp_path, [route("r", "/r", behind.url)]) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("POST", "/r", "content-length: 10") + b"abc")
        caller.writer.write_eof()
        answer = await caller.answer()
        assert (answer.status, json.loads(answer.body)["reason"]) == (400, "invalid-request")
        assert await caller.is_closed()
        await eventually(lambda: not behind.open)


async def test_a_stream_goes_on_after_the_end_of_the_sending_side(tmp_path):
    going_on = asyncio.Event()

    async def events(requested, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + EVENT)
        await going_on.wait()
        writer.write(EVENT)
        return True

    async with (
        upstream_that(events) as behind,
        running(tmp_path, [route("r", "/r", behind.url, protocol="sse")]) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("GET", "/r"))
        caller.writer.write_eof()
        assert (await caller.answer_head()).status == 200
        (connection,) = plane.server._site.open
        await eventually(lambda: connection._is_half_closed)
        going_on.set()
        assert (await caller.reader.read()).count(EVENT) == 2


@pytest.mark.parametrize("is_half_closed", [False, True])
async def test_a_reset_ends_the_call_at_the_upstream(tmp_path, is_half_closed):
    async with (
        upstream_that(wait_for_the_end) as behind,
        running(tmp_path, [route("r", "/r", behind.url)]) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("GET", "/r"))
        await eventually(lambda: behind.open)
        (connection,) = plane.server._site.open
        if is_half_closed:
            caller.writer.write_eof()
            await eventually(lambda: connection._is_half_closed)
        caller.abort()
        await eventually(lambda: not behind.open)
        await eventually(lambda: plane.outcomes)
        assert plane.outcomes == [("abandoned", "client_gone")]


async def test_a_client_that_closes_its_socket_is_gone_soon(tmp_path, monkeypatch):
    """Its kernel confirms probes of TCP for a minute more; it resets what is sent to it, as an interim response is."""
    monkeypatch.setattr("gateway.server.timed_http.INTERIM_AFTER_S", 0.1)
    async with (
        upstream_that(wait_for_the_end) as behind,
        running(tmp_path, [route("r", "/r", behind.url)]) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("POST", "/r", "content-length: 3") + b"abc")
        await eventually(lambda: behind.requests)
        caller.writer.close()
        await eventually(lambda: not behind.open)
        assert plane.outcomes == [("abandoned", "client_gone")]


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_a_client_that_still_reads_gets_its_answer_after_interim_ones(
    tmp_path, slow, behind, monkeypatch, version
):
    monkeypatch.setattr("gateway.server.timed_http.INTERIM_AFTER_S", 0.1)
    async with running(tmp_path, [route("r", "/r", behind.url)]) as plane, caller_of(plane) as caller:
        caller.send(caller.head("GET", "/r").replace(b"HTTP/1.1", f"HTTP/{version}".encode()))
        caller.writer.write_eof()
        if version == "1.1":
            assert [(await caller.answer_head()).status for _ in range(2)] == [100, 100]
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(caller.reader.read(1), 1)
        slow.may_answer.set()
        while (answer := await caller.answer()).status == 100:
            pass
        assert (answer.status, answer.body) == (200, b"/ ")
        assert await caller.is_closed()


async def test_a_reset_behind_pipelined_requests_ends_the_call(tmp_path):
    async with (
        upstream_that(wait_for_the_end) as behind,
        running(tmp_path, [route("r", "/r", behind.url)]) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("GET", "/r") * 2)
        await eventually(lambda: behind.open)
        caller.abort()
        await eventually(lambda: not behind.open)


async def test_a_handshake_of_a_client_that_ended_its_sending_side_is_answered(tmp_path, behind):
    async with (
        running(tmp_path, [route("r", "/r", behind.url, protocol="websocket")]) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("GET", "/r", *UPGRADE, key=None))
        caller.writer.write_eof()
        assert (await caller.answer()).status == 401
        assert await caller.is_closed()


async def test_a_socket_that_was_accepted_after_the_end_of_the_sending_side_ends_as_1006(tmp_path):
    requested, accepting = asyncio.Event(), asyncio.Event()

    async def handler(socket):
        await socket.wait_closed()

    async def process_request(connection, request):
        requested.set()
        await accepting.wait()

    async with (
        websockets.serve(handler, "127.0.0.1", 0, process_request=process_request) as server,
        running(
            tmp_path, [route("r", "/r", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", protocol="websocket")]
        ) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("GET", "/r", *UPGRADE))
        caller.writer.write_eof()
        await asyncio.wait_for(requested.wait(), WAIT_S)
        accepting.set()
        assert (await caller.answer_head()).status == 101
        assert not (await caller.reader.read()).replace(PING, b"")
        await eventually(lambda: plane.usage._closed)
        (row,) = plane.usage._closed
        assert (row["close_code"], row["error_class"]) == (1006, "client_gone")


async def test_a_client_that_does_not_read_is_disconnected_after_the_end_of_its_sending_side_too(tmp_path):
    async with (
        upstream_that(large) as behind,
        running(tmp_path, [route("r", "/r", behind.url)], send_timeout_s=0.05) as plane,
        caller_of(plane) as caller,
    ):
        caller.writer.transport.pause_reading()
        caller.send(caller.head("GET", "/r"))
        caller.writer.write_eof()
        await eventually(lambda: plane.outcomes)
        assert plane.outcomes == [("abandoned", "client_gone")]
        await eventually(lambda: not behind.open and not plane.server.server_state.connections)
