"""How far the subscribers of open connections are said to be."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace

import orjson
import pytest

from gateway.channels.publication import Publication
from gateway.channels.subscriber_lag import Reading
from gateway.handlers import channel as handlers
from gateway.handlers.stream.connection import StreamConnection
from gateway.log.event import from_headers
from gateway.log.hub import EARLIEST
from gateway.protocol import Protocol
from gateway.tests.event_plane import HttpExchange, Wire, channel, running

CHANNELS = [channel("trades"), channel("news")]


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with running(nats_server.url, tmp_path, CHANNELS) as plane:
        yield plane


@asynccontextmanager
async def socket_of(plane):
    wire = Wire()
    wire.call = plane.call(Protocol.WEBSOCKET, peer=wire)
    serving = asyncio.create_task(StreamConnection(plane, wire.call).serve(wire))
    await wire.heard("welcome")
    yield wire
    wire.is_reading.set()
    wire.leave()
    await serving
    plane.connections.closed(wire.call.connection)


async def send(plane, count, address="trades"):
    return [(await plane.publisher.publish(plane.call(), Publication(address, b"1"))).sequence for _ in range(count)]


async def until(look):
    async with asyncio.timeout(20):
        while not (seen := look()):
            await asyncio.sleep(0.01)
    return seen


async def test_a_subscriber_that_keeps_up_is_not_behind(plane):
    async with socket_of(plane) as wire:
        connection = wire.call.connection
        assert connection.readings() == []
        wire.say({"type": "subscribe", "channel": "trades"})
        await wire.heard("subscribed")
        *_, last = await send(plane, 3)
        for _ in range(3):
            await wire.heard("event")
        await until(lambda: connection.readings()[0]["lag"]["events"] == 0)
        assert connection.readings() == [
            {"channel": "trades", "last_id": str(last), "lag": {"events": 0, "seconds": 0.0}}
        ]


async def test_who_does_not_read_is_behind_by_what_waits_for_it(plane):
    async with socket_of(plane) as wire:
        for address in ("trades", "news"):
            wire.say({"type": "subscribe", "channel": address})
            await wire.heard("subscribed")
        wire.is_reading.clear()
        await send(plane, 5)
        readings = await until(lambda: [one for one in wire.call.connection.readings() if one["lag"]["events"] >= 5])
        assert readings[0]["channel"] == "trades"
        await asyncio.sleep(0.15)
        assert wire.call.connection.readings()[0]["lag"]["seconds"] >= 0.1
        wire.is_reading.set()
        await until(lambda: all(one["lag"]["events"] == 0 for one in wire.call.connection.readings()))


def test_lag_in_seconds_counts_from_when_the_log_stored_the_event():
    reading = Reading("trades")
    headers = {"ce-time": "2001-01-01T00:00:00Z", "Nats-Time-Stamp": "2026-01-01T00:00:00.5Z", "Nats-Sequence": "7"}
    reading.last = from_headers("trades", "trades", headers, b"1")
    reading.listener = SimpleNamespace(head=9)
    now = datetime(2026, 1, 1, 0, 0, 3, tzinfo=UTC).timestamp()
    reported = reading.report(SimpleNamespace(waits_s=0.0, waiting=0), now)
    assert reported["lag"] == {"events": 2, "seconds": 2.5}


@pytest.mark.parametrize("is_live", [True, False])
async def test_live_and_stored_events_carry_when_the_log_stored_them(plane, is_live):
    trades, _ = plane.snapshot.channel("trades")
    events = []
    if is_live:
        await plane.hub.subscribe_from(trades, trades.subject, None, events.append)
    began_at = time.time()
    call = plane.call()
    await plane.publisher.publish(call, Publication("trades", b"1", attributes={"time": "2001-01-01T00:00:00Z"}))
    if not is_live:
        await plane.hub.subscribe_from(trades, trades.subject, EARLIEST, events.append)
    await until(lambda: events)
    assert events[-1].time == "2001-01-01T00:00:00Z"
    assert abs(events[-1].stored_at - began_at) < 30


async def test_a_stream_of_events_says_how_far_each_of_its_channels_is(plane):
    exchange = HttpExchange()
    call = plane.call(Protocol.SSE, peer=exchange, query=b"channel=trades&channel=news")
    serving = asyncio.create_task(handlers.events(plane, call))
    await until(lambda: call.connection is not None and exchange.status == 200)
    (last,) = await send(plane, 1)
    await exchange.until(b"data: 1")
    body = await until(
        lambda: [one for one in call.connection.readings() if one["last_id"] == str(last) and not one["lag"]["events"]]
    )
    assert body[0]["channel"] == "trades"
    exchange.leave()
    await serving


async def test_usage_tells_it_once_for_as_long_as_nothing_changes(plane):
    async with socket_of(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades"})
        await wire.heard("subscribed")
        (last,) = await send(plane, 1)
        await wire.heard("event")
        await until(lambda: wire.call.connection.readings()[0]["lag"]["events"] == 0)

        def flowing():
            plane.usage._sequence = 0
            plane.usage._gather()
            return [record for batch in plane.usage._batches._waiting for record in orjson.loads(batch.data)["flowing"]]

        (record,) = flowing()
        assert record["id"] == wire.call.connection.id
        assert record["subscriptions"][0]["last_id"] == str(last)
        plane.usage._batches._waiting.clear()
        assert flowing() == []
