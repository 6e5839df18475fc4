"""One budget for a consumer, whatever it speaks and whichever process it reaches; none where it cannot be counted."""

import asyncio
import contextlib
import json
import os
import signal
import time

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.tests.mqtt_client import MqttClient
from gateway.wire.mqtt.packets import V5, Type
from tests.product import Product, eventually

pytestmark = [pytest.mark.xdist_group("product"), pytest.mark.timeout(300)]
HUNG_S = 10
RATE = 10
LASTS_S = 8.0


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    """Start one product with two web processes."""
    product = Product(tmp_path_factory.mktemp("budget") / "var", "--workers", "2")
    yield product
    assert product.stop() == 0


def key_of(product, name, limits):
    """Make a consumer with a tier and a key of its own, and wait until the gateway knows them."""
    product.admin("POST", "tiers/", {"name": name, "limits": limits})
    product.admin("POST", "consumers/", {"name": name, "tier": name})
    scopes = ["call:*", "publish:*", "subscribe:*"]
    key = product.admin("POST", f"consumers/{name}/keys", {"scopes": scopes})["key"]
    eventually(lambda: product.call("GET", "/v1/me", key=key)[0] == 200)
    return key


class Publishers:
    """Publish as fast as they are answered, each its own way, until told to stop; every answer is counted."""

    def __init__(self, product, key):
        self.product = product
        self.key = key
        self.answers = {"stream": [0, 0], "mqtt": [0, 0], "rest": [0, 0]}
        """Admitted and refused, by door."""
        self.last_at = 0.0

    async def run(self):
        began_at = time.monotonic()
        doors = [self.stream(), self.stream(), self.stream(), self.mqtt(), self.rest()]
        tasks = [asyncio.create_task(protocol) for protocol in doors]
        await asyncio.sleep(LASTS_S)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended
        return began_at, time.monotonic()

    def count(self, protocol, is_admitted):
        self.answers[protocol][not is_admitted] += 1

    async def stream(self):
        headers = {"Authorization": f"Bearer {self.key}"}
        async with connect(f"{self.product.ws_url}/v1/stream", additional_headers=headers) as socket:
            await socket.recv()
            while True:
                await socket.send('{"type":"publish","channel":"trades","data":1}')
                self.count("stream", json.loads(await socket.recv())["type"] == "published")
                await asyncio.sleep(0.05)

    async def mqtt(self):
        mqtt = MqttClient(self.product.mqtt_port, V5)
        await mqtt.open()
        await mqtt.connect(self.key)
        packet_id = 0
        try:
            while True:
                packet_id += 1
                mqtt.publish("trades", b"1", 1, packet_id=packet_id)
                self.count("mqtt", (await mqtt.answer(Type.PUBACK)).v5.reason_code == 0)
                await asyncio.sleep(0.05)
        finally:
            mqtt.writer.close()

    async def rest(self):
        """Come over a new connection each time, so that both processes are reached."""
        while True:
            status, _, _ = await asyncio.to_thread(
                self.product.call, "POST", "/v1/channels/trades/events", {"price": 1}, self.key
            )
            self.count("rest", status == 201)
            await asyncio.sleep(0.05)


async def test_ten_messages_a_second_are_ten_over_every_door_and_process_together(product):
    key = key_of(product, "ten", [{"metric": "messages_in", "amount": RATE, "per": 1, "close_at": 0}])
    publishers = Publishers(product, key)
    began_at, ended_at = await publishers.run()
    admitted = sum(taken for taken, _ in publishers.answers.values())
    refused = sum(left for _, left in publishers.answers.values())
    assert refused > 0.2 * admitted, f"the test must ask for more than is allowed: {publishers.answers}"
    processes = len(product.reread()["processes"]["web"]) + len(product.ready["processes"]["mqtt"])
    # A bucket of ten is leased a message at a time.
    assert admitted <= RATE + RATE * (ended_at - began_at) + processes, publishers.answers
    assert admitted >= 0.95 * (RATE + RATE * LASTS_S), publishers.answers


def closed(metric, amount, per=None):
    """Limit what is refused where it cannot be counted."""
    return {"metric": metric, "amount": amount, "per": per, "fail": "closed"}


