"""Trailers under other servers: sent where the server announces ASGI's extension for them, otherwise dropped."""

import asyncio

import pytest

from gateway.asgi import serve
from gateway.handlers.proxy.tests.upstream.support import OK, plane_before
from gateway.tests.http_plane import say, upstream_that

CHUNKED = "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
TRAILED = CHUNKED + "x-sum: 1\r\nset-cookie: a=1\r\n\r\n"
EXTENSION = {"http.response.trailers": {}}


async def messages(plane, *headers, method="GET", extensions=EXTENSION):
    """Return what the application sends to its server for one request."""
    sent = []

    async def receive():
        await asyncio.Event().wait()  # there is no body, and the client stays

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": "/r", "raw_path": b"/r", "query_string": b"",
        "headers": [(b"host", b"gateway.test"), (b"x-api-key", plane.key.text.encode()), *headers],
        "client": ("127.0.0.1", 1), "extensions": extensions,
    }  # fmt: skip
    await serve(plane, scope, receive, send)
    return sent


def names(message):
    return [name for name, _ in message["headers"]]


@pytest.mark.parametrize(("text", "trailers"), [(TRAILED, [(b"x-sum", b"1")]), (CHUNKED + "\r\n", [])])
async def test_trailers_follow_the_body_where_server_and_caller_take_them(tmp_path, text, trailers):
    async with upstream_that(say(text)) as behind, plane_before(tmp_path, behind.url) as plane:
        start, *parts, last = await messages(plane, (b"te", b"trailers"))
    assert start["trailers"] is True
    assert b"trailer" in names(start)
    assert (b"".join(part["body"] for part in parts), parts[-1]["more_body"]) == (b"hello", False)
    assert last == {"type": "http.response.trailers", "headers": trailers, "more_trailers": False}


@pytest.mark.parametrize(
    ("text", "headers", "more"),
    [
        (TRAILED, [(b"te", b"trailers")], {"extensions": {}}),
        (TRAILED, [(b"te", b"trailers")], {"extensions": None}),
        (TRAILED, [], {}),
        (TRAILED, [(b"te", b"gzip")], {}),
        (OK.decode(), [(b"te", b"trailers")], {}),
        (CHUNKED.partition("5\r\n")[0], [(b"te", b"trailers")], {"method": "HEAD"}),
        ("HTTP/1.1 204 No Content\r\n\r\n", [(b"te", b"trailers")], {}),
    ],
)
async def test_otherwise_nothing_announces_or_follows(tmp_path, text, headers, more):
    async with upstream_that(say(text)) as behind, plane_before(tmp_path, behind.url) as plane:
        start, *parts = await messages(plane, *headers, **more)
    assert "trailers" not in start
    assert b"trailer" not in names(start)
    assert {part["type"] for part in parts} == {"http.response.body"}
    assert parts[-1]["more_body"] is False
