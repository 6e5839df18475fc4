"""Policies before the gateway's own doors: the stream socket, event streams, and MQTT."""

import contextlib
import http.client
import json

import pytest
from websockets.asyncio.client import connect

from gateway.tests.mqtt_client import client
from gateway.wire.mqtt.packets import V5, Type
from tests.product import Product, eventually

pytestmark = [pytest.mark.xdist_group("product"), pytest.mark.timeout(300)]
BY_TENANT = {
    "type": "rate-limit",
    "options": {"rateLimitBy": "function", "function": "demo.hooks:limit_of", "metric": "messages_in"},
}
"""60 a minute for all consumers of a tenant together, none for who is trusted: ``demo/hooks.py``."""
MQTT = {"name": "devices", "protocol": "mqtt", "path": "/mqtt", "handler": {"type": "builtin"}}
STREAM = {
    "name": "stream", "protocol": "websocket", "path": "/v1/stream", "handler": {"type": "builtin"},
    "reserved_override": True,
}  # fmt: skip
EVENTS = STREAM | {"name": "events", "protocol": "sse", "path": "/v1/events"}


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    product = Product(tmp_path_factory.mktemp("doors") / "var")
    product.admin("POST", "tiers/", {"name": "unlimited", "limits": []})
    yield product
    assert product.stop() == 0


@pytest.fixture
def guarded(product):
    """Put policies before doors for one test."""
    names = []

    def guard(route, *policies):
        product.admin("POST", "routes/", route | {"policies": list(policies)})
        names.append(route["name"])

    yield guard
    for name in names:
        product.admin("DELETE", f"routes/{name}")


def key_of(product, name, **metadata):
    product.admin("POST", "consumers/", {"name": name, "tier": "unlimited", "metadata": metadata})
    return product.admin("POST", f"consumers/{name}/keys", {"scopes": ["publish:*", "subscribe:*"]})["key"]


async def over_the_stream(product, key, count):
    """Publish over one socket. Gives what was said of each."""
    headers = {"Authorization": f"Bearer {key}"}
    async with connect(f"{product.ws_url}/v1/stream", additional_headers=headers) as socket:
        await socket.recv()
        for _ in range(count):
            await socket.send('{"type":"publish","channel":"trades","data":1}')
        return [json.loads(await socket.recv()) for _ in range(count)]


async def over_mqtt(mqtt, count):
    """Publish over one connection. Gives the reason codes."""
    codes = []
    for packet_id in range(1, count + 1):
        mqtt.publish("trades", b"1", 1, packet_id=packet_id)
        codes.append(int((await mqtt.answer(Type.PUBACK)).v5.reason_code))
    return codes


@contextlib.asynccontextmanager
async def connected(product, key):
    async with client(product, V5) as mqtt:
        assert (await mqtt.connect(key)).v5.reason_code == 0
        yield mqtt


async def test_a_function_limits_the_stream_and_mqtt_together_by_what_it_knows_of_the_caller(product, guarded):
    guarded(STREAM, BY_TENANT)
    guarded(MQTT, BY_TENANT)
    one, other = key_of(product, "one", tenant="acme"), key_of(product, "other", tenant="acme")
    body = await over_the_stream(product, one, 45)
    async with connected(product, other) as mqtt:
        codes = await over_mqtt(mqtt, 45)
    refused = [frame for frame in body if frame["type"] == "error"] + [code for code in codes if code]
    # What refills while this lasts is a few of 60 a minute.
    assert 20 <= len(refused) <= 36
    assert set(codes) == {0, 0x97}
    trusted = await over_the_stream(product, key_of(product, "trusted", trusted=True), 70)
    assert {frame["type"] for frame in trusted} == {"published"}


async def test_policies_come_and_go_before_an_open_connection_and_never_close_it(product, guarded):
    policy = {"rateLimitBy": "user", "requestsAllowed": 2, "timeWindowMinutes": 10, "metric": "messages_in"}
    async with connected(product, key_of(product, "early")) as mqtt:
        assert set(await over_mqtt(mqtt, 3)) == {0}
        product.admin("POST", "routes/", MQTT | {"policies": [{"type": "rate-limit", "options": policy}]})
        await until_answered(mqtt, 0x97)
        product.admin("DELETE", "routes/devices")
        await until_answered(mqtt, 0)
        assert set(await over_mqtt(mqtt, 5)) == {0}


async def until_answered(mqtt, code):
    """Publish again and again, a bounded number of times."""
    for _ in range(1000):
        if await over_mqtt(mqtt, 1) == [code]:
            return
    raise AssertionError("it never came")


def test_event_streams_are_limited_as_they_are_opened(product, guarded):
    guarded(
        EVENTS,
        {"type": "rate-limit", "options": {"rateLimitBy": "user", "requestsAllowed": 2, "timeWindowMinutes": 10}},
    )
    key = key_of(product, "listener")
    opened = [http.client.HTTPConnection(product.base_url.removeprefix("http://"), timeout=20) for _ in range(3)]
    statuses = []
    for connection in opened:
        connection.request("GET", "/v1/events?channel=trades", headers={"X-API-Key": key})
        statuses.append(connection.getresponse().status)
    assert statuses == [200, 200, 429]
    for connection in opened:
        connection.close()


async def test_who_may_not_come_from_there_is_refused_at_every_door(product, guarded):
    elsewhere = {"type": "ip-restriction", "options": {"allow": ["192.0.2.0/24"]}}
    for route in (STREAM, EVENTS, MQTT):
        guarded(route, elsewhere)
    key = key_of(product, "local")
    eventually(lambda: product.call("GET", "/v1/events?channel=trades", key=key)[0] == 403)
    async with client(product, V5) as mqtt:
        assert (await mqtt.connect(key)).v5.reason_code == 0x8A
