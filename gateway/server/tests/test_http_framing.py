"""What the server makes of heads, bodies and connections that are not as they should be."""

import asyncio
import json

import pytest

from gateway.server.tests.heads import CHUNKED, GET, HOST, POST
from gateway.tests.drivers import BY_THE_PATH
from gateway.tests.http_plane import caller_of, echo, eventually, large, route, running, say, upstream_that


@pytest.fixture
async def strict(behind, tmp_path):
    """Serve with deadlines that are over at once."""
    settings = {"head_timeout_s": 0.05, "body_rate_grace_s": 0.05, "keep_alive_s": 0.05, "send_timeout_s": 0.05}
    async with running(tmp_path, [route("echo", "/echo", behind.url + "/echo")], **settings) as plane:
        yield plane


@pytest.mark.parametrize("size", [1, 7])
async def test_a_request_may_come_in_small_pieces(plane, size):
    async with caller_of(plane) as caller:
        request = (
            caller.head("POST", "/echo", "transfer-encoding: chunked") + b"3;x=y\r\na\nb\r\n2\r\n\r\n\r\n0\r\n\r\n"
        )
        for at in range(0, len(request), size):
            caller.send(request[at : at + size])
            await asyncio.sleep(0)
        assert (await caller.answer()).body == b"/echo a\nb\r\n"


async def test_a_body_may_hold_what_a_head_may_not(plane):
    async with caller_of(plane) as caller:
        assert (await caller.ask("POST", "/echo", body=b"a\nb : c\r\n\r\n")).body == b"/echo a\nb : c\r\n\r\n"


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["x: " + "a" * 40_000], 431),
        ([f"x-{number}: a" for number in range(120)], 431),
        (["x: " + "a" * 30_000], 200),
        ([f"x-{number}: a" for number in range(90)], 200),
    ],
)
async def test_a_head_has_bounds(plane, lines, status):
    async with caller_of(plane) as caller:
        assert (await caller.ask("GET", "/echo", *lines)).status == status


@pytest.mark.parametrize(("length", "status"), [(9_000, 414), (8_000, 200)])
async def test_a_path_has_a_bound(plane, length, status):
    async with caller_of(plane) as caller:
        assert (await caller.ask("GET", "/echo?q=" + "a" * length)).status == status


