"""A proxied stream of events passes as it comes, whatever looks at it (WHATWG HTML 9.2.6 and 9.2.7)."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from gateway.handlers.proxy.tests.websocket.support import LIMIT
from gateway.tests.http_plane import WAIT_S, caller_of, route, running, upstream_that

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED, UNTIL_CLOSE = HEAD + b"transfer-encoding: chunked\r\n\r\n", HEAD + b"\r\n"
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}
POLICIES = {
    "none": [],
    "transform": [{"type": "transform", "options": {"outbound": {"set": {"/more": 1}}, "on_other": "refuse"}}],
    "validate": [{"type": "validate", "options": {"outbound_schema": SCHEMA}}],
}
LIMITS = {
    "unlimited": [],
    "messages": [{**LIMIT, "metric": "messages_out", "amount": 1000}],
    "bytes": [{**LIMIT, "metric": "bytes_out", "amount": 1_000_000}],
    "tokens": [{**LIMIT, "metric": "tokens_out", "amount": 1000}],
}


@asynccontextmanager
async def streaming(tmp_path, *, policies=(), limits=(), protocol="sse", method="GET", head=CHUNKED, **more):
    """Yield what sends parts of a stream, and a function that reads what the caller gets until it ends with a text."""
    parts: asyncio.Queue[bytes] = asyncio.Queue()

    async def stream(requested, reader, writer):
        writer.write(head)
        while part := await parts.get():
            writer.write(b"%x\r\n%b\r\n" % (len(part), part) if head == CHUNKED else part)
        writer.write(b"0\r\n\r\n" if head == CHUNKED else b"")
        return head != CHUNKED

    policies = [{"mode": "enforce", **policy} for policy in policies]
    async with (
        upstream_that(stream) as behind,
        running(
            tmp_path,
            [route("s", "/s", behind.url, protocol=protocol, policies=policies)],
            limits=list(limits),
            **more,
        ) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head(method, "/s"))
        assert (await caller.answer_head()).header("content-type") == "text/event-stream"
        received = bytearray()

        async def until(text):
            async with asyncio.timeout(WAIT_S):
                while not received.endswith(text):
                    size = int(await caller.reader.readuntil(b"\r\n"), 16)
                    received.extend((await caller.reader.readexactly(size + 2))[:-2])
                return bytes(received)

        yield parts.put_nowait, until
        parts.put_nowait(b"")


@pytest.mark.parametrize("protocol", ["sse", "http"])
@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("policies", POLICIES.values(), ids=POLICIES)
async def test_head_comments_and_reconnection_times_wait_for_no_event(tmp_path, policies, limits, protocol):
    """stellar/go-stellar-sdk#376, maximhq/bifrost#5010: keepalives that are held back keep nothing alive."""
    method = "POST" if limits == LIMITS["tokens"] else "GET"
    async with streaming(tmp_path, policies=policies, limits=limits, protocol=protocol, method=method) as (put, until):
        for line in (b": first\n", b"retry: 2000\n", b"\n", b":\r\n", b": caf\xc3\xa9\n\n", b"retry: 1\r"):
            put(line)
            await until(line)
        put(b"\n: se")
        put(b"cond\n")
        await until(b": second\n")
        put(b'id: 7\ndata: {"n"')
        put(b": 1}\r\n\r\n: third\n")
        assert (await until(b": third\n")).count(b"id: 7") == 1


@pytest.mark.parametrize("protocol", ["sse", "http"])
@pytest.mark.parametrize("head", [CHUNKED, UNTIL_CLOSE], ids=["chunked", "until-close"])
async def test_an_event_that_nobody_looks_at_passes_in_its_parts(tmp_path, protocol, head):
    async with streaming(tmp_path, protocol=protocol, head=head) as (put, until):
        for part in (b"da", b"ta: caf\xc3", b"\xa9\r", b"\ndata: more", b"\r\n\r", b"\nid: 1\n\n", b"data: unfinished"):
            put(part)
            await until(part)


async def test_an_event_that_is_counted_passes_whole(tmp_path):
    async with streaming(tmp_path, limits=LIMITS["messages"]) as (put, until):
        put(b": aside\nid: 1\ndata: a")
        assert await until(b"aside\n") == b": aside\n"
        put(b"b\n\n")
        assert await until(b"\n\n") == b": aside\nid: 1\ndata: ab\n\n"


async def test_each_event_that_passed_in_parts_is_counted_once(tmp_path):
    counted = []
    async with streaming(tmp_path) as (put, until):
        for part in (b"data: 1", b"\n\ndata:", b" 2\n", b"\n: no event\n\n", b"data: 3\n\n", b"data: cut off"):
            put(part)
            counted.append(await until(part))
        assert counted[-1].endswith(b"cut off")
