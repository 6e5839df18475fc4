import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.handlers.proxy.tests.websocket.support import echo_messages, proxied, refused_with, socket_of, sockets_that
from gateway.tests.http_plane import (
    NOWHERE,
    ask,
    eventually,
    route,
    running,
    say,
    upstream_that,
)


async def test_an_upstream_that_is_not_there_is_a_502_before_101(tmp_path):
    routes = [route("socket", "/socket", f"ws://127.0.0.1:{NOWHERE}", protocol="websocket")]
    async with running(tmp_path, routes) as plane:
        with pytest.raises(InvalidStatus) as info:
            await socket_of(plane)
        assert refused_with(info, 502, "upstream-unavailable")
        assert plane.outcomes == [("upstream-unreachable", "handshake_upstream")]


async def hang(requested, reader, writer):
    await reader.read()
    return True


@pytest.mark.parametrize(
    ("scheme", "timeouts", "named"),
    [
        ("ws", {"connect_s": 3600, "first_byte_s": 0.05}, "no response within 0.05 s (first_byte_s)"),
        ("wss", {"connect_s": 0.05, "first_byte_s": 3600}, "no connection within 0.05 s (connect_s)"),
    ],
)
async def test_each_timeout_of_a_route_ends_its_own_part_of_a_handshake(tmp_path, scheme, timeouts, named):
    async with upstream_that(hang) as behind:
        url = behind.url.replace("http", scheme)
        async with running(
            tmp_path, [route("socket", "/socket", url, protocol="websocket", timeouts=timeouts)]
        ) as plane:
            with pytest.raises(InvalidStatus) as info:
                await socket_of(plane)
            refused_with(info, 504, "upstream-timeout")
            assert named in json.loads(info.value.response.body)["detail"]
            await eventually(lambda: not behind.open)


async def test_an_upstream_that_hangs_is_a_504_before_101(tmp_path):
    async with upstream_that(hang) as behind:
        routes = [route("socket", "/socket", behind.url, protocol="websocket")]
        async with running(tmp_path, routes, upstream_first_byte_timeout_s=0.05) as plane:
            with pytest.raises(InvalidStatus) as info:
                await socket_of(plane)
            assert refused_with(info, 504, "upstream-timeout")
            await eventually(lambda: not behind.open)


NO_SOCKETS = {
    "hangs up": b"",
    "upgrades to another": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    "upgrades to nothing": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "lacks the key": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    "has another key": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
    "speaks nonsense": b"nonsense\r\n\r\n",
}


@pytest.mark.parametrize("raw", NO_SOCKETS.values(), ids=NO_SOCKETS)
async def test_a_tunnel_is_opened_only_after_the_upstreams_own_101(tmp_path, raw):
    async def answer(requested, reader, writer):
        await say(raw)(requested, reader, writer)
        await writer.drain()
        return True

    async with upstream_that(answer) as behind:
        routes = [route("socket", "/socket", behind.url, protocol="websocket")]
        async with running(tmp_path, routes) as plane:
            with pytest.raises(InvalidStatus) as info:
                await socket_of(plane)
            assert refused_with(info, 502, "upstream-unavailable")
            assert not len(plane.connections)


@pytest.mark.parametrize("key", [None, "another"])
async def test_who_cannot_be_proved_is_refused_before_101(plane, key):
    headers = [] if key is None else [("x-api-key", key)]
    with pytest.raises(InvalidStatus) as info:
        await socket_of(plane, key=None, headers=headers)
    assert refused_with(info, 401, "unauthenticated")
    assert info.value.response.headers["www-authenticate"]
    assert not plane.behind.requests


@pytest.mark.parametrize(
    ("path", "status", "reason"), [("/nowhere", 404, "not-found"), ("/a%2fb", 400, "invalid-request")]
)
async def test_what_is_not_served_is_refused_before_101(plane, path, status, reason):
    with pytest.raises(InvalidStatus) as info:
        await socket_of(plane, path)
    assert refused_with(info, status, reason)


async def test_a_plain_request_to_a_socket_is_told_to_upgrade(plane):
    assert (await ask(plane, "GET", "/socket")).status == 426


