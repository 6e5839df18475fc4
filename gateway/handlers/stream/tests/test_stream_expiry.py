"""Events on ``/v1/stream`` that expire before they are sent."""

import time
from datetime import UTC, datetime

from gateway.handlers.stream.tests.stream_client import connected, send
from gateway.log.event import rfc3339
from gateway.tests.clock import HOUR_S, Clock
from gateway.tests.http_plane import eventually

A_WHILE_S = HOUR_S / 2


def expiring(seconds=A_WHILE_S):
    return {"expirytime": rfc3339(datetime.fromtimestamp(time.time() + seconds, UTC))}


async def test_an_event_is_delivered_until_it_expires_and_says_when_as_a_cloudevent(plane, monkeypatch):
    clock = Clock(monkeypatch)
    attributes = expiring()
    async with connected(plane, subprotocols=("cloudevents.json",)) as wire:
        wire.say({"type": "subscribe", "channel": "trades"})
        await wire.heard("subscribed")
        await send(plane, attributes=attributes)
        assert (await wire.heard())["expirytime"] == attributes["expirytime"]
    clock.jump(HOUR_S)
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades", "from": "earliest"})
        await wire.heard("subscribed")
        last = await send(plane)
        assert (await wire.heard("event"))["id"] == last


async def test_an_event_that_expires_in_the_queue_of_a_slow_reader_is_not_sent(plane, monkeypatch):
    clock = Clock(monkeypatch)
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "trades"})
        await wire.heard("subscribed")
        wire.is_reading.clear()
        await send(plane, data=b"0")
        await eventually(lambda: wire.call.connection.messages_out == 1)
        ids = [await send(plane, data=b"1", attributes=expiring()), await send(plane, data=b"2")]
        await eventually(lambda: wire.call.connection.readings()[0]["last_id"] == ids[1])
        clock.jump(HOUR_S)
        wire.is_reading.set()
        assert (await wire.heard("event"))["data"] == 0
        assert (await wire.heard("event"))["id"] == ids[1]


async def test_an_event_that_expires_while_it_is_conflated_is_not_delivered(plane, monkeypatch):
    clock = Clock(monkeypatch)
    async with connected(plane) as wire:
        wire.say({"type": "subscribe", "channel": "sensors/{id}/t", "conflate": "1s"})
        await wire.heard("subscribed")
        await send(plane, "sensors/1/t")
        await wire.heard("event")
        await send(plane, "sensors/1/t", b"2", attributes=expiring())
        last = await send(plane, "sensors/2/t", b"3")
        clock.jump(HOUR_S)
        assert (await wire.heard("event"))["id"] == last
