"""Compressed messages of callers on a proxied WebSocket: the upstream, the limits and the policies see them inflated."""

import asyncio
import json

import pytest
from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from gateway.handlers.proxy.tests.websocket.support import HANDSHAKE, closed, echo_messages, sockets_that
from gateway.tests.garbage import garbage
from gateway.tests.http_plane import WAIT_S, caller_of, eventually, route, running
from gateway.tests.policed import policy
from gateway.tests.raw_socket import closed as close
from gateway.tests.raw_socket import frame, read_frame
from gateway.wire.deflate import compressed, inflated

__all__ = ["garbage"]

TEXT = "the same again and again, " * 100
COMPRESSED_TEXT = 0xC1
OFFER = "sec-websocket-extensions: permessage-deflate"
MOST = 100_000
NAMED = policy("validate", schema={"type": "object", "required": ["name"]})


@pytest.fixture
async def plane(tmp_path):
    async with sockets_that(echo_messages) as behind:
        url = f"ws://127.0.0.1:{behind.port}"
        routes = [
            route("small", "/small", url, protocol="websocket", compression=True),
            route("plain", "/plain", url, protocol="websocket"),
            route("checked", "/checked", url, protocol="websocket", compression=True, policies=[NAMED]),
        ]
        async with running(tmp_path, routes, proxied_message_max_bytes=MOST) as plane:
            plane.behind = behind
            yield plane


def socket_of(plane, path="/small", **offer):
    return connect(
        f"ws://127.0.0.1:{plane.port}{path}",
        additional_headers={"authorization": f"Bearer {plane.key.text}"},
        extensions=[ClientPerMessageDeflateFactory(**offer)],
        compression=None,
        open_timeout=WAIT_S,
        max_size=None,
    )


@pytest.mark.parametrize("offer", [{}, {"server_max_window_bits": 9}, {"client_max_window_bits": 9}])
@pytest.mark.parametrize("message", ["", "short", TEXT, TEXT.encode(), "\u00e9" * 40_000, bytes(MOST)])
async def test_messages_pass_both_ways_as_they_are(plane, offer, message):
    async with socket_of(plane, **offer) as socket:
        for _ in range(2):
            await socket.send(message)
            assert await asyncio.wait_for(socket.recv(), WAIT_S) == message


async def opened(caller, path="/small", offer=OFFER):
    caller.send(caller.head("GET", path, *HANDSHAKE, offer))
    head = await caller.answer_head()
    assert head.status == 101
    return [value for name, value in head.headers if name.lower() == "sec-websocket-extensions"]


async def test_what_goes_back_is_compressed(plane):
    async with caller_of(plane) as caller:
        assert await opened(caller) == [
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        ]  # fmt: skip
        caller.send(frame(compressed(TEXT.encode()), COMPRESSED_TEXT))
        first, payload = await read_frame(caller.reader)
        assert (first, inflated(payload, MOST)) == (COMPRESSED_TEXT, TEXT.encode())
        assert len(payload) < len(TEXT) / 10


async def test_messages_are_counted_and_charged_as_they_were_before_they_were_compressed(plane):
    async with socket_of(plane) as socket:
        for _ in range(3):
            await socket.send(TEXT)
            await socket.recv()
        (connection,) = plane.connections
        assert (connection.messages_in, connection.messages_out) == (3, 3)
        assert (connection.bytes_in, connection.bytes_out) == (3 * len(TEXT), 3 * len(TEXT))


async def test_the_upstream_is_offered_no_compression(plane):
    async with socket_of(plane):
        (request,) = plane.behind.requests
        assert "sec-websocket-extensions" not in request.headers


async def test_policies_check_messages_as_they_were_before_they_were_compressed(plane):
    async with socket_of(plane, "/checked") as socket:
        await socket.send(message := json.dumps({"name": TEXT}))
        assert await asyncio.wait_for(socket.recv(), WAIT_S) == message
        await socket.send(json.dumps({"text": TEXT}))
        assert await closed(socket) == (1008, '{"reason":"invalid-payload"}')


async def test_a_message_is_limited_by_what_it_inflates_to(plane):
    async with socket_of(plane) as socket:
        await socket.send(bytes(MOST + 1))
        assert await closed(socket) == (1009, '{"reason":"too-large"}')


async def test_what_cannot_be_inflated_is_1007(plane):
    async with caller_of(plane) as caller:
        await opened(caller)
        caller.send(frame(b"\xff" * 20, COMPRESSED_TEXT))
        assert await read_frame(caller.reader) == (0x88, b"\x03\xef" + b'{"reason":"invalid-payload"}')


@pytest.mark.parametrize(("path", "offer"), [("/plain", OFFER), ("/small", "x-nothing: at-all")])
async def test_a_compressed_message_is_1002_where_it_was_not_agreed_on(plane, path, offer):
    async with caller_of(plane) as caller:
        assert await opened(caller, path, offer) == []
        caller.send(frame(compressed(TEXT.encode()), COMPRESSED_TEXT))
        assert await read_frame(caller.reader) == (0x88, b"\x03\xea" + b'{"reason":"invalid-request"}')


async def test_a_compressed_socket_leaves_no_garbage(plane, garbage):
    for _ in range(10):
        async with caller_of(plane) as caller:
            await opened(caller)
            caller.send(frame(compressed(TEXT.encode()), COMPRESSED_TEXT))
            await read_frame(caller.reader)
            await close(caller)
    await eventually(lambda: len(plane.outcomes) == 10 and not plane.server.server_state.connections)
    await asyncio.sleep(0.05)  # what is scheduled by now, as transports that close, has run
    plane.connections.opened.clear()  # as usage does
    assert not garbage()