async def test_a_browsers_key_is_ours_alone(plane):
    """``new WebSocket(url, ["bearer", KEY, "chat"])``: the upstream is offered ``chat``, and its choice is answered."""
    async with socket_of(plane, key=None, subprotocols=["bearer", plane.key.text]) as socket:
        assert socket.subprotocol == "bearer"
    async with sockets_that(echo_messages, subprotocols=["chat", "other"]) as behind:
        plane.snapshot.apply(
            [("route", "socket", route("socket", "/socket", f"ws://127.0.0.1:{behind.port}", protocol="websocket"))]
        )
        for offered, chosen in ((["other", "chat"], {"other", "chat"}), (["nothing", "chat"], {"chat"})):
            async with socket_of(plane, key=None, subprotocols=["bearer", plane.key.text, *offered]) as socket:
                assert socket.subprotocol in chosen
        for request in behind.requests:
            assert plane.key.text not in str(request.headers)


async def test_a_header_in_utf_8_reaches_the_upstream_as_it_came(plane):
    """As a cookie that a page has set does."""
    cookie = "name=Zoë €".encode().decode("latin-1")
    async with socket_of(plane, headers=[("Cookie", cookie), ("X-Name", cookie)]):
        (requested,) = plane.behind.requests
        assert (requested.headers["cookie"], requested.headers["x-name"]) == (cookie, cookie)


async def test_a_subprotocol_that_the_upstream_did_not_choose_is_not_promised(plane):
    async with sockets_that(echo_messages) as behind:
        plane.snapshot.apply(
            [("route", "socket", route("socket", "/socket", f"ws://127.0.0.1:{behind.port}", protocol="websocket"))]
        )
        async with socket_of(plane, subprotocols=["chat"]) as socket:
            assert socket.subprotocol is None
        async with socket_of(plane, key=None, subprotocols=["chat", "bearer", plane.key.text]) as socket:
            assert socket.subprotocol == "bearer"


async def test_the_upstream_sees_who_calls_and_nothing_that_pretends_to_be_us(plane):
    headers = [
        ("X-Consumer-Name", "boss"), ("x_consumer_name", "boss"), ("X-Forwarded-For", "9.9.9.9"),
        ("Connection", "X-Secret"), ("X-Secret", "1"), ("X-Kept", "yes"), ("Forwarded", "for=9.9.9.9"),
        ("X-Original-URL", "/admin"), ("X-HTTP-Method-Override", "DELETE"), ("Proxy", "evil.test"), ("Cookie", "a=1; sessionid=x"),
    ]  # fmt: skip
    async with socket_of(plane, "/of/a/b?q=1", headers=headers) as socket:
        await socket.send("x")
        await socket.recv()
    (request,) = plane.behind.requests
    assert request.path == "/x/a/b?fixed=1&q=1"
    sent = {name.lower(): request.headers.get_all(name) for name in request.headers}
    assert sent["x-consumer-name"] == ["acme"]
    assert sent["x-forwarded-for"] == ["127.0.0.1"]
    assert sent["x-forwarded-host"] == [f"127.0.0.1:{plane.port}"]
    assert sent["host"] == [f"127.0.0.1:{plane.behind.port}"]
    assert sent["x-kept"] == ["yes"]
    assert sent["cookie"] == ["a=1"]
    host = f"127.0.0.1:{plane.port}"
    assert sent["forwarded"] == [f'for=127.0.0.1;host="{host}";proto=http']
    assert not set(sent) & {"authorization", "x-secret", "x_consumer_name"}
    assert not set(sent) & {"x-original-url", "x-http-method-override", "proxy"}
    assert plane.key.text not in str(sent)


async def test_a_proxied_socket_takes_its_context_along(tmp_path):
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    async with proxied(tmp_path) as plane:
        for given in (trace, "00-x"):
            headers = {"X-API-Key": plane.key.text, "traceparent": given, "tracestate": "a=1"}
            async with connect(f"ws://127.0.0.1:{plane.port}/socket", additional_headers=headers):
                pass
        (first, second) = plane.behind.requests
        assert (first.headers["traceparent"], first.headers["tracestate"]) == (trace, "a=1")
        assert second.headers["traceparent"] not in (trace, "00-x")
        assert "tracestate" not in second.headers
