"""Policies of channel routes: the same for publishing over REST and WebSocket, and for events on both streams."""

import asyncio
import base64
import json
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect

from gateway.channels.publication import Publication
from gateway.handlers.tests.test_channels_on_the_wire import answered, heard, http, served
from gateway.tests.event_plane import WAIT_S, channel, running
from gateway.tests.policed import custom, policy

pytestmark = pytest.mark.usefixtures("operators_module")
NAMED = {"type": "object", "required": ["name"]}


@asynccontextmanager
async def routed(nats_server, tmp_path, *policies, **settings):
    routes = [
        {"name": name, "path": f"/{name}", "methods": [method], "protocol": protocol, "policies": list(policies),
         "handler": {"type": "channel", "channel": "trades"}}
        for name, method, protocol in (("ws", "GET", "websocket"), ("sse", "GET", "sse"), ("rest", "POST", "http"))
    ]  # fmt: skip
    async with running(nats_server.url, tmp_path, [channel("trades")], routes=routes, **settings) as plane:
        key = {**plane._key_document("acme", plane.key), "scopes": ["call:*", "publish:*", "subscribe:*"]}
        plane.snapshot.apply([("key", plane.key.id, key)])
        async with served(plane) as plane.port:
            yield plane


@asynccontextmanager
async def socket_of(plane, **more):
    headers = {"authorization": f"Bearer {plane.key.text}"}
    url = f"ws://127.0.0.1:{plane.port}/ws"
    async with connect(url, additional_headers=headers, open_timeout=WAIT_S, **more) as socket:
        await heard(socket, "subscribed")
        yield socket


async def send_publish(socket, data, **more):
    await socket.send(json.dumps({"type": "publish", "channel": "trades", "data": data, **more}))


async def post(plane, body):
    status, _ = await answered(plane, "POST", "/rest", body, content_type="application/json")
    return status


async def stored(plane, data):
    return await plane.publisher.publish(plane.call(), Publication("trades", json.dumps(data).encode()))


async def test_an_invalid_event_is_refused_in_band_and_the_socket_stays_open(nats_server, tmp_path):
    async with routed(nats_server, tmp_path, policy("validate", schema=NAMED)) as plane, socket_of(plane) as socket:
        await send_publish(socket, {"age": 1}, ref="7")
        error = await heard(socket, "error")
        assert (error["reason"], error["ref"], error["pointer"]) == ("invalid-payload", "7", "")
        assert error["errors"][0]["detail"]
        await send_publish(socket, {"name": 1}, ref="8")
        assert (await heard(socket, "event"))["data"] == {"name": 1}
        (connection,) = plane.connections
        assert connection.refusals == {"invalid-payload": 1}
        assert await post(plane, b'{"age":1}') == 422
        assert await post(plane, b'{"name":2}') == 201
        assert (await heard(socket, "event"))["data"] == {"name": 2}


async def test_published_and_delivered_events_are_transformed_on_every_protocol(nats_server, tmp_path):
    steps = policy("transform", inbound={"set": {"/in": 1}}, outbound={"remove": ["/secret"]})
    async with routed(nats_server, tmp_path, steps) as plane, socket_of(plane) as socket:
        status, _, reader, writer = await http(plane, "GET", "/sse")
        assert status == 200
        await reader.readuntil(b"retry: 2000")
        await send_publish(socket, {"secret": 1, "a": 1})
        assert (await heard(socket, "event"))["data"] == {"in": 1, "a": 1}
        assert await post(plane, b'{"secret":1,"b":1}') == 201
        event = await heard(socket, "event")
        assert (event["data"], event["channel"]) == ({"in": 1, "b": 1}, "trades")
        async with asyncio.timeout(WAIT_S):
            text = b""
            while b'"b"' not in text:
                text += await reader.read(4096)
        assert b'data: {"a":1,"in":1}\n' in text
        assert b"secret" not in text
        writer.close()


async def test_a_delivered_event_that_is_invalid_becomes_an_error_frame(nats_server, tmp_path):
    promise = policy("validate", outbound_schema=NAMED)
    async with routed(nats_server, tmp_path, promise) as plane, socket_of(plane) as socket:
        await stored(plane, {"hidden": 1})
        assert (await heard(socket, "error"))["reason"] == "upstream-unavailable"
        await stored(plane, {"name": 1})
        assert (await heard(socket, "event"))["data"] == {"name": 1}


