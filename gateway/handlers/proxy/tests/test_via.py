"""``Via`` of requests and responses (RFC 9110 7.6.3), and ``Upgrade`` of a ``426`` (RFC 9110 15.5.22)."""

import pytest

from gateway.handlers.proxy.tests.upstream.support import OK, is_problem, plane_before
from gateway.handlers.proxy.tests.websocket.support import HANDSHAKE, proxied, socket_of
from gateway.tests.http_plane import ask, caller_of, say, upstream_that


async def test_both_ways_name_the_gateway(tmp_path):
    async with (
        upstream_that(say(OK.replace(b"\r\n", b"\r\nvia: 1.0 inner\r\n", 1))) as behind,
        plane_before(tmp_path, behind.url) as plane,
    ):
        own = plane.upstreams.via.decode()
        response = await ask(plane, "GET", "/r", "Via: 1.1 outer", "Via: 1.0 fred")
        assert behind.requests[0].header("via") == ["1.1 outer", "1.0 fred", own]
        assert [value for name, value in response.headers if name == "via"] == ["1.0 inner", own]
        refused = await ask(plane, "GET", "/nowhere")
        assert refused.header("via") is None


async def test_a_loop_is_refused(tmp_path):
    """An upstream that sends its calls back would otherwise call itself until something gives."""
    async with upstream_that(say(OK)) as behind, plane_before(tmp_path, behind.url) as plane:
        again = await ask(plane, "GET", "/r", f"Via: 1.1 nginx, {plane.upstreams.via.decode()}")
        assert is_problem(again, 508, "loop-detected")
        assert not behind.requests
        assert plane.outcomes == [("loop-detected", "handshake_upstream")]


async def test_a_socket_names_the_gateway_and_is_refused_in_a_loop(tmp_path):
    async with proxied(tmp_path) as plane:
        own = plane.upstreams.via.decode()
        async with socket_of(plane, headers=[("Via", "1.1 outer")]) as socket:
            assert socket.response.headers["via"] == own
        assert plane.behind.requests[0].headers.get_all("via") == ["1.1 outer", own]
        async with caller_of(plane) as caller:
            caller.send(caller.head("GET", "/socket", *HANDSHAKE, f"Via: {own}"))
            assert is_problem(await caller.answer(), 508, "loop-detected")


@pytest.mark.parametrize("connection", ["", "connection: upgrade\r\n", "connection: Upgrade, close\r\n"])
async def test_a_426_says_what_to_upgrade_to(tmp_path, connection):
    head = f"HTTP/1.1 426 Upgrade Required\r\nupgrade: TLS/1.0, HTTP/2.0\r\n{connection}content-length: 0\r\n\r\n"
    async with (
        upstream_that(say(head)) as behind,
        plane_before(tmp_path, behind.url) as plane,
        caller_of(plane) as caller,
    ):
        for _ in range(2):
            answer = await caller.ask("GET", "/r")
            assert (answer.status, answer.header("upgrade")) == (426, "TLS/1.0, HTTP/2.0")
            assert answer.header("connection") == "upgrade"


async def test_an_upgrade_that_other_answers_offer_is_not_the_gateways(tmp_path):
    offer = OK.replace(b"\r\n", b"\r\nupgrade: h2c\r\nconnection: upgrade\r\n", 1)
    async with upstream_that(say(offer)) as behind, plane_before(tmp_path, behind.url) as plane:
        response = await ask(plane, "GET", "/r")
        assert (response.header("upgrade"), response.header("connection")) == (None, None)


async def test_the_gateways_own_426_names_the_upgrade_as_of_the_connection(tmp_path):
    async with proxied(tmp_path) as plane:
        answer = await ask(plane, "GET", "/socket")
        assert (answer.status, answer.header("upgrade"), answer.header("connection")) == (426, "websocket", "upgrade")
