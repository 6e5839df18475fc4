"""Reason phrases of upstreams (RFC 9112 4): tools show them, though nothing may depend on them."""

import pytest

from gateway.handlers.proxy.tests.upstream.support import plane_before
from gateway.tests.http_plane import caller_of, say, upstream_that

EMPTY = "content-length: 0\r\n\r\n"


async def status_line(plane):
    async with caller_of(plane) as caller:
        caller.send(caller.head("GET", "/r"))
        return (await caller.reader.readuntil(b"\r\n")).removesuffix(b"\r\n")


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        ("200 Fine by me", "200 Fine by me"),
        ("404 NOT FOUND", "404 NOT FOUND"),
        ("599 Out of t\xe9a", "599 Out of t\xe9a"),
        ("422 a\tb", "422 a\tb"),
        ("200 OK", "200 OK"),
        ("200 ", "200 OK"),
        ("200", "200 OK"),
        ("503 a\x01b", "503 Service Unavailable"),
        ("299 " + "a" * 201, "299 "),
    ],
)
async def test_the_phrase_of_an_upstream_passes(tmp_path, sent, passed):
    async with (
        upstream_that(say(f"HTTP/1.1 {sent}\r\n{EMPTY}")) as behind,
        plane_before(tmp_path, behind.url) as plane,
    ):
        assert await status_line(plane) == f"HTTP/1.1 {passed}".encode("latin-1")


async def test_a_phrase_is_that_of_its_own_response(tmp_path):
    lines = iter(("404 Gone fishing", "404 Not Found"))

    async def answer(requested, reader, writer):
        writer.write(f"HTTP/1.1 103 Hints ahead\r\n\r\nHTTP/1.1 {next(lines)}\r\n{EMPTY}".encode())

    async with upstream_that(answer) as behind, plane_before(tmp_path, behind.url) as plane:
        async with caller_of(plane) as caller:
            for passed in (b"404 Gone fishing", b"404 Not Found"):
                caller.send(caller.head("GET", "/r"))
                assert await caller.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 103 Early Hints\r\n\r\n"
                assert await caller.reader.readuntil(b"\r\n") == b"HTTP/1.1 %b\r\n" % passed
                await caller.reader.readuntil(b"\r\n\r\n")
        assert behind.connections == 1


async def test_a_phrase_that_arrives_in_pieces_is_whole(tmp_path):
    async def answer(requested, reader, writer):
        for piece in (b"HTTP/1.1 200 All", b" is", b" well\r\n" + EMPTY.encode()):
            writer.write(piece)
            await writer.drain()

    async with upstream_that(answer) as behind, plane_before(tmp_path, behind.url) as plane:
        assert await status_line(plane) == b"HTTP/1.1 200 All is well"


async def test_other_servers_send_their_own_phrase(tmp_path):
    async with (
        upstream_that(say(f"HTTP/1.1 200 Fine\r\n{EMPTY}")) as behind,
        plane_before(tmp_path, behind.url, is_direct=False) as plane,
    ):
        assert await status_line(plane) == b"HTTP/1.1 200 OK"
