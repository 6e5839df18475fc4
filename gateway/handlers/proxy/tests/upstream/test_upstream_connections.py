import asyncio
import ssl

import pytest

from gateway.handlers.proxy.tests.upstream.support import LARGE, OK, certificate_of, is_problem, plane_before
from gateway.tests.drivers import BY_THE_PATH
from gateway.tests.http_plane import (
    NOWHERE,
    ask,
    caller_of,
    echo,
    eventually,
    read_body,
    route,
    running,
    say,
    upstream_that,
)  # fmt: skip
from gateway.upstream.origin import Origin


async def test_the_answer_to_a_head_has_no_body(tmp_path, is_direct):
    async def answer(requested, reader, writer):
        await say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" + ("" if requested.method == "HEAD" else "ok"))(
            requested, reader, writer
        )

    async with (
        upstream_that(answer) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct) as plane,
        caller_of(plane) as caller,
    ):
        assert (await caller.ask("HEAD", "/r")).header("content-length") == "2"
        assert (await caller.ask("GET", "/r")).body == b"ok"
        assert behind.connections == 1


async def test_connections_are_kept_and_shared(tmp_path):
    async with upstream_that(echo) as behind, plane_before(tmp_path, behind.url) as plane:
        for number in range(10):
            assert (await ask(plane, "POST", "/r", body=b"%d" % number)).body == b"/r %d" % number
        assert behind.connections == 1


async def once(requested, reader, writer):
    """Answer, and close the connection when its second request has arrived, as a keep-alive that has just run out."""
    writer.write(OK)
    await writer.drain()
    await reader.readuntil(b"\r\n\r\n")
    return True


@pytest.mark.parametrize(
    ("method", "body"), [("GET", b""), ("DELETE", b""), ("PUT", b"abc"), ("QUERY", b"abc"), ("DELETE", b"abc")]
)
async def test_what_may_be_repeated_is_sent_again_where_the_upstream_closes_as_it_arrives(tmp_path, method, body):
    """RFC 9112 9.3.1: a request whose method is idempotent, if nothing of an answer has come on a used connection."""
    async with (
        upstream_that(once) as behind,
        running(tmp_path, [route("r", "/r", f"{behind.url}/r", methods=["*"])]) as plane,
    ):
        assert [(await ask(plane, method, "/r", body=body)).status for _ in range(4)] == [200] * 4
        assert [requested.body for requested in behind.requests] == [body] * 4
        assert behind.connections == 4


async def test_what_must_not_be_repeated_is_sent_once(tmp_path):
    async with upstream_that(once) as behind, plane_before(tmp_path, behind.url) as plane:
        for method, lines, body in (("POST", (), b""), ("PATCH", (), b"abc")):
            assert (await ask(plane, method, "/r", *lines, body=body)).status == 200
            assert (await ask(plane, method, "/r", *lines, body=body)).status == 502
        assert behind.connections == 2


async def test_a_body_of_which_a_part_is_still_to_come_is_sent_once(tmp_path):
    async with (
        upstream_that(once, reads_bodies=False) as behind,
        plane_before(tmp_path, behind.url) as plane,
        caller_of(plane) as caller,
    ):
        assert (await ask(plane, "GET", "/r")).status == 200
        caller.send(caller.head("PUT", "/r", "content-length: 4") + b"ab")
        assert (await caller.answer()).status == 502
        assert behind.connections == 1


async def test_what_must_not_be_repeated_avoids_a_connection_that_was_idle_for_long(tmp_path, monkeypatch):
    async with upstream_that(echo) as behind, plane_before(tmp_path, behind.url) as plane:
        for connections in (1, 1):
            assert (await ask(plane, "POST", "/r")).status == 200
            assert behind.connections == connections
        monkeypatch.setattr("gateway.upstream.client.FRESH_S", -1.0)
        assert (await ask(plane, "GET", "/r")).status == 200
        assert behind.connections == 1
        assert (await ask(plane, "POST", "/r")).status == 200
        assert behind.connections == 2


