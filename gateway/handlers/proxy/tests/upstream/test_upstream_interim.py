import asyncio

import pytest

from gateway.handlers.proxy.tests.upstream.support import OK, is_problem, plane_before
from gateway.tests.http_plane import ask, caller_of, route, running, say, upstream_that

EARLY_HINTS = (
    b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\nset-cookie: sessionid=x\r\n"
    b"connection: x-hop\r\nx-hop: 1\r\ncontent-length: 5\r\n\r\n"
)


async def test_interim_answers_pass_at_once(tmp_path):
    """103 and 102 reach the caller before the answer does (caddyserver/caddy#6041, envoyproxy/envoy#35263)."""
    answered = asyncio.Event()

    async def answer(requested, reader, writer):
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\n" + EARLY_HINTS)
        await answered.wait()
        writer.write(EARLY_HINTS + OK)

    async with (
        upstream_that(answer) as behind,
        plane_before(tmp_path, behind.url) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("GET", "/r"))
        first, second = await caller.answer_head(), await caller.answer_head()
        assert (first.status, first.headers) == (102, [])
        assert (second.status, second.headers) == (103, [("link", "</style.css>; rel=preload")])
        answered.set()
        assert (await caller.answer_head()).status == 103
        last = await caller.answer()
        assert (last.status, last.body, last.header("link")) == (200, b"ok", None)


@pytest.mark.parametrize("rewrites", [True, False])
async def test_interim_answers_have_the_names_of_the_final_one(tmp_path, rewrites):
    link = "<%s/style.css>; rel=preload, </inner/app.js>; rel=preload"

    async def answer(requested, reader, writer):
        fields = f"link: {link % behind.url}\r\nlocation: /inner/1\r\n".encode()
        writer.write(b"HTTP/1.1 103 Early Hints\r\n%b\r\n" % fields + OK.replace(b"\r\n", b"\r\n" + fields, 1))

    async with upstream_that(answer) as behind:
        routes = [route("r", "/own/{rest...}", behind.url + "/inner/{rest}", rewrite_location=rewrites)]
        async with running(tmp_path, routes) as plane, caller_of(plane) as caller:
            caller.send(caller.head("GET", "/own/page"))
            interim, final = await caller.answer_head(), await caller.answer()
            assert (interim.status, final.status) == (103, 200)
            for name in ("link", "location"):
                assert interim.header(name) == final.header(name)
            assert interim.header("location") == ("/own/1" if rewrites else "/inner/1")


async def test_interim_answers_are_dropped_where_none_can_be_sent(tmp_path):
    """A client of HTTP/1.0 must not receive any (RFC 9110 15.2); ASGI has no message for them."""
    async with upstream_that(say(EARLY_HINTS + OK)) as behind:
        async with plane_before(tmp_path, behind.url) as plane, caller_of(plane) as caller:
            caller.send(caller.head("GET", "/r").replace(b"HTTP/1.1", b"HTTP/1.0"))
            assert (await caller.answer()).status == 200
        async with plane_before(tmp_path, behind.url, is_direct=False) as plane:
            assert (await ask(plane, "GET", "/r")).status == 200


async def test_an_upstream_that_is_at_work_has_more_time(tmp_path, is_direct):
    async def slowly(requested, reader, writer):
        for _ in range(6):
            writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
            await asyncio.sleep(0.5)
        writer.write(OK)

    async with (
        upstream_that(slowly) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct, upstream_first_byte_timeout_s=1) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("GET", "/r"))
        while (answer := await caller.answer_head()).status == 102:
            pass
        assert answer.status == 200


@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
async def test_interim_answers_without_end_are_bounded(tmp_path, interim):
    async def endless(requested, reader, writer):
        while True:
            writer.write(interim)
            await writer.drain()

    async with (
        upstream_that(endless) as behind,
        plane_before(tmp_path, behind.url) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("GET", "/r"))
        while (answer := await caller.answer_head()).status == 103:
            pass
        assert answer.status == 502


async def test_an_upgrade_that_was_not_requested_is_no_interim_answer(tmp_path, is_direct):
    for upgrade in (b"upgrade: h2c\r\nconnection: upgrade\r\n", b""):
        switching = b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n" % upgrade
        async with (
            upstream_that(say(switching)) as behind,
            plane_before(tmp_path, behind.url, is_direct=is_direct) as plane,
        ):
            assert is_problem(await ask(plane, "GET", "/r"), 502, "upstream-unavailable")


async def test_hints_pass_ahead_of_a_held_answer_and_without_removed_headers(tmp_path):
    policies = [
        {"type": "remove-headers", "options": {"headers": ["X-Secret"], "on": "response"}, "mode": "enforce"},
        {"type": "transform", "options": {"outbound": {"set": {"/a": 1}}}, "mode": "enforce"},
    ]
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nx-secret: 1\r\n\r\n"
    body = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    async with (
        upstream_that(say(hints + body)) as behind,
        running(tmp_path, [route("r", "/r", behind.url, policies=policies)]) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("GET", "/r"))
        assert (await caller.answer_head()).headers == [("link", "</r/a>")]
        assert (await caller.answer()).body == b'{"a":1}'


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
@pytest.mark.parametrize("length", ["0", "5", "99999"])
async def test_an_answer_without_a_body_loses_its_length(tmp_path, is_direct, status, length):
    """RFC 9110 8.6: a client must not wait for a body that does not follow."""
    head = f'HTTP/1.1 {status}\r\netag: "1"\r\ncontent-length: {length}\r\n\r\n'
    async with (
        upstream_that(say(head)) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct) as plane,
        caller_of(plane) as caller,
    ):
        for _ in range(2):
            answer = await caller.ask("GET", "/r")
            assert (f"{answer.status}", answer.header("content-length")) == (status[:3], None)
            assert (answer.header("etag"), answer.header("transfer-encoding")) == ('"1"', None)
