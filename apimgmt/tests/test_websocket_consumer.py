"""The consumer behind ``/v1/stream``, run by Channels."""

import asyncio
import json
from functools import partial

import pytest
from channels.testing import WebsocketCommunicator

from apimgmt.websocket_consumer import WebSocketConsumer
from gateway.asgi import serve
from gateway.tests.event_plane import WAIT_S, channel, running

CHANNELS = [channel("trades"), channel("news")]
DENIAL = {"extensions": {"websocket.http.response": {}}}


@pytest.fixture
async def plane(nats_url, redis_url, tmp_path):
    async with running(nats_url, tmp_path, CHANNELS, redis_url=redis_url) as plane:
        yield plane


@pytest.fixture
def communicator(plane):
    """Return a function that makes a client of the consumer."""

    def make(path="/v1/stream", *, key=None, subprotocols=None, **scope):
        headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
        application = WebSocketConsumer.as_asgi(serve=partial(serve, plane))
        client = WebsocketCommunicator(application, path, headers, subprotocols)
        client.scope |= scope
        return client

    return make


async def frame(client, type_):
    message = await client.receive_json_from(WAIT_S)
    assert message["type"] == type_, message
    return message


async def test_channels_runs_a_connection_that_subscribes_and_publishes(plane, communicator):
    client = communicator(key=plane.key.text)
    assert await client.connect(WAIT_S) == (True, None)
    assert (await frame(client, "welcome"))["connection"]
    await client.send_json_to({"type": "subscribe", "channel": "trades"})
    await frame(client, "subscribed")
    await client.send_json_to({"type": "publish", "channel": "trades", "data": {"price": 1}, "ref": "1"})
    received = {}
    for _ in range(2):
        message = await client.receive_json_from(WAIT_S)
        received[message["type"]] = message
    assert received["published"] == {"type": "published", "id": received["event"]["id"], "ref": "1"}
    assert received["event"]["data"] == {"price": 1}
    await client.disconnect()
    assert len(plane.connections) == 0


async def test_a_key_offered_as_subprotocol_authenticates_and_is_not_echoed(plane, communicator):
    client = communicator(subprotocols=["bearer", plane.key.text])
    assert await client.connect(WAIT_S) == (True, "bearer")
    await frame(client, "welcome")
    await client.disconnect()


async def test_a_ticket_authenticates_once(plane, communicator):
    ticket = await plane.tickets.issue(plane.call().caller)
    client, again = (communicator(f"/v1/stream?ticket={ticket}") for _ in range(2))
    assert await client.connect(WAIT_S) == (True, None)
    await frame(client, "welcome")
    assert await again.connect(WAIT_S) == (False, 3000)
    await client.disconnect()


@pytest.mark.parametrize("key", [None, "nonsense"])
async def test_a_handshake_without_a_valid_key_is_answered_401_before_it_is_accepted(communicator, key):
    client = communicator(key=key, **DENIAL)
    await client.send_input({"type": "websocket.connect"})
    start, body = await client.receive_output(WAIT_S), await client.receive_output(WAIT_S)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
    assert json.loads(body["body"])["reason"] == "unauthenticated"


async def test_a_handshake_without_the_right_is_answered_403_before_it_is_accepted(plane, communicator):
    plane.snapshot.apply([("route", "tape", {
        "name": "tape", "path": "/tape", "methods": [], "protocol": "websocket",
        "handler": {"type": "channel", "channel": "trades"}, "policies": [],
    })])  # fmt: skip
    client = communicator("/tape", key=plane.key.text, **DENIAL)
    await client.send_input({"type": "websocket.connect"})
    assert (await client.receive_output(WAIT_S))["status"] == 403


async def test_a_server_that_cannot_deny_over_http_closes_before_it_accepts(communicator):
    assert await communicator(key="nonsense").connect(WAIT_S) == (False, 3000)


async def test_a_revoked_key_closes_the_socket(plane, communicator):
    client = communicator(key=plane.key.text)
    await client.connect(WAIT_S)
    await frame(client, "welcome")
    plane.change_key(revoked_at=1.0)
    closed = await client.receive_output(WAIT_S)
    assert (closed["type"], closed["code"]) == ("websocket.close", 3000)
    await client.send_json_to({"type": "ping"})  # which nobody reads any more
    await client.disconnect(code=3000)


async def test_a_message_waits_until_the_one_before_it_has_been_received():
    may_receive, received = asyncio.Event(), []

    async def reluctant(scope, receive, send):
        while not received or received[-1]["type"] != "websocket.disconnect":
            await may_receive.wait()
            received.append(await receive())

    consumer = WebSocketConsumer(reluctant)
    offered = 0

    async def receive():
        nonlocal offered
        offered += 1
        if offered == 1:
            return {"type": "websocket.connect"}
        return {"type": "websocket.receive", "text": "x"} if offered <= 50 else {"type": "websocket.disconnect"}

    async def send(message):
        raise AssertionError(message)

    serving = asyncio.create_task(consumer({"type": "websocket"}, receive, send))
    await asyncio.sleep(0.1)
    assert offered <= 3
    may_receive.set()
    await asyncio.wait_for(serving, WAIT_S)
    assert len(received) == 51


async def test_a_connection_that_channels_cancels_ends(plane, communicator):
    client = communicator(key=plane.key.text)
    await client.connect(WAIT_S)
    await frame(client, "welcome")
    client.future.cancel()
    await asyncio.wait([client.future], timeout=WAIT_S)
    assert len(plane.connections) == 0


async def test_an_unexpected_error_closes_with_1011():
    async def failing(scope, receive, send):
        raise RuntimeError("unexpected")

    client = WebsocketCommunicator(WebSocketConsumer.as_asgi(serve=failing), "/v1/stream")
    assert await client.connect(WAIT_S) == (False, 1011)


async def test_a_server_with_back_pressure_serves_the_socket_in_its_own_task(plane):
    tasks = set()

    async def observed(scope, receive, send):
        tasks.add(asyncio.current_task())
        await send({"type": "websocket.close", "code": 1000})

    client = WebsocketCommunicator(WebSocketConsumer.as_direct(observed), "/v1/stream")
    await client.connect(WAIT_S)
    assert tasks == {client.future}
