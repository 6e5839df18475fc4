import pytest

from gateway.handlers.proxy.tests.upstream.support import OK, plane_before
from gateway.tests.http_plane import ask, caller_of, route, running, say, upstream_that

CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
TRAILERS = (
    "Set-Cookie: a=1", "Location: http://evil.test/", "Content-Type: text/html", "Content-Length: 2",
    "Content-Length: x", "Transfer-Encoding: gzip", "Connection: close", "Upgrade: h2c", "Cache-Control: public",
    "Access-Control-Allow-Origin: *", "X-Checksum: 1", "X-Folded: a\r\n b", "no field", ": none",
)  # fmt: skip


async def in_segments(writer, data, size):
    for at in range(0, len(data), size):
        writer.write(data[at : at + size])
        await writer.drain()


@pytest.mark.parametrize("size", [1 << 16, 7, 1], ids=["one-segment", "segments", "bytes"])
@pytest.mark.parametrize("trailer", TRAILERS)
async def test_a_trailer_is_no_header(tmp_path, is_direct, trailer, size):
    """A trailer that arrives with the head must not become part of it (boostorg/beast/pull/3094)."""

    async def answer(requested, reader, writer):
        await in_segments(writer, CHUNKED + trailer.encode() + b"\r\n\r\n", size)

    async with upstream_that(answer) as behind, plane_before(tmp_path, behind.url, is_direct=is_direct) as plane:
        response = await ask(plane, "GET", "/r")
        assert (response.status, response.body) == (200, b"hello")
        assert response.header("content-type") == "text/plain"
        names = {name for name, _ in response.headers}
        assert not names & {"set-cookie", "location", "content-length", "x-checksum", "x-folded", "upgrade", "trailer"}
        assert response.header("cache-control") == "private"


async def trailers_of(caller):
    """Return the trailers of an answer in one chunk."""
    assert await caller.reader.readuntil(b"\r\n0\r\n") == b"5\r\nhello\r\n0\r\n"
    lines = []
    while line := (await caller.reader.readuntil(b"\r\n"))[:-2]:
        lines.append(line.decode())
    return lines


@pytest.mark.parametrize("protocol", ["http", "sse"])
@pytest.mark.parametrize(
    ("lines", "passed"),
    [
        (["TE: trailers", "Connection: TE"], ["x-checksum: 1", "grpc-status: 0"]),
        (["TE: gzip;q=0.5, Trailers"], ["x-checksum: 1", "grpc-status: 0"]),
        (["TE: gzip"], []),
        ([], []),
    ],
)
@pytest.mark.parametrize("last", [b"Date: 1", b"Content-Length: 2"])
async def test_trailers_are_passed_to_who_takes_them(tmp_path, lines, passed, protocol, last):
    """RFC 9110 6.5.1 and 10.1.4; fields that must not be trailers are dropped (boostorg/beast/pull/3094)."""
    head = CHUNKED.replace(b"\r\n", b"\r\ntrailer: X-Checksum\r\n", 1)
    trailers = b"X-Checksum: 1\r\nSet-Cookie: a=1\r\nContent-Type: text/html\r\nGrpc-Status: 0\r\n%b\r\n\r\n" % last
    async with (
        upstream_that(say(head + trailers)) as behind,
        running(tmp_path, [route("r", "/r", f"{behind.url}/r", protocol=protocol)]) as plane,
        caller_of(plane) as caller,
    ):
        for _ in range(2):
            caller.send(caller.head("GET", "/r", *lines))
            answer = await caller.answer_head()
            assert answer.header("trailer") == ("X-Checksum" if passed else None)
            assert await trailers_of(caller) == passed
        assert behind.connections == 1
        assert behind.requests[0].header("te") == (["trailers"] if passed else [])
        assert behind.requests[0].header("connection") == (["te"] if passed else [])


async def test_a_removed_header_does_not_return_as_a_trailer(tmp_path):
    policies = [
        {"type": "remove-headers", "options": {"headers": ["X-Checksum"], "on": "response"}, "mode": "enforce"},
        {"type": "set-headers", "options": {"headers": {"X-Own": "1"}, "on": "response"}, "mode": "enforce"},
    ]
    async with (
        upstream_that(say(CHUNKED + b"X-Checksum: 1\r\nX-Own: 2\r\nX-Kept: 3\r\n\r\n")) as behind,
        running(tmp_path, [route("r", "/r", behind.url, policies=policies)]) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("GET", "/r", "TE: trailers"))
        assert (await caller.answer_head()).header("x-own") == "1"
        assert await trailers_of(caller) == ["x-kept: 3"]


async def test_trailers_without_end_are_bounded(tmp_path, is_direct):
    """The body was complete before them (RFC 9112 8)."""

    async def endless(requested, reader, writer):
        writer.write(CHUNKED)
        while True:
            writer.write(b"x-more: " + b"a" * 1000 + b"\r\n")
            await writer.drain()

    async with upstream_that(endless) as behind, plane_before(tmp_path, behind.url, is_direct=is_direct) as plane:
        assert (await ask(plane, "GET", "/r")).body == b"hello"


async def test_a_connection_is_reused_after_trailers(tmp_path):
    async def answer(requested, reader, writer):
        writer.write(OK if requested.target == "/2" else CHUNKED + b"X-Checksum: 1\r\n\r\n")

    async with upstream_that(answer) as behind, plane_before(tmp_path, behind.url) as plane:
        assert (await ask(plane, "GET", "/rest/1")).body == b"hello"
        second = await ask(plane, "GET", "/rest/2")
        assert (second.body, second.header("x-checksum"), behind.connections) == (b"ok", None, 1)


async def test_a_length_beside_chunks_is_malformed_after_a_chunked_answer_too(tmp_path):
    async def answer(requested, reader, writer):
        head = b"content-length: 5\r\ntransfer-encoding" if requested.target == "/2" else b"transfer-encoding"
        writer.write(CHUNKED.replace(b"transfer-encoding", head) + b"content-length: 2\r\n\r\n")

    async with upstream_that(answer) as behind, plane_before(tmp_path, behind.url) as plane:
        for path, status in (("/rest/1", 200), ("/rest/1", 200), ("/rest/2", 502)):
            assert (await ask(plane, "GET", path)).status == status
        assert behind.connections == 1


async def test_trailers_of_a_request_are_dropped(tmp_path):
    async def answer(requested, reader, writer):
        assert await reader.readuntil(b"0\r\n\r\n") == b"3\r\nabc\r\n0\r\n\r\n"
        writer.write(OK)

    async with (
        upstream_that(answer, reads_bodies=False) as behind,
        plane_before(tmp_path, behind.url) as plane,
        caller_of(plane) as caller,
    ):
        head = caller.head("POST", "/r", "transfer-encoding: chunked", "trailer: x-consumer-name")
        caller.send(head + b"3\r\nabc\r\n0\r\nx-consumer-name: boss\r\n\r\n")
        assert (await caller.answer()).body == b"ok"
        (request,) = behind.requests
        assert (request.header("x-consumer-name"), request.header("trailer")) == (["acme"], [])
