"""What deliveries and publishes take of the event loop: the bounds are in :mod:`.bounds`."""

import asyncio
import itertools
import json

import pytest

from gateway.handlers.proxy.tests.websocket.support import HANDSHAKE
from gateway.tests.fan_out import NO_RETAINED, all_protocols, arrive
from gateway.tests.mqtt_client import subscribe
from gateway.tests.raw_socket import frame
from gateway.tests.work.bounds import BOUNDS
from gateway.tests.work.counts import count
from gateway.tests.work.peers import connected
from gateway.wire.mqtt import codec
from gateway.wire.mqtt.packets import V5, Connect, Publish

SUBSCRIBERS = 20
REPEATS = 50
EVENTS_IN_TURN = 10


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with all_protocols(nats_server.url, tmp_path) as plane:
        yield plane


@pytest.fixture
def open_line(plane):
    """Connect by a protocol; all connections are closed after the test."""
    lines = []

    def opened(protocol):
        line = connected(plane.mqtt_port if protocol == "mqtt" else plane.port)
        lines.append(line)
        return line

    yield opened
    for line in lines:
        line.close()


def head(plane, method, path, *lines):
    return "\r\n".join(
        [f"{method} {path} HTTP/1.1", "host: gateway", f"x-api-key: {plane.key.text}", *lines, "", ""]
    ).encode()


def open_stream(plane, line):
    line.send(head(plane, "GET", "/v1/stream", *HANDSHAKE))
    line.until(b'"welcome"')
    line.until(b"}")


def open_mqtt(plane, line):
    line.send(codec.connect(Connect(V5, "", True, 0, username="u", password=plane.key.text.encode())))
    first, size = line.read(2)
    assert first == 0x20
    line.read(size)


def subscribe_by(protocol, plane, line):
    if protocol == "websocket":
        open_stream(plane, line)
        line.send(frame(b'{"type":"subscribe","channel":"trades"}'))
        line.until(b'"subscribed"')
    elif protocol == "sse":
        line.send(head(plane, "GET", "/v1/events?channel=trades"))
        line.until(b"\nid:")
    else:
        open_mqtt(plane, line)
        line.send(subscribe(V5, 1, ("trades", NO_RETAINED)))
        line.until(b"\x90\x04\x00\x01\x00\x00")


@pytest.mark.parametrize("in_turn", [1, EVENTS_IN_TURN])
@pytest.mark.parametrize("protocol", ["websocket", "sse", "mqtt"])
async def test_a_delivery_stays_within_its_bounds(plane, open_line, protocol, in_turn):
    lines = [open_line(protocol) for _ in range(SUBSCRIBERS)]
    for line in lines:
        await asyncio.to_thread(subscribe_by, protocol, plane, line)

    def read():
        for line in lines:
            line.until(b'"n":', in_turn)

    async def deliver():
        for _ in range(REPEATS):
            arrive(plane, range(in_turn))
            await asyncio.to_thread(read)

    name = f"delivery by {protocol}, {in_turn} in a turn"
    found = await count(deliver, SUBSCRIBERS * REPEATS * in_turn)
    assert not found.beyond(BOUNDS[name]), name


def publishing(protocol, plane, line):
    """Return what publishes once and reads until it is acknowledged."""
    if protocol == "websocket":
        open_stream(plane, line)
        message = frame(json.dumps({"type": "publish", "channel": "trades", "data": {"n": 1}}).encode())
        return lambda: (line.send(message), line.until(b'"published"'), line.until(b"}"))
    if protocol == "mqtt":
        open_mqtt(plane, line)
        ids = itertools.cycle(range(1, 60_000))
        return lambda: (
            line.send(codec.publish(V5, Publish("trades", b'{"n":1}', 1, packet_id=next(ids)))),
            line.until(b"\x40"),
        )
    body = json.dumps([{"n": 1}] * EVENTS_IN_TURN if protocol == "array" else {"n": 1}).encode()
    message = head(plane, "POST", "/v1/channels/trades/events", f"content-length: {len(body)}") + body

    def publish():
        line.send(message)
        status, answer = line.response()
        assert status == 201, answer

    return publish


@pytest.mark.parametrize("protocol", ["rest", "array", "websocket", "mqtt"])
async def test_a_publish_stays_within_its_bounds(plane, open_line, protocol):
    publish = await asyncio.to_thread(publishing, protocol, plane, open_line(protocol))

    def publish_all():
        for _ in range(REPEATS):
            publish()

    events = REPEATS * (EVENTS_IN_TURN if protocol == "array" else 1)
    found = await count(lambda: asyncio.to_thread(publish_all), events)
    assert not found.beyond(BOUNDS[f"publish by {protocol}"])
