import asyncio

import pytest

from gateway.handlers.proxy.tests.upstream.support import LARGE, OK, is_problem, plane_before
from gateway.tests.http_plane import (
    NOWHERE,
    Driver,
    ask,
    caller_of,
    eventually,
    say,
    upstream_that,
)  # fmt: skip


async def test_an_upstream_that_is_not_there_is_a_502(tmp_path, is_direct):
    async with plane_before(tmp_path, f"http://127.0.0.1:{NOWHERE}", is_direct=is_direct) as plane:
        assert is_problem(await ask(plane, "GET", "/r"), 502, "upstream-unavailable")
        assert is_problem(await ask(plane, "POST", "/r", body=b"abc"), 502, "upstream-unavailable")
        assert plane.outcomes == [("upstream-unreachable", "handshake_upstream")] * 2


async def test_a_name_that_is_none_is_a_502(tmp_path):
    async with plane_before(tmp_path, "http://nowhere.invalid") as plane:
        assert is_problem(await ask(plane, "GET", "/r"), 502, "upstream-unavailable")


@pytest.mark.parametrize("body", [b"", b"abc"])
async def test_an_upstream_that_hangs_is_a_504(tmp_path, is_direct, body):
    async def hang(requested, reader, writer):
        await reader.read()
        return True

    async with (
        upstream_that(hang) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct, upstream_first_byte_timeout_s=0.05) as plane,
    ):
        assert is_problem(await ask(plane, "POST" if body else "GET", "/r", body=body), 504, "upstream-timeout")
        assert plane.outcomes == [("upstream-timeout", "handshake_upstream")]
        await eventually(lambda: not behind.open)


async def test_an_upstream_that_reads_nothing_is_a_504(tmp_path, is_direct):
    async def hang(requested, reader, writer):
        reader._transport.pause_reading()
        await asyncio.sleep(3600)

    settings = {"upstream_first_byte_timeout_s": 0.05, "body_max_bytes": LARGE}
    async with (
        upstream_that(hang, reads_bodies=False) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct, **settings) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("POST", "/r", f"content-length: {LARGE}"))
        caller.send(bytes(LARGE))
        assert is_problem(await caller.answer(), 504, "upstream-timeout")


MALFORMED = {
    "nothing": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\ncontent-",
    "both lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
    "both lengths, the other way": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n",
    "two lengths in one": b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok",
    "signed length": b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
    "encoding hidden": b"HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "encoding not last": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "encoding with a vertical tab": b"HTTP/1.1 200 OK\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "space before the colon": b"HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nok",
    "folded header": b"HTTP/1.1 200 OK\r\nx: 1\r\n y: 2\r\ncontent-length: 2\r\n\r\nok",
    "folded length": b"HTTP/1.1 200 OK\r\ncontent-length:\r\n 2\r\n\r\nok",
    "bare LF": b"HTTP/1.1 200 OK\r\nx: 1\ny: 2\r\ncontent-length: 2\r\n\r\nok",
    "bare CR": b"HTTP/1.1 200 OK\r\nx: 1\ry: 2\r\ncontent-length: 2\r\n\r\nok",
    "NUL": b"HTTP/1.1 200 OK\r\nx: \x00\r\ncontent-length: 2\r\n\r\nok",
    "head without end": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000,
    "an upgrade that nobody asked for": b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
async def test_an_answer_that_is_none_is_a_502(tmp_path, raw, driver):
    async def answer(requested, reader, writer):
        writer.write(raw)
        await writer.drain()
        return True

    async with upstream_that(answer) as behind, plane_before(tmp_path, behind.url) as plane:
        assert is_problem(await ask(plane, "GET", "/r"), 502, "upstream-unavailable")
        # The carrier's connection was idle: one that closes without a byte may have been closed before the request.
        assert len(behind.requests) == (2 if driver is Driver.CARRIER and not raw else 1)
        assert plane.outcomes == [("upstream-lost", "handshake_upstream")]


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nxyz\r\n",
    ],
)
async def test_half_an_answer_is_never_taken_for_a_whole_one(tmp_path, is_direct, raw):
    async def answer(requested, reader, writer):
        writer.write(raw)
        await writer.drain()
        return True

    async with (
        upstream_that(answer) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("GET", "/r"))
        with pytest.raises(asyncio.IncompleteReadError):
            await caller.answer()
        assert plane.outcomes[0][1] in ("handshake_upstream", "upstream_lost")


async def test_an_answer_that_stops_is_cut_off(tmp_path, is_direct):
    async def answer(requested, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        await reader.read()
        return True

    async with (
        upstream_that(answer) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct, upstream_idle_timeout_s=0.05) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("GET", "/r"))
        with pytest.raises(asyncio.IncompleteReadError):
            await caller.answer()
        await eventually(lambda: not behind.open)


@pytest.mark.parametrize(
    ("raw", "status", "body"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\netag: x\r\n\r\n", 304, b""),
        (b"HTTP/1.1 299 Odd\r\ncontent-length: 2\r\n\r\nok", 299, b"ok"),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nok", 404, b"ok"),
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nretry-after: 9\r\n\r\n", 503, b""),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\nx-t: 1\r\n\r\n",
            200,
            b"ok",
        ),
        (b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok", 200, b"ok"),
    ],
)
async def test_every_kind_of_answer_comes_back(tmp_path, is_direct, raw, status, body):
    async with upstream_that(say(raw)) as behind, plane_before(tmp_path, behind.url, is_direct=is_direct) as plane:
        async with caller_of(plane) as caller:
            for _ in range(3):
                answer = await caller.ask("GET", "/r")
                assert (answer.status, answer.body) == (status, body)
        assert behind.connections == 1


@pytest.mark.parametrize("raw", [b"HTTP/1.1 200 OK\r\n\r\nabc", b"HTTP/1.0 200 OK\r\n\r\nabc"])
async def test_an_answer_may_end_with_its_connection(tmp_path, is_direct, raw):
    async def answer(requested, reader, writer):
        writer.write(raw)
        return True

    async with upstream_that(answer) as behind, plane_before(tmp_path, behind.url, is_direct=is_direct) as plane:
        for _ in range(2):
            assert (await ask(plane, "GET", "/r")).body == b"abc"
        assert behind.connections == 2