async def test_invalid_events_are_charged_like_valid_ones(nats_server, tmp_path):
    async with routed(nats_server, tmp_path, policy("validate", schema=NAMED)) as plane:
        plane.change_tier([{"metric": "messages_in", "amount": 2, "per": 60}])
        async with socket_of(plane) as socket:
            for _ in range(3):
                await send_publish(socket, {})
            reasons = [(await heard(socket, "error"))["reason"] for _ in range(3)]
            assert reasons == ["invalid-payload", "invalid-payload", "rate-limited"]


async def test_a_message_hook_sees_events_in_both_directions(nats_server, tmp_path):
    hook = custom("on_message", on="message")
    async with routed(nats_server, tmp_path, hook) as plane, socket_of(plane) as socket:
        await send_publish(socket, {"drop": True})
        await send_publish(socket, {"refuse": True}, ref="1")
        assert (await heard(socket, "error"))["ref"] == "1"
        await send_publish(socket, {"a": 1})
        assert (await heard(socket, "event"))["data"] == {"a": 1, "in": "ws", "out": "ws"}
        await socket.send('{"type":"ping"}')
        await heard(socket, "pong")


async def test_changed_policies_apply_to_the_next_event_of_an_open_socket(nats_server, tmp_path):
    async with routed(nats_server, tmp_path) as plane, socket_of(plane) as socket:
        await send_publish(socket, {"a": 1})
        assert (await heard(socket, "event"))["data"] == {"a": 1}
        route = {"name": "ws", "path": "/ws", "methods": ["GET"], "protocol": "websocket",
                 "handler": {"type": "channel", "channel": "trades"}}  # fmt: skip
        plane.snapshot.apply([("route", "ws", {**route, "policies": [policy("validate", schema=NAMED)]})])
        await send_publish(socket, {"a": 1})
        assert (await heard(socket, "error"))["reason"] == "invalid-payload"
        await send_publish(socket, {"name": 1})
        assert (await heard(socket, "event"))["data"] == {"name": 1}


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/sse", {"name": "sse", "path": "/sse", "handler": {"type": "channel", "channel": "trades"}}),
        (
            "/v1/events?channel=trades",
            {"name": "builtin-events", "path": "/v1/events", "handler": {"type": "builtin"}, "reserved_override": True},
        ),
    ],
    ids=["a route without policies", "a built-in endpoint without a route"],
)
async def test_policies_added_later_apply_to_the_next_event_of_an_open_stream(nats_server, tmp_path, path, route):
    later = [policy("transform", outbound={"set": {"/seen": True}})]
    route = route | {"methods": ["GET"], "protocol": "sse"}
    async with routed(nats_server, tmp_path) as plane:
        _, _, stream, writer = await http(plane, "GET", path)
        await stream.readuntil(b"retry: 2000\n\n")
        for policies, expected in ((None, {"a": 1}), (later, {"a": 1, "seen": True}), ([], {"a": 1})):
            if policies is not None:
                plane.snapshot.apply([("route", route["name"], route | {"policies": policies})])
            await stored(plane, {"a": 1})
            await asyncio.wait_for(stream.readuntil(b"data:"), WAIT_S)
            assert json.loads(await stream.readline()) == expected
        writer.close()


async def test_policies_apply_to_cloudevents_published_over_a_socket(nats_server, tmp_path):
    limit = policy("rate-limit", rateLimitBy="user", requestsAllowed=4, timeWindowMinutes=600, metric="messages_in")
    policies = [limit, policy("validate", schema=NAMED), policy("transform", inbound={"set": {"/seen": True}})]
    event = {"specversion": "1.0", "id": "7", "source": "/here", "type": "publish.not", "channel": "trades"}
    async with (
        routed(nats_server, tmp_path, *policies) as plane,
        socket_of(plane, subprotocols=["cloudevents.json"]) as socket,
    ):
        for bad in ({"data": {"age": 1}}, {}):
            await socket.send(json.dumps(event | bad))
            error = await heard(socket, "error")
            assert (error["reason"], error["ref"]) == ("invalid-payload", "7")
        encoded = base64.b64encode(b'{"name":2}').decode()
        for good in ({"data": {"name": 1}, "id": "8"}, {"data_base64": encoded, "id": "9"}):
            await socket.send(json.dumps(event | good))
            await heard(socket, "published")
        await socket.send(json.dumps(event | {"data": {"name": 3}, "id": "10"}))
        assert (await heard(socket, "error"))["reason"] == "rate-limited"
        found, _ = plane.snapshot.channel("trades")
        kept = [json.loads(one.data) for one in await plane.log.history(found, "trades", 0, 10)]
        assert kept == [{"name": 1, "seen": True}, {"name": 2, "seen": True}]
