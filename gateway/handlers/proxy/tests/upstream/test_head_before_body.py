"""The head of a request goes ahead of its body: what the upstream answers to it is heard before the body is sent."""

import asyncio
import json

import pytest

from gateway.handlers.proxy import http
from gateway.handlers.proxy.tests.upstream.support import plane_before
from gateway.tests.http_plane import WAIT_S, ask, caller_of, eventually, read_body, read_chunks, upstream_that

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EXPECTS = ("content-length: 3", "expect: 100-continue")
UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic\r\ncontent-length: 2\r\n\r\nno"


@pytest.fixture
def never_asks(monkeypatch):
    monkeypatch.setattr(http, "CONTINUE_S", WAIT_S * 2)


async def refuse(requested, reader, writer):
    writer.write(UNAUTHORIZED)
    await writer.drain()
    await reader.read()
    return True


async def read_what_it_asked_for(requested, reader, writer):
    """Ask for the body if the request expects that, and answer its length."""
    if requested.header("expect"):
        writer.write(CONTINUE)
    body = await read_body(reader, requested)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%d" % (len(str(len(body))), len(body)))


async def test_an_expectation_reaches_the_upstream_which_asks_for_the_body(tmp_path, never_asks):
    async with (
        upstream_that(read_what_it_asked_for, reads_bodies=False) as behind,
        plane_before(tmp_path, behind.url) as plane,
        caller_of(plane) as caller,
    ):
        for _ in range(2):
            caller.send(caller.head("POST", "/r", *EXPECTS))
            assert (await caller.answer_head()).status == 100
            caller.send(b"abc")
            answer = await caller.answer()
            assert (answer.status, answer.body) == (200, b"3")
        assert [request.header("expect") for request in behind.requests] == [["100-continue"]] * 2
        assert behind.connections == 1


@pytest.mark.parametrize("expects", [True, False])
async def test_an_upstream_that_refuses_by_the_head_is_heard_before_the_body_is_sent(tmp_path, never_asks, expects):
    async with (
        upstream_that(refuse, reads_bodies=False) as behind,
        plane_before(tmp_path, behind.url) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(
            caller.head("POST", "/r", "content-length: 5000000", *(["expect: 100-continue"] if expects else []))
        )
        answer = await caller.answer()
        assert (answer.status, answer.header("www-authenticate"), answer.body) == (401, "Basic", b"no")
        if expects:
            # It may send the body or not, so nobody can know where another request would begin.
            assert await caller.is_closed()
        await eventually(lambda: not behind.open)


async def test_a_body_is_asked_for_by_the_gateway_if_its_upstream_ignores_the_expectation(tmp_path, monkeypatch):
    monkeypatch.setattr(http, "CONTINUE_S", 0.05)

    async def ignore(requested, reader, writer):
        requested.headers = [header for header in requested.headers if header[0] != "expect"]
        await read_what_it_asked_for(requested, reader, writer)

    async with (
        upstream_that(ignore, reads_bodies=False) as behind,
        plane_before(tmp_path, behind.url) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("POST", "/r", *EXPECTS))
        assert (await caller.answer_head()).status == 100
        caller.send(b"abc")
        assert (await caller.answer()).body == b"3"


async def test_a_body_that_is_there_already_is_sent_without_an_expectation(tmp_path, is_direct):
    async with (
        upstream_that(read_what_it_asked_for, reads_bodies=False) as behind,
        plane_before(tmp_path, behind.url) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("POST", "/r", *EXPECTS) + b"abc")
        answer = await caller.answer()
        assert (answer.status, answer.body, answer.header("connection")) == (200, b"3", None)
        assert behind.requests[0].header("expect") == []


@pytest.mark.parametrize(
    ("lines", "key", "status"),
    [(EXPECTS, None, 401), (("content-length: 5000", "expect: 100-continue"), "", 413)],
)
async def test_what_the_gateway_refuses_is_refused_without_a_100(tmp_path, is_direct, lines, key, status):
    async with (
        upstream_that(refuse, reads_bodies=False) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct, body_max_bytes=1000) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("POST", "/r", *lines, key=key))
        assert (await caller.answer()).status == status
        assert await caller.is_closed()
        assert not behind.requests


async def test_an_old_client_gets_no_100(tmp_path):
    async with (
        upstream_that(read_what_it_asked_for, reads_bodies=False) as behind,
        plane_before(tmp_path, behind.url) as plane,
        caller_of(plane) as caller,
    ):
        head = caller.head("POST", "/r", *EXPECTS).replace(b"HTTP/1.1", b"HTTP/1.0")
        caller.send(head)
        await eventually(lambda: behind.requests)
        caller.send(b"abc")
        assert (await caller.answer()).status == 200


@pytest.mark.parametrize("expects", [True, False])
async def test_both_sides_of_a_bidirectional_stream_may_wait_for_each_other(tmp_path, is_direct, expects):
    """The client sends nothing before it has the head of the answer, and each part only after the echo of the last."""

    async def converse(requested, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while size := int(await reader.readuntil(b"\r\n"), 16):
            writer.write(b"%x\r\n%b" % (size, await reader.readexactly(size + 2)))
        writer.write(b"0\r\n\r\n")
        return True

    expectation = ["expect: 100-continue"] if expects else []
    async with (
        upstream_that(converse, reads_bodies=False) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct, body_rate_grace_s=0.1, body_stall_s=0.1) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("POST", "/r", "transfer-encoding: chunked", *expectation))
        assert (await caller.answer_head()).status == 200
        for part in (b"3\r\none\r\n", b"3\r\ntwo\r\n"):
            await asyncio.sleep(1.1)  # longer than the body of a call that is not answered may stall
            caller.send(part)
            assert await asyncio.wait_for(caller.reader.readexactly(len(part)), WAIT_S) == part
        caller.send(b"0\r\n\r\n")
        assert await read_chunks(caller.reader) == b""


async def test_an_answer_that_is_early_leaves_an_idle_connection_that_is_closed_in_time(tmp_path):
    async with (
        upstream_that(refuse, reads_bodies=False) as behind,
        plane_before(tmp_path, behind.url, keep_alive_s=0.1) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("POST", "/r", "content-length: 3"))
        assert (await caller.answer()).status == 401
        caller.send(b"abc")
        assert await caller.is_closed()


async def test_a_body_that_nobody_reads_any_more_is_bounded(tmp_path):
    async with (
        upstream_that(refuse, reads_bodies=False) as behind,
        plane_before(tmp_path, behind.url, body_max_bytes=1000) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("POST", "/r", "transfer-encoding: chunked"))
        assert (await caller.answer()).status == 401
        caller.send(b"800\r\n" + bytes(0x800))
        assert await caller.is_closed()


async def test_a_limit_refuses_a_body_that_comes_behind_its_head(tmp_path):
    async def wait(requested, reader, writer):
        await reader.read()
        return True

    async with (
        upstream_that(wait, reads_bodies=False) as behind,
        plane_before(tmp_path, behind.url, body_max_bytes=1000) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("POST", "/r", "transfer-encoding: chunked"))
        await eventually(lambda: behind.requests)
        caller.send(b"800\r\n" + bytes(0x800))
        answer = await caller.answer()
        assert (answer.status, json.loads(answer.body)["reason"]) == (413, "too-large")
        await eventually(lambda: not behind.open)
        assert (await ask(plane, "GET", "/r", key=None)).status == 401