@BY_THE_PATH
async def test_a_new_connection_that_is_closed_is_not_asked_again(tmp_path):
    async def close(requested, reader, writer):
        return True

    async with upstream_that(close) as behind, plane_before(tmp_path, behind.url) as plane:
        assert (await ask(plane, "GET", "/r")).status == 502
        assert len(behind.requests) == 1


NOT_WHOLE = {
    "a second answer": OK + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
    "more than its length": OK + b"poison",
    "a body after a HEAD": OK,
}


@pytest.mark.parametrize("raw", NOT_WHOLE.values(), ids=NOT_WHOLE)
async def test_what_comes_after_an_answer_reaches_nobody(tmp_path, is_direct, raw):
    method = "HEAD" if raw == OK else "GET"
    async with (
        upstream_that(say(raw)) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct) as plane,
        caller_of(plane) as caller,
    ):
        for number in range(1, 4):
            answer = await caller.ask(method, "/r")
            assert (answer.status, answer.body) == (200, b"" if method == "HEAD" else b"ok")
            assert behind.connections == number


@pytest.mark.parametrize("closes", [True, False])
async def test_an_upstream_may_answer_before_it_has_read_all(tmp_path, is_direct, closes):
    async def early(requested, reader, writer):
        if requested.method == "GET":
            return await echo(requested, reader, writer)
        await reader.readexactly(1000)
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await writer.drain()
        return closes

    async with (
        upstream_that(early, reads_bodies=False) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct, body_max_bytes=LARGE) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("POST", "/r", f"content-length: {LARGE}") + bytes(1000))
        await eventually(lambda: behind.requests)
        caller.send(bytes(LARGE - 1000))
        answer = await caller.answer()
        assert (answer.status, answer.body) == (413, b"no")
        # A connection that still waits for the rest of a body must not get the next request as that rest.
        assert (await ask(plane, "GET", "/r")).body == b"/r "
        assert behind.connections == 2


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "0xa9fea9fe", "2852039166", "[fe80::1]", "[::ffff:169.254.169.254]"]
)
async def test_link_local_addresses_are_no_upstreams(tmp_path, host):
    """However they are spelt: looked at is the address that would be used."""
    async with plane_before(tmp_path, f"http://{host}:{NOWHERE}") as plane:
        assert await plane.upstreams.addresses(Origin.of(f"http://{host}")) == []
        assert is_problem(await ask(plane, "GET", "/r"), 502, "upstream-unavailable")


async def test_an_upstream_has_to_prove_its_name(tmp_path):
    """Over TLS: a certificate of another authority is refused before anything is sent."""
    authority, pem = certificate_of("127.0.0.1", tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    requested = []

    async def connected(reader, writer):
        requested.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with plane_before(tmp_path, url) as plane:
        assert is_problem(await ask(plane, "GET", "/r"), 502, "upstream-unavailable")
        assert not requested
        plane.upstreams.tls = ssl.create_default_context(cadata=authority)
        assert (await ask(plane, "GET", "/r")).body == b"ok"
    server.close()


async def test_idle_connections_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.upstream.client.POOL_MAX", 3)
    may_answer = asyncio.Event()

    async def together(requested, reader, writer):
        await may_answer.wait()
        writer.write(OK)

    async with upstream_that(together) as behind, plane_before(tmp_path, behind.url) as plane:
        calls = [asyncio.create_task(ask(plane, "GET", "/r")) for _ in range(8)]
        await eventually(lambda: len(behind.requests) == 8)
        may_answer.set()
        assert {(await call).status for call in calls} == {200}
        await eventually(lambda: behind.open == 3)


async def test_the_bodies_of_two_callers_are_never_mixed(tmp_path, is_direct):
    async def whole(requested, reader, writer):
        body = await read_body(reader, requested)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    async with (
        upstream_that(whole, reads_bodies=False) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct) as plane,
    ):

        async def upload(letter):
            async with caller_of(plane) as caller:
                caller.send(caller.head("POST", "/r", "content-length: 30000"))
                for _ in range(30):
                    caller.send(letter * 1000)
                    await asyncio.sleep(0)
                assert (await caller.answer()).body == letter * 30_000

        await asyncio.gather(*(upload(bytes([letter])) for letter in range(65, 91)))
