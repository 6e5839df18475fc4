import asyncio
import random

import pytest

from gateway.concurrency.stopping import stop_tasks
from gateway.handlers.proxy.tests.upstream.support import LARGE, plane_before
from gateway.tests.http_plane import (
    ask,
    caller_of,
    eventually,
    route,
    running,
    upstream_that,
)  # fmt: skip


async def test_large_bodies_flow_both_ways(tmp_path, is_direct):
    async def back(requested, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        left = int(requested.header("content-length")[0])
        while left:
            part = await reader.read(100_000)
            left -= len(part)
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    body = random.Random(7).randbytes(LARGE // 4)
    async with (
        upstream_that(back, reads_bodies=False) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct, body_max_bytes=LARGE) as plane,
    ):
        assert (await ask(plane, "POST", "/r", body=body)).body == body


async def test_a_slow_reader_slows_its_upstream_and_is_not_cut_off(tmp_path, is_direct):
    """Its pace is not the upstream's fault, however short the upstream's deadlines are."""
    sent = asyncio.Event()

    async def large(requested, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LARGE)
        writer.write(bytes(LARGE))
        await writer.drain()
        sent.set()

    settings = {"upstream_first_byte_timeout_s": 0.2, "upstream_idle_timeout_s": 0.2}
    async with (
        upstream_that(large) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct, **settings) as plane,
        caller_of(plane) as caller,
    ):
        caller.writer.transport.pause_reading()
        caller.send(caller.head("GET", "/r"))
        await asyncio.sleep(1.2)
        assert not sent.is_set()
        caller.writer.transport.resume_reading()
        assert len((await caller.answer()).body) == LARGE


async def test_events_are_passed_on_as_they_come(tmp_path, is_direct):
    more: asyncio.Queue[bytes] = asyncio.Queue()

    async def stream(requested, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        while event := await more.get():
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        writer.write(b"0\r\n\r\n")

    async with (
        upstream_that(stream) as behind,
        running(tmp_path, [route("s", "/s", behind.url, protocol="sse")], is_direct=is_direct) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("GET", "/s"))
        assert (await caller.answer_head()).header("content-type") == "text/event-stream"
        for event in (b"data: 1\n\n", b"data: 2\n\n"):
            more.put_nowait(event)
            async with asyncio.timeout(20):
                assert event in await caller.reader.readuntil(event + b"\r\n")
        more.put_nowait(b"")
        async with asyncio.timeout(20):
            await caller.reader.readuntil(b"0\r\n\r\n")


@pytest.mark.parametrize("has_begun", [True, False])
async def test_a_caller_that_leaves_takes_its_upstream_along(tmp_path, is_direct, has_begun):
    async def wait(requested, reader, writer):
        if has_begun:
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await reader.read()
        return True

    async with (
        upstream_that(wait) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("GET", "/r"))
        if has_begun:
            await caller.reader.readuntil(b"abc")
        else:
            await eventually(lambda: behind.requests)
        caller.abort()
        await eventually(lambda: not behind.open)
        await eventually(lambda: plane.outcomes)
        assert plane.outcomes == [("abandoned", "client_gone")]


async def test_callers_that_leave_at_random_never_leave_their_answer_to_another(tmp_path, is_direct):
    chance = random.Random(20)

    async def slowly(requested, reader, writer):
        """Answer in pieces with pauses between, so that callers leave before, in and after each."""
        body = f"{requested.target} {requested.body.decode()} ".encode() * chance.randint(1, 200)
        if chance.random() < 0.5:
            reply = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        else:
            reply = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        for _ in range(chance.randint(0, 3)):
            cut = chance.randint(0, len(reply))
            writer.write(reply[:cut])
            reply = reply[cut:]
            await asyncio.sleep(chance.random() * 0.005)
        writer.write(reply)

    async with upstream_that(slowly) as behind, plane_before(tmp_path, behind.url, is_direct=is_direct) as plane:
        whole = 0

        async def call(number):
            nonlocal whole
            async with caller_of(plane) as caller:
                for turn in range(4):
                    body = f"{number}.{turn}".encode() if chance.random() < 0.5 else b""
                    asking = asyncio.ensure_future(
                        caller.ask("POST" if body else "GET", f"/rest/{number}/{turn}", body=body)
                    )
                    if chance.random() < 0.4:
                        await asyncio.wait([asking], timeout=chance.random() * 0.02)
                        await stop_tasks(asking)
                        return
                    answer = await asking
                    reply = f"/{number}/{turn} {body.decode()} ".encode()
                    assert answer.status == 200
                    assert answer.body == reply * (len(answer.body) // len(reply))
                    whole += 1

        for _ in range(4):
            await asyncio.gather(*(call(number) for number in range(60)))
        assert whole > 50
        assert (await ask(plane, "GET", "/rest/last")).body.startswith(b"/last  ")
