"""Limits of bytes on channels, by every door, both ways: each payload costs its bytes, and nothing else costs any."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager

import pytest
from websockets.exceptions import ConnectionClosed

from gateway.handlers.tests.test_channels_on_the_wire import http, served, socket_of
from gateway.tests.event_plane import WAIT_S, channel
from gateway.tests.mqtt_client import client
from gateway.tests.mqtt_plane import mqtt_plane
from gateway.wire.mqtt.packets import V5, Type

HOURS = 36_000
PAYLOAD = json.dumps("x" * 298).encode()
"""Of 300 bytes."""
PUBLISHERS = pytest.mark.parametrize("protocol", ["rest", "stream", "mqtt"])
READERS = pytest.mark.parametrize("protocol", ["sse", "stream", "mqtt"])


@pytest.fixture
async def plane(nats_server, tmp_path):
    settings = {"sse_heartbeat_s": 0.05}
    async with mqtt_plane(nats_server.url, tmp_path, [channel("trades")], **settings) as plane, served(plane) as port:
        plane.port = port
        plane.connections.start()
        yield plane
        await plane.connections.stop()


def limited(plane, metric: str, amount: float, per: float | str = HOURS, **more) -> None:
    plane.change_tier([{"metric": metric, "amount": amount, "per": per, **more}])


def left(plane) -> float:
    [fact] = plane.limiter.left(plane.snapshot.principal(plane.key.id))
    return fact["remaining"]


class Rest:
    """Publishes by REST."""

    def __init__(self, plane) -> None:
        self.plane = plane

    async def publish(self, payload: bytes) -> str:
        status, _, reader, writer = await http(
            self.plane, "POST", "/v1/channels/trades/events", payload, content_type="application/json"
        )
        body = json.loads(await asyncio.wait_for(reader.read(65536), WAIT_S))
        writer.close()
        return "" if status == 201 else body["reason"]


class Stream:
    """Publishes and reads by ``/v1/stream``."""

    def __init__(self, socket) -> None:
        self.socket = socket

    async def publish(self, payload: bytes) -> str:
        await self.socket.send('{"type":"publish","channel":"trades","data":' + payload.decode() + "}")
        body = await self._next()
        return "" if body["type"] == "published" else body["reason"]

    async def subscribe(self) -> None:
        await self.socket.send('{"type":"subscribe","channel":"trades"}')
        assert (await self._next())["type"] == "subscribed"

    async def next(self) -> str:
        body = await self._next()
        return "event" if body["type"] == "event" else body["reason"]

    async def is_served(self) -> bool:
        await self.socket.send('{"type":"ping"}')
        return (await self._next())["type"] == "pong"

    async def ends(self) -> str:
        try:
            while True:
                await self._next()
        except ConnectionClosed as closed:
            return f"{closed.rcvd.code} {json.loads(closed.rcvd.reason)['reason']}"

    async def _next(self) -> dict:
        return json.loads(await asyncio.wait_for(self.socket.recv(), WAIT_S))


class Mqtt:
    """Publishes and reads by MQTT 5."""

    def __init__(self, mqtt) -> None:
        self.mqtt = mqtt
        self.packet_id = 0

    async def publish(self, payload: bytes) -> str:
        self.packet_id += 1
        self.mqtt.publish("trades", payload, 1, packet_id=self.packet_id)
        answer = await self.mqtt.answer()
        if answer.type is Type.DISCONNECT:
            return "closed"
        return "rate-limited" if answer.v5.reason_code == 0x97 else ""

    async def subscribe(self) -> None:
        await self.mqtt.subscribe(("trades", 0))

    async def next(self) -> str:
        answer = await self.mqtt.answer()
        return "event" if answer.type is Type.PUBLISH else str(answer.v5.reason_code)

    async def is_served(self) -> bool:
        return await self.mqtt.is_served()

    async def ends(self) -> str:
        while (answer := await self.mqtt.answer()).type is not Type.DISCONNECT:
            pass
        return "4429 rate-limited" if answer.v5.reason_code == 0x96 else "4429 quota-exceeded"


class Sse:
    """Reads by ``/v1/events``."""

    def __init__(self, reader) -> None:
        self.reader = reader
        self.heartbeats = 0

    async def subscribe(self) -> None:
        return

    async def next(self) -> str:
        while True:
            async with asyncio.timeout(WAIT_S):
                event = await self.reader.readuntil(b"\n\n")
            if b"event: error" in event:
                return json.loads(event.split(b"data: ")[1].split(b"\n")[0])["reason"]
            if b"data: " in event:
                return "event"
            self.heartbeats += b":\n\n" in event

    async def is_served(self) -> bool:
        seen = self.heartbeats
        async with asyncio.timeout(WAIT_S):
            while not (await self.reader.readuntil(b"\n\n")).endswith(b":\n\n"):
                pass
        return self.heartbeats >= seen

    async def ends(self) -> str:
        body = await asyncio.wait_for(self.reader.readuntil(b"0\r\n\r\n"), WAIT_S)
        assert b"retry: " in body
        return "4429 " + json.loads(body.split(b"event: error\ndata: ")[1].split(b"\n")[0])["reason"]


@asynccontextmanager
async def opened(plane, protocol: str):
    if protocol == "rest":
        yield Rest(plane)
    elif protocol == "stream":
        async with socket_of(plane) as socket:
            await socket.recv()
            yield Stream(socket)
    elif protocol == "mqtt":
        async with client(plane, V5) as mqtt:
            await mqtt.connect(plane.key.text)
            yield Mqtt(mqtt)
    else:
        _, _, reader, writer = await http(plane, "GET", "/v1/events?channel=trades")
        await reader.readuntil(b"retry: 2000\n\n")
        yield Sse(reader)
        writer.close()


async def published(plane, count: int) -> None:
    """Publish without a limit, as another consumer does."""
    found, _ = plane.snapshot.channel("trades")
    for _ in range(count):
        await plane.log.publish(found, "trades", PAYLOAD, {"content-type": "application/json"})


@PUBLISHERS
async def test_what_is_published_beyond_a_limit_is_refused_in_band(plane, protocol):
    limited(plane, "bytes_in", 1000)
    async with opened(plane, protocol) as publisher:
        assert [await publisher.publish(PAYLOAD) for _ in range(4)] == ["", "", "", "rate-limited"]
        assert await publisher.publish(b'"' + b"x" * 98 + b'"') == "", "what is left can be used"
        assert left(plane) == 0
        if protocol != "rest":
            assert await publisher.is_served()


@pytest.mark.parametrize("protocol", ["stream", "mqtt"])
async def test_a_publisher_is_closed_by_a_limit_that_says_so(plane, protocol):
    limited(plane, "bytes_in", 500, exceed="close")
    async with opened(plane, protocol) as publisher:
        assert await publisher.publish(PAYLOAD) == ""
        if protocol == "mqtt":
            assert await publisher.publish(PAYLOAD) == "closed"
        else:
            assert await publisher.publish(PAYLOAD) == "rate-limited"
            assert await publisher.ends() == "4429 rate-limited"


@PUBLISHERS
async def test_a_publisher_is_delayed_and_loses_nothing(plane, protocol):
    limited(plane, "bytes_in", 3000, 1, burst=600, exceed="delay")
    async with opened(plane, protocol) as publisher:
        began_at = time.monotonic()
        assert [await publisher.publish(PAYLOAD) for _ in range(8)] == [""] * 8
        assert time.monotonic() - began_at >= (8 * 300 - 600) / 3000 - 0.01


@READERS
async def test_events_beyond_a_limit_are_held_back_told_once_and_not_lost(plane, protocol):
    limited(plane, "bytes_out", 1000, 1)
    async with opened(plane, protocol) as reader:
        await reader.subscribe()
        began_at = time.monotonic()
        await published(plane, 8)
        heard = []
        while heard.count("event") < 8:
            heard.append(await reader.next())
        assert time.monotonic() - began_at >= (8 * 300 - 1000) / 1000 - 0.01
        assert heard[:3] == ["event"] * 3
        if protocol != "mqtt":
            assert heard[3] == "rate-limited"
        assert await reader.is_served()


@READERS
@pytest.mark.parametrize(("per", "exceed", "reason"), [
    (HOURS, "close", "rate-limited"), ("month", "reject", "quota-exceeded"), ("month", "close", "quota-exceeded"),
])  # fmt: skip
async def test_a_reader_is_closed_by_a_limit_that_says_so_and_by_a_quota(plane, protocol, per, exceed, reason):
    limited(plane, "bytes_out", 700, per, exceed=exceed)
    async with opened(plane, protocol) as reader:
        await reader.subscribe()
        await published(plane, 3)
        assert [await reader.next() for _ in range(2)] == ["event"] * 2
        assert await reader.ends() == f"4429 {reason}"
        assert left(plane) == 100


@READERS
async def test_a_reader_is_delayed_and_loses_nothing(plane, protocol):
    limited(plane, "bytes_out", 3000, 1, burst=600, exceed="delay")
    async with opened(plane, protocol) as reader:
        await reader.subscribe()
        began_at = time.monotonic()
        await published(plane, 8)
        assert [await reader.next() for _ in range(8)] == ["event"] * 8
        assert time.monotonic() - began_at >= (8 * 300 - 600) / 3000 - 0.01


@READERS
async def test_an_event_larger_than_the_bucket_is_delivered_and_owed(plane, protocol):
    limited(plane, "bytes_out", 100)
    async with opened(plane, protocol) as reader:
        await reader.subscribe()
        await published(plane, 1)
        assert await reader.next() == "event"
        assert left(plane) == 0
        assert await reader.is_served()


@READERS
async def test_heartbeats_and_control_frames_cost_nothing(plane, protocol):
    plane.change_tier([
        {"metric": metric, "amount": 1, "per": HOURS, "exceed": "close"}
        for metric in ("bytes_in", "bytes_out", "messages_in", "messages_out")
    ])  # fmt: skip
    async with opened(plane, protocol) as reader:
        await reader.subscribe()
        for _ in range(5):
            assert await reader.is_served()
        facts = plane.limiter.left(plane.snapshot.principal(plane.key.id))
        assert [fact["remaining"] for fact in facts] == [1, 1, 1, 1]


@READERS
async def test_an_event_without_payload_is_a_message_too(plane, protocol):
    limited(plane, "messages_out", 2)
    async with opened(plane, protocol) as reader:
        await reader.subscribe()
        found, _ = plane.snapshot.channel("trades")
        await plane.log.publish(found, "trades", b"", {"content-type": "text/plain"})
        assert await reader.next() == "event"
        assert left(plane) == 1


async def test_history_costs_the_bytes_of_its_events(plane):
    await published(plane, 5)
    limited(plane, "bytes_out", 1000)
    _, _, reader, writer = await http(plane, "GET", "/v1/channels/trades/events?after=0", connection="close")
    body = json.loads(await asyncio.wait_for(reader.read(), WAIT_S))
    assert len(body["results"]) == 3
    assert body["next"]
    assert left(plane) == 100
    writer.close()