DOORS = ["rest", "publish", "sse", "stream", "proxied", "mqtt"]


async def outcome(product, key, protocol):
    """Try a door. Gives ``ok``, or why it was refused."""
    if protocol in ("rest", "publish"):
        address, body = ("/quotes/ACME", None) if protocol == "rest" else ("/v1/channels/trades/events", {"price": 1})
        method = "GET" if body is None else "POST"
        status, _, reply = await asyncio.to_thread(product.call, method, address, body, key)
        return "ok" if status < 300 else reply["reason"]
    if protocol == "sse":
        return await sse_outcome(product, key)
    if protocol == "mqtt":
        mqtt = MqttClient(product.mqtt_port, V5)
        await mqtt.open()
        answer = (await mqtt.connect(key)).v5
        mqtt.writer.close()
        return "ok" if answer.reason_code == 0 else dict(answer.user_properties)["reason"]
    path = "/v1/stream" if protocol == "stream" else "/ws/market-data"
    try:
        async with connect(product.ws_url + path, additional_headers={"Authorization": f"Bearer {key}"}):
            return "ok"
    except InvalidStatus as refused:
        return json.loads(refused.response.body)["reason"]


async def sse_outcome(product, key):
    host, _, port = product.base_url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"GET /v1/events?channel=trades HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\n\r\n"
    writer.write(head.encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    reply = await reader.read(65536)
    writer.close()
    return "ok" if answer.startswith(b"HTTP/1.1 200") else json.loads(reply)["reason"]


async def outcomes(product, key):
    """Try every door; none hangs."""
    async with asyncio.timeout(HUNG_S):
        found = await asyncio.gather(*(outcome(product, key, protocol) for protocol in DOORS))
    return dict(zip(DOORS, found, strict=True))


async def until_all_say(product, key, wanted):
    ends_at = time.monotonic() + 30
    while True:
        found = await outcomes(product, key)
        if set(found.values()) == {wanted}:
            return
        assert time.monotonic() < ends_at, found
        await asyncio.sleep(0.2)


async def test_what_cannot_be_counted_is_refused_where_the_limit_says_so_and_nobody_hangs(product):
    limits = [closed(metric, 1000, 1) for metric in ("requests", "connections", "messages_in", "bytes_in")]
    key = key_of(product, "strict", [*limits, closed("open_connections", 1000)])
    await until_all_say(product, key, "ok")
    (redis,) = product.reread()["processes"]["redis"]
    os.kill(redis, signal.SIGSTOP)
    try:
        await until_all_say(product, key, "overloaded")
    finally:
        os.kill(redis, signal.SIGCONT)
    await until_all_say(product, key, "ok")
    os.kill(redis, signal.SIGKILL)
    await until_all_say(product, key, "ok")


async def test_open_sockets_are_told_that_nothing_can_be_counted_and_go_on_after(product):
    key = key_of(product, "patient", [closed("messages_in", 20, 1)])
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        connect(f"{product.ws_url}/v1/stream", additional_headers=headers) as stream,
        connect(f"{product.ws_url}/ws/market-data", additional_headers=headers) as proxied,
    ):
        await stream.recv()

        async def answer(socket, message, is_answer):
            await socket.send(message)
            async with asyncio.timeout(HUNG_S):
                while True:
                    reply = json.loads(await socket.recv())
                    if reply.get("type") == "error":
                        return reply["reason"]
                    if is_answer(reply):
                        return "ok"

        async def until_both_say(wanted):
            ends_at = time.monotonic() + 30
            while True:
                found = {
                    await answer(stream, '{"type":"publish","channel":"trades","data":1}', lambda reply: "id" in reply),
                    await answer(proxied, '{"echo": 1}', lambda reply: "echo" in reply),
                }
                if found == {wanted}:
                    return
                assert time.monotonic() < ends_at, found
                await asyncio.sleep(0.05)

        await until_both_say("ok")
        (redis,) = product.reread()["processes"]["redis"]
        os.kill(redis, signal.SIGSTOP)
        try:
            await until_both_say("overloaded")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(redis, signal.SIGCONT)
        await until_both_say("ok")
