"""Limits of bytes on bodies and streams of events, both ways, over real sockets."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest

from gateway.limits.bandwidth import PIECE_MIN_BYTES, PIECE_S, pieces
from gateway.limits.counters import Counter
from gateway.snapshot.picture import Limit, Metric
from gateway.tests.http_plane import NOWHERE, caller_of, echo, eventually, route, running, say, upstream_that
from gateway.wire.event_stream import EventCutter, data_of

HOURS = 36_000.0
IS_DIRECT = pytest.mark.parametrize("is_direct", [True, False])
REFUSES = pytest.mark.parametrize("exceed", ["reject", "close"])


def limit(metric: str, amount: float, per: float | str = HOURS, **more) -> dict:
    return {"metric": metric, "amount": amount, "per": per, **more}


def left(plane, metric: str) -> float:
    facts = plane.limiter.left(plane.snapshot.principal(plane.key.id))
    return next(fact["remaining"] for fact in facts if fact["metric"] == metric)


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))


def stream_of(*events: bytes, ends: bool = True):
    """Answer with a stream of events, and stay silent after them or end."""

    async def answer(requested, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for event in events:
            writer.write(chunked(event)[: -len(b"0\r\n\r\n")])
            await writer.drain()
        if ends:
            writer.write(b"0\r\n\r\n")
            return False
        await reader.read(1)
        return True

    return answer


@IS_DIRECT
@REFUSES
async def test_a_body_that_says_its_length_is_refused_before_any_of_it_is_read(tmp_path, is_direct, exceed):
    async with upstream_that(echo) as upstream:
        limits = [limit("bytes_in", 1000, exceed=exceed)]
        async with running(tmp_path, [route("r", "/r", upstream.url)], limits=limits, is_direct=is_direct) as plane:
            async with caller_of(plane) as caller:
                assert (await caller.ask("POST", "/r", body=b"x" * 600)).status == 200
                assert (await caller.ask("POST", "/r", body=b"x" * 400)).status == 200
            async with caller_of(plane) as caller:
                # It waits to be told to go on; what it is told is no.
                caller.send(caller.head("POST", "/r", "content-length: 1", "expect: 100-continue"))
                refused = await caller.answer()
            assert (refused.status, orjson.loads(refused.body)["violated-policies"]) == (429, ["bytes_in-per-36000s"])
            assert len(upstream.requests) == 2
            assert left(plane, "bytes_in") == 0


@pytest.mark.parametrize("size", [1, 999, 70_000, 1_000_000])
async def test_bodies_cost_their_bytes_whatever_their_pieces(tmp_path, size):
    async with upstream_that(say("HTTP/1.1 204 No Content\r\n\r\n")) as upstream:
        limits = [limit("bytes_in", 5_000_000, "month")]
        async with running(tmp_path, [route("r", "/r", upstream.url)], limits=limits) as plane, caller_of(plane) as one:
            assert (await one.ask("POST", "/r", body=b"x" * size)).status == 204
            assert left(plane, "bytes_in") == 5_000_000 - size
            parts = [b"x" * min(size, 7000)] * (size // 7000 or 1)
            one.send(one.head("POST", "/r", "transfer-encoding: chunked") + chunked(*parts))
            assert (await one.answer()).status == 204
            assert left(plane, "bytes_in") == 5_000_000 - size - sum(map(len, parts))


async def test_a_body_larger_than_the_bucket_passes_once_it_is_full_and_is_owed(tmp_path):
    async with upstream_that(echo) as upstream:
        limits = [limit("bytes_in", 1000)]
        async with (
            running(tmp_path, [route("r", "/r", upstream.url)], limits=limits) as plane,
            caller_of(plane) as caller,
        ):
            assert (await caller.ask("POST", "/r", body=b"x" * 200_000)).status == 200
            refused = await caller.ask("POST", "/r", body=b"x")
            # 199,000 bytes are owed and one is wanted, at 1000 in ten hours.
            assert orjson.loads(refused.body)["retry_after_s"] == pytest.approx(199_001 * 36, rel=0.001)


async def test_what_a_caller_announces_and_does_not_send_is_given_back(tmp_path):
    async with upstream_that(echo) as upstream:
        limits = [limit("bytes_in", 1000)]
        async with (
            running(tmp_path, [route("r", "/r", upstream.url)], limits=limits) as plane,
            caller_of(plane) as caller,
        ):
            caller.send(caller.head("POST", "/r", "content-length: 900") + b"x" * 300)
            await eventually(lambda: left(plane, "bytes_in") == 100)
            caller.abort()
            await eventually(lambda: left(plane, "bytes_in") == 700)


@IS_DIRECT
@pytest.mark.parametrize("ends", ["answered early", "no upstream", "key revoked"])
async def test_what_nobody_waits_for_any_more_is_given_back(tmp_path, is_direct, ends):
    """The caller is there and would send the rest: the upstream has answered, or the gateway has, without it."""

    async def early(requested, reader, writer):
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
        await reader.read()
        return True

    async with upstream_that(
        early if ends == "answered early" else echo, reads_bodies=ends == "key revoked"
    ) as upstream:
        url = f"http://127.0.0.1:{NOWHERE}" if ends == "no upstream" else upstream.url
        limits = [limit("bytes_in", 1000)]
        async with (
            running(tmp_path, [route("r", "/r", url)], limits=limits, is_direct=is_direct) as plane,
            caller_of(plane) as caller,
        ):
            key = {"id": plane.key.id, "consumer": "acme", "digest": plane.key.digest, "scopes": ["call:*"]}
            caller.send(caller.head("POST", "/r", "content-length: 900") + b"x" * 300)
            if ends == "key revoked":
                await eventually(lambda: left(plane, "bytes_in") == 100)
                plane.snapshot.apply([("key", plane.key.id, key | {"revoked_at": 1.0})])
            assert (await caller.answer()).status == {"no upstream": 502, "key revoked": 401}.get(ends, 503)
            plane.snapshot.apply([("key", plane.key.id, key)])
            # What was not read before the end costs nothing either.
            await eventually(lambda: left(plane, "bytes_in") in (700, 1000))


@REFUSES
async def test_a_body_of_unknown_length_is_cut_off_at_the_limit(tmp_path, exceed):
    async with upstream_that(echo) as upstream:
        limits = [limit("bytes_in", 5000, exceed=exceed)]
        async with (
            running(tmp_path, [route("r", "/r", upstream.url)], limits=limits) as plane,
            caller_of(plane) as caller,
        ):
            caller.send(caller.head("POST", "/r", "transfer-encoding: chunked") + chunked(*[b"x" * 1000] * 20))
            assert (await caller.answer()).status == 429
            assert upstream.requests == [], "the upstream never got a whole body"
            assert 0 <= left(plane, "bytes_in") < PIECE_MIN_BYTES


async def test_a_delayed_body_flows_at_its_limit_and_the_callers_window_closes(tmp_path):
    async with upstream_that(echo) as upstream:
        limits = [limit("bytes_in", 200_000, 1.0, burst=20_000, exceed="delay")]
        async with (
            running(tmp_path, [route("r", "/r", upstream.url)], limits=limits) as plane,
            caller_of(plane) as caller,
        ):
            # More than the kernel holds for both of us.
            size = 9_000_000
            caller.send(caller.head("POST", "/r", f"content-length: {size}") + b"x" * size)
            began_at = time.monotonic()
            await asyncio.sleep(0.5)
            assert caller.writer.transport.get_write_buffer_size() > 1_000_000
            [protocol] = plane.server.server_state.connections
            assert len(protocol._running.body) <= 512 * 1024
            allowed = 20_000 + 200_000 * (time.monotonic() - began_at) + 64 * 1024
            assert protocol._running.bytes_in <= allowed + 256 * 1024


@IS_DIRECT
@REFUSES
async def test_an_answer_that_says_its_length_is_refused_before_it_begins(tmp_path, is_direct, exceed):
    async with upstream_that(say(b"HTTP/1.1 200 OK\r\ncontent-length: 600\r\n\r\n" + b"x" * 600)) as upstream:
        limits = [limit("bytes_out", 1000, exceed=exceed)]
        gateway = running(tmp_path, [route("r", "/r", upstream.url)], limits=limits, is_direct=is_direct)
        async with gateway as plane, caller_of(plane) as caller:
            assert (await caller.ask("GET", "/r")).body == b"x" * 600
            refused = await caller.ask("GET", "/r")
            assert (refused.status, refused.header("content-type")) == (429, "application/problem+json")
            assert left(plane, "bytes_out") == 400
            assert (await caller.ask("HEAD", "/r")).status == 200, "a head costs nothing"


@IS_DIRECT
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
async def test_an_answer_of_unknown_length_is_broken_off_and_never_taken_for_whole(tmp_path, is_direct, version):
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"
    async with upstream_that(say(head + chunked(*[b"x" * 1000] * 50))) as upstream:
        limits = [limit("bytes_out", 5000)]
        gateway = running(tmp_path, [route("r", "/r", upstream.url)], limits=limits, is_direct=is_direct)
        async with gateway as plane, caller_of(plane) as caller:
            caller.send(caller.head("GET", "/r").replace(b"HTTP/1.1", version.encode(), 1))
            assert (await caller.answer_head()).status == 200
            got = b""
            try:
                while part := await caller.reader.read(65536):
                    got += part
            except ConnectionResetError:
                got += b"<reset>"
            assert not got.endswith(b"0\r\n\r\n")
            assert 4000 <= got.count(b"x") <= 5000
            if version == "HTTP/1.0" and is_direct:
                assert got.endswith(b"<reset>")


async def test_a_delayed_answer_flows_at_its_limit_and_holds_its_upstream_up(tmp_path):
    size = 40_000_000  # more than the kernel holds
    sent = []

    async def answer(requested, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size // 10_000):
            writer.write(b"x" * 10_000)
            await writer.drain()
            sent.append(10_000)

    async with upstream_that(answer) as upstream:
        limits = [limit("bytes_out", 200_000, 1.0, burst=20_000, exceed="delay")]
        async with (
            running(tmp_path, [route("r", "/r", upstream.url)], limits=limits) as plane,
            caller_of(plane) as caller,
        ):
            began_at = time.monotonic()
            caller.send(caller.head("GET", "/r"))
            await caller.answer_head()
            got = 0
            while got < 100_000:
                got += len(await caller.reader.read(65536))
                assert got <= 20_000 + 200_000 * (time.monotonic() - began_at) + 1
            assert sum(sent) < size, "the upstream's window is closed"


EVENT = b"data: " + b"x" * 92 + b"\n\n"
"""Of 100 bytes."""


@IS_DIRECT
@REFUSES
@pytest.mark.parametrize("protocol", ["http", "sse"])
async def test_a_stream_of_events_ends_at_its_limit_with_an_error(tmp_path, is_direct, exceed, protocol):
    heartbeats = b": still there\n\n" * 100
    async with upstream_that(stream_of(heartbeats, *[EVENT] * 50, ends=False)) as upstream:
        routes = [route("r", "/r", upstream.url, protocol=protocol)]
        limits = [limit("bytes_out", 1050, exceed=exceed)]
        gateway = running(tmp_path, routes, limits=limits, is_direct=is_direct)
        async with gateway as plane, caller_of(plane) as caller:
            answer = await caller.ask("GET", "/r")
            *events, error = EventCutter().cut(answer.body)
            assert events.count(EVENT) == 10
            assert answer.body.startswith(heartbeats), "heartbeats never count"
            assert error.startswith(b"retry: ")
            assert orjson.loads(data_of(error))["reason"] == "rate-limited"
            await eventually(lambda: upstream.open == 0)
            assert left(plane, "bytes_out") == 50
            assert (await caller.ask("GET", "/none")).status == 404, "the connection can be used again"


async def test_a_stream_that_says_its_length_can_be_cut_too(tmp_path):
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 5000\r\n\r\n"
    async with upstream_that(say(head + EVENT * 50)) as upstream:
        limits = [limit("bytes_out", 1000)]
        async with (
            running(tmp_path, [route("r", "/r", upstream.url)], limits=limits) as plane,
            caller_of(plane) as caller,
        ):
            answer = await caller.ask("GET", "/r")
            assert answer.header("content-length") is None
            *events, error = EventCutter().cut(answer.body)
            assert len(events) == 10
            assert b"event: error" in error


async def test_a_stream_whose_limit_is_not_met_passes_as_it_is(tmp_path):
    reply = [b"\xef\xbb\xbf: hello\r\rdata: 1\r\r", b"id: 7\ndata: a\ndata: b\n\n", b": end without a blank line"]
    async with upstream_that(stream_of(*reply)) as upstream:
        limits = [limit("bytes_out", 10_000)]
        async with (
            running(tmp_path, [route("r", "/r", upstream.url)], limits=limits) as plane,
            caller_of(plane) as caller,
        ):
            assert (await caller.ask("GET", "/r")).body == b"".join(reply)


async def test_a_delayed_stream_loses_nothing_and_keeps_its_pace(tmp_path):
    async with upstream_that(stream_of(*[EVENT] * 40)) as upstream:
        limits = [limit("bytes_out", 5000, 1.0, burst=1000, exceed="delay")]
        async with (
            running(tmp_path, [route("r", "/r", upstream.url)], limits=limits) as plane,
            caller_of(plane) as caller,
        ):
            began_at = time.monotonic()
            assert (await caller.ask("GET", "/r")).body == EVENT * 40
            assert time.monotonic() - began_at >= (4000 - 1000) / 5000 - 0.01


async def test_events_of_an_sse_route_are_messages(tmp_path):
    async with upstream_that(stream_of(b": hi\n\n", *[EVENT] * 20, ends=False)) as upstream:
        routes = [route("r", "/r", upstream.url, protocol="sse")]
        async with running(tmp_path, routes, limits=[limit("messages_out", 7)]) as plane, caller_of(plane) as caller:
            answer = await caller.ask("GET", "/r")
            assert answer.body.count(EVENT) == 7
            assert b'"violated-policies":["messages_out-per-36000s"]' in answer.body


async def test_a_revoked_key_ends_a_proxied_stream_of_events(tmp_path):
    async with upstream_that(stream_of(EVENT, ends=False)) as upstream:
        routes = [route("r", "/r", upstream.url, protocol="sse")]
        async with running(tmp_path, routes) as plane, caller_of(plane) as caller:
            plane.connections.start()
            caller.send(caller.head("GET", "/r"))
            await caller.answer_head()
            await caller.reader.readuntil(EVENT)
            plane.snapshot.apply([("key", plane.key.id, None)])
            rest = await asyncio.wait_for(caller.reader.readuntil(b"0\r\n\r\n"), 20)
            assert b"event: error" in rest
            assert b'"status":401' in rest
            await eventually(lambda: upstream.open == 0)
            await plane.connections.stop()


async def test_a_caller_that_closes_its_proxied_stream_ends_it_well(tmp_path):
    async with upstream_that(stream_of(EVENT, ends=False)) as upstream:
        routes = [route("r", "/r", upstream.url, protocol="sse")]
        async with running(tmp_path, routes) as plane:
            async with caller_of(plane) as caller:
                caller.send(caller.head("GET", "/r"))
                await caller.reader.readuntil(EVENT)
                [connection] = plane.connections
                assert (connection.messages_out, connection.bytes_out) == (1, 100)
                caller.writer.close()
                await eventually(lambda: upstream.open == 0)
            await eventually(lambda: not [*plane.connections])


@pytest.mark.parametrize("amount", [1, 100, 10_000, 1_000_000])
def test_pieces_are_of_what_a_limit_lets_through_in_a_short_time(amount):
    counter = Counter(Limit(Metric.BYTES_OUT, amount, 1.0), "", "acme")
    part = bytes(range(256)) * 4096
    cut = [*pieces(part, (counter,))]
    assert b"".join(cut) == part
    assert all(len(piece) <= max(PIECE_MIN_BYTES, amount * PIECE_S) for piece in cut)
