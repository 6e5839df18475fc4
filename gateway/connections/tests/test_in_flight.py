"""Answers of upstreams that are no connections: each ends where its caller loses its right to it, over real sockets."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest

from gateway.tests.http_plane import caller_of, eventually, route, running, upstream_that

IS_DIRECT = pytest.mark.parametrize("is_direct", [True, False], ids=["direct", "asgi"])
PART = b'data: {"choices":[{"delta":{"content":"word"}}]}\n\n'
PROMPT = orjson.dumps({"model": "m", "stream": True, "max_tokens": 500, "messages": [{"content": "Go on."}]})
UNLIMITED = pytest.mark.parametrize(
    "limits",
    [
        [],
        [{"metric": "tokens_out", "amount": 1000, "per": 3600}],
        [{"metric": "bytes_out", "amount": 10**9, "per": 3600}],
        [{"metric": "tokens_out", "amount": 1000, "per": 3600, "exceed": "delay"}],
    ],
    ids=["unlimited", "tokens", "bytes", "delayed"],
)


def endless(type_: str, part: bytes = PART):
    """Answer a part, and then nothing until the line is closed."""

    async def answer(requested, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % type_.encode())
        writer.write(b"%x\r\n%b\r\n" % (len(part), part))
        await writer.drain()
        await reader.read(1)
        return True

    return answer


async def is_broken_off(caller) -> bool:
    """Wait for the end of an answer in chunks, and say whether its last chunk never came."""
    try:
        return not (await asyncio.wait_for(caller.reader.read(), 20)).endswith(b"0\r\n\r\n")
    except ConnectionResetError:
        return True


def twice(go_on: asyncio.Event):
    """Answer an event, and when told so a hundred more."""

    async def answer(requested, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + PART)
        await go_on.wait()
        writer.write(PART * 100)
        return True

    return answer


async def silent(requested, reader, writer):
    """Never answer."""
    await reader.read(1)
    return True


async def begun(caller, part: bytes = PART):
    """Ask, and wait until the answer has begun."""
    lines = ("content-type: application/json", f"content-length: {len(PROMPT)}")
    caller.send(caller.head("POST", "/r", *lines) + PROMPT)
    assert (await caller.answer_head()).status == 200
    await asyncio.wait_for(caller.reader.readuntil(part), 20)


def key_with(plane, **more):
    scopes = {"scopes": ["call:*"], "digest": plane.key.digest, "consumer": "acme", "id": plane.key.id}
    plane.snapshot.apply([("key", plane.key.id, scopes | more)])


CHANGES = {
    "key-revoked": [
        lambda plane: key_with(plane, revoked_at=1.0),
        lambda plane: plane.snapshot.apply(
            [("consumer", "acme", {"name": "acme", "tier": "free", "is_active": False})]
        ),
    ],
    "forbidden": [
        lambda plane: key_with(plane, scopes=["call:other"]),
        lambda plane: plane.snapshot.apply([("tier", "free", {"name": "free", "limits": [], "scopes": ["call:x"]})]),
    ],
    "token-expired": [lambda plane: key_with(plane, expires_at=time.time() - 1)],
}
EACH_CHANGE = pytest.mark.parametrize(
    ("change", "reason"),
    [(change, reason) for reason, changes in CHANGES.items() for change in changes],
    ids=["revoked", "consumer disabled", "right withdrawn", "right of the tier withdrawn", "expired"],
)


@IS_DIRECT
@UNLIMITED
@EACH_CHANGE
async def test_a_stream_of_events_ends_and_says_why(tmp_path, is_direct, limits, change, reason):
    async with upstream_that(endless("text/event-stream")) as upstream:
        routes = [route("r", "/r", upstream.url)]
        async with running(tmp_path, routes, limits=limits, is_direct=is_direct) as plane, caller_of(plane) as caller:
            plane.connections.start()
            await begun(caller)
            change(plane)
            rest = await asyncio.wait_for(caller.reader.readuntil(b"0\r\n\r\n"), 20)
            assert b"event: error" in rest
            assert b'"reason":"%b"' % reason.encode() in rest
            await eventually(lambda: upstream.open == 0)
            await eventually(lambda: len(plane.connections.in_flight) == 0)
            assert plane.outcomes == [(reason, "revoked" if reason != "token-expired" else "expired")]
            await plane.connections.stop()


@IS_DIRECT
@UNLIMITED
@pytest.mark.parametrize("type_", ["application/json", "text/plain"])
@pytest.mark.parametrize("protocol", ["http", "sse"])
async def test_any_other_answer_is_broken_off(tmp_path, is_direct, limits, type_, protocol):
    async with upstream_that(endless(type_)) as upstream:
        routes = [route("r", "/r", upstream.url, protocol=protocol)]
        async with running(tmp_path, routes, limits=limits, is_direct=is_direct) as plane, caller_of(plane) as caller:
            await begun(caller)
            key_with(plane, revoked_at=1.0)
            assert await is_broken_off(caller)
            await eventually(lambda: upstream.open == 0)
            await eventually(lambda: len(plane.connections.in_flight) == 0)


async def test_who_does_not_read_loses_its_answer_too(tmp_path):
    part = b"x" * (32 * 1024 * 1024)
    async with upstream_that(endless("text/plain", part)) as upstream:
        routes = [route("r", "/r", upstream.url)]
        async with running(tmp_path, routes) as plane, caller_of(plane) as caller:
            caller.send(caller.head("GET", "/r"))
            await caller.answer_head()
            caller.writer.transport.pause_reading()
            key_with(plane, revoked_at=1.0)
            await eventually(lambda: upstream.open == 0)
            await eventually(lambda: len(plane.connections.in_flight) == 0)


async def test_what_a_limit_holds_back_is_ended_too(tmp_path):
    async with upstream_that(endless("text/plain", PART * 100)) as upstream:
        limits = [{"metric": "bytes_out", "amount": len(PART), "per": 30, "exceed": "delay"}]
        async with (
            running(tmp_path, [route("r", "/r", upstream.url)], limits=limits) as plane,
            caller_of(plane) as caller,
        ):
            caller.send(caller.head("GET", "/r"))
            await caller.answer_head()
            key_with(plane, revoked_at=1.0)
            assert await is_broken_off(caller)
            await eventually(lambda: upstream.open == 0)


@IS_DIRECT
async def test_who_waits_for_an_answer_is_refused(tmp_path, is_direct):
    async with upstream_that(silent) as upstream:
        routes = [route("r", "/r", upstream.url)]
        async with running(tmp_path, routes, is_direct=is_direct) as plane, caller_of(plane) as caller:
            caller.send(caller.head("GET", "/r"))
            await eventually(lambda: upstream.requests)
            key_with(plane, revoked_at=1.0)
            answer = await caller.answer()
            assert (answer.status, orjson.loads(answer.body)["reason"]) == (401, "key-revoked")
            await eventually(lambda: upstream.open == 0)


async def test_others_go_on(tmp_path):
    go_on = asyncio.Event()
    async with upstream_that(twice(go_on)) as upstream, running(tmp_path, [route("r", "/r", upstream.url)]) as plane:
        async with caller_of(plane) as caller:
            await begun(caller)
            plane.snapshot.apply([("key", plane.other_key.id, None)])
            plane.snapshot.apply([("tier", "free", {"name": "free", "limits": []})])
            go_on.set()
            assert (await asyncio.wait_for(caller.reader.readuntil(b"0\r\n\r\n"), 20)).count(PART) == 100
        assert plane.outcomes == [("ok", "")]


async def test_a_changed_tier_limits_an_answer_that_has_begun(tmp_path):
    go_on = asyncio.Event()
    async with upstream_that(twice(go_on)) as upstream:
        routes, limits = [route("r", "/r", upstream.url)], [{"metric": "bytes_out", "amount": 10**6, "per": 3600}]
        async with running(tmp_path, routes, limits=limits) as plane, caller_of(plane) as caller:
            await begun(caller)
            few = {"metric": "bytes_out", "amount": 10 * len(PART), "per": 3600}
            plane.snapshot.apply([("tier", "free", {"name": "free", "limits": [few]})])
            go_on.set()
            rest = await asyncio.wait_for(caller.reader.readuntil(b"0\r\n\r\n"), 20)
            assert rest.count(PART) == 10
            assert b'"violated-policies":["bytes_out-per-3600s"]' in rest