UPGRADE = (
    "connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip


@pytest.mark.parametrize(
    ("path", "line", "status"),
    [
        ("/ws", "cookie: a=" + "a" * 30_000, 200),
        ("/ws?q=" + "a" * 8_186, "x: a", 200),
        ("/ws", "sec-websocket-protocol: bearer, " + "a" * 10_240, 400),
        ("/ws", "authorization: Bearer " + "a" * 10_240, 400),
    ],
)
async def test_the_head_of_a_handshake_may_be_as_long_as_any(behind, tmp_path, path, line, status):
    """websockets reads lines of 8 KiB, and the client would wait for ever. The upstream answers as to any request."""
    routes = [route("ws", "/ws", behind.url.replace("http", "ws", 1) + "/echo", protocol="websocket")]
    async with running(tmp_path, routes) as plane, caller_of(plane) as caller:
        assert (await caller.ask("GET", path, *UPGRADE, line)).status == status


@pytest.mark.parametrize(
    ("lines", "status", "reason"),
    [
        (["sec-websocket-version: 13"], 400, "invalid-request"),
        (["sec-websocket-version: 13", "sec-websocket-key: abc"], 400, "invalid-request"),
        (["sec-websocket-version: 13", "sec-websocket-key: " + "a" * 20_000], 400, "invalid-request"),
        ([UPGRADE[3], "sec-websocket-version: 8"], 426, "upgrade-required"),
        ([UPGRADE[3]], 426, "upgrade-required"),
    ],
)
async def test_a_handshake_that_is_none_is_told_what_is_wrong_with_it(plane, lines, status, reason):
    async with caller_of(plane) as caller:
        answer = await caller.ask("GET", "/echo", *UPGRADE[:2], *lines)
        assert (answer.status, answer.header("content-type")) == (status, "application/problem+json")
        assert answer.header("sec-websocket-version") == ("13" if status == 426 else None)
        reply = json.loads(answer.body)
        assert reply["reason"] == reason
        assert len(reply["detail"]) <= 200


@pytest.mark.parametrize("begun", [GET + "x: ", POST + "transfer-encoding: chunked\r\n\r\n0\r\nx: ", CHUNKED + "3;"])
async def test_what_never_ends_is_refused_before_it_is_held(plane, begun):
    """A header, a trailer and a chunk's extension that go on and on."""
    async with caller_of(plane) as caller:
        key = f"x-api-key: {plane.key.text}\r\n"
        caller.send(begun.replace(HOST, HOST + key).encode())
        for _ in range(50):
            caller.send(b"a" * 10_000)
            await asyncio.sleep(0)
        assert (await caller.answer()).status == 431
        assert await caller.is_closed()


async def test_a_trailer_is_no_header(plane, behind):
    async with caller_of(plane) as caller:
        caller.send(
            caller.head("POST", "/echo", "transfer-encoding: chunked")
            + b"3\r\nabc\r\n0\r\nx-consumer-name: boss\r\nx-api-key: other\r\nx-late: 1\r\n\r\n"
        )
        assert (await caller.answer()).body == b"/echo abc"
    (requested,) = behind.requests
    assert requested.header("x-consumer-name") == ["acme"]
    assert not requested.header("x-late")


async def test_the_address_is_in_the_path_alone(plane, behind):
    """Absolute form and Host choose no upstream."""
    async with caller_of(plane) as caller:
        assert (await caller.ask("GET", "http://evil.test:1/echo?a=1")).body == b"/echo?a=1 "
        caller.send(caller.head("GET", "/echo").replace(b"gateway.test", b"evil.test:1"))
        assert (await caller.answer()).body == b"/echo "
    assert {requested.header("host")[0] for requested in behind.requests} == {behind.url.removeprefix("http://")}


@BY_THE_PATH
@pytest.mark.parametrize(
    "broken", [b"a\r\nset-cookie: x=1", b"a\nset-cookie: x=1", b"a\rset-cookie: x=1", b"a\r\n\r\nbody"]
)
async def test_a_line_break_is_never_written_into_a_head(plane, behind, monkeypatch, broken):
    """Whatever made a header's value: the answer is not sent, rather than one that says something else."""
    monkeypatch.setattr(plane.policies, "outbound", lambda call, status, headers: [*headers, (b"x-made", broken)])
    async with caller_of(plane) as caller:
        caller.send(caller.head("GET", "/echo"))
        reply = await caller.reader.read()
    assert b"set-cookie" not in reply
    assert b"body" not in reply.partition(b"\r\n\r\n")[0]
    assert b"x-made" not in reply


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_upgrade_to_http_2_is_ignored(plane, behind, method):
    lines = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABk")
    async with caller_of(plane) as caller:
        body = b"abc" if method == "POST" else b""
        assert (await caller.ask(method, "/echo", *lines, body=body)).body == b"/echo " + body
        assert (await caller.ask("GET", "/echo?next")).body == b"/echo?next "
    assert not behind.requests[0].header("upgrade")


@pytest.mark.parametrize("lines", [(), ("connection: upgrade", "upgrade: h2c")], ids=["plain", "upgrade ignored"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_answer_without_length_is_read_by_old_clients_too(tmp_path, version, lines):
    chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    async with (
        upstream_that(say(chunked)) as behind,
        running(tmp_path, [route("r", "/r", behind.url)]) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("GET", "/r", *lines).replace(b"HTTP/1.1", f"HTTP/{version}".encode()))
        answer = await caller.answer()
        assert answer.body == b"abc"
        assert (answer.header("transfer-encoding") is None) is (version == "1.0")


@pytest.mark.parametrize(
    "sent", ["", "GET", GET, GET + "x: 1\r\n", POST + "content-length: 10\r\n\r\nab", CHUNKED + "5\r\nab", CHUNKED]
)
async def test_half_a_request_gets_408(strict, sent):
    async with caller_of(strict) as caller:
        caller.send(sent.replace(HOST, f"{HOST}x-api-key: {strict.key.text}\r\n").encode())
        answer = await caller.answer()
        assert (answer.status, json.loads(answer.body)["reason"]) == (408, "idle")
        assert await caller.is_closed()


async def test_who_stands_still_holds_up_no_stop(tmp_path, behind):
    """Its deadline counts while the server stops, too."""
    routes = [route("echo", "/echo", behind.url + "/echo")]
    async with asyncio.timeout(20):  # of the 30 that calls under way are given
        async with (
            running(tmp_path, routes, is_drained=True, body_rate_grace_s=1.0) as plane,
            caller_of(plane) as caller,
        ):
            caller.send(caller.head("POST", "/echo", "content-length: 100") + b"abc")
            await eventually(lambda: plane.server.server_state.connections)
            plane.server.should_exit = True
            assert (await caller.answer()).status == 408


async def test_one_byte_at_a_time_does_not_move_the_deadline(strict):
    async with caller_of(strict) as caller:
        caller.send(GET.encode())
        answer = asyncio.create_task(caller.answer())
        while not answer.done():
            caller.send(b"a")
            await asyncio.sleep(0.02)
        assert (await answer).status == 408


async def test_a_connection_that_asks_nothing_more_is_closed(strict):
    async with caller_of(strict) as caller:
        assert (await caller.ask("GET", "/echo")).status == 200
        assert await caller.is_closed()


async def test_who_takes_nothing_of_its_answer_is_hung_up_on(tmp_path):
    async with (
        upstream_that(large) as behind,
        running(tmp_path, [route("r", "/r", behind.url)], send_timeout_s=0.05) as plane,
        caller_of(plane) as caller,
    ):
        caller.writer.transport.pause_reading()
        caller.send(caller.head("GET", "/r"))
        await eventually(lambda: plane.outcomes)
        assert plane.outcomes == [("abandoned", "client_gone")]
        await eventually(lambda: not behind.open)


async def test_pipelined_requests_are_answered_in_order_and_each_once(plane):
    async with caller_of(plane) as caller:
        caller.send(b"".join(caller.head("GET", f"/echo?{number}") for number in range(20)))
        for number in range(20):
            assert (await caller.answer()).body == f"/echo?{number} ".encode()


async def test_a_malformed_request_waits_for_those_before_it(tmp_path):
    may_answer = asyncio.Event()

    async def slow(requested, reader, writer):
        await may_answer.wait()
        await echo(requested, reader, writer)

    async with (
        upstream_that(slow) as behind,
        running(tmp_path, [route("r", "/r", behind.url)]) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("GET", "/r") + b"GET /r HTTP/1.1\r\nx y\r\n\r\n" + caller.head("GET", "/r"))
        await eventually(lambda: behind.requests)
        may_answer.set()
        assert [(await caller.answer()).status for _ in range(2)] == [200, 400]
        assert await caller.is_closed()
        assert len(behind.requests) == 1


async def test_an_upload_that_is_refused_reads_why(tmp_path):
    async with (
        upstream_that(echo) as behind,
        running(tmp_path, [route("r", "/r", behind.url)], body_max_bytes=100_000) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("POST", "/r", "content-length: 50000000"))
        for _ in range(50):
            caller.send(bytes(1_000_000))
            await asyncio.sleep(0)
        answer = await caller.answer()
        assert (answer.status, json.loads(answer.body)["reason"]) == (413, "too-large")
        assert await caller.is_closed()


async def test_expect_100_continue_is_answered_when_the_body_is_wanted(plane):
    async with caller_of(plane) as caller:
        caller.send(caller.head("POST", "/echo", "content-length: 3", "expect: 100-continue"))
        assert (await caller.answer_head()).status == 100
        caller.send(b"abc")
        assert (await caller.answer()).body == b"/echo abc"
        # Who is refused is not asked for its body.
        caller.send(caller.head("POST", "/echo", "content-length: 3", "expect: 100-continue", key=None))
        assert (await caller.answer()).status == 401
        assert await caller.is_closed()
