"""Subscriptions of MQTT 5 that begin at a position of the log."""

import json

import pytest

from gateway.channels.publication import Publication
from gateway.log.streams import delete_stream, ensure_stream
from gateway.protocol import Protocol
from gateway.tests.event_plane import channel
from gateway.tests.mqtt_client import client
from gateway.tests.mqtt_plane import mqtt_plane
from gateway.wire.mqtt.packets import V5, Type
from gateway.wire.mqtt.session import IN_FLIGHT_MAX

CHANNELS = [channel("trades"), channel("market/{symbol}")]


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with mqtt_plane(nats_server.url, tmp_path, CHANNELS) as plane:
        yield plane


async def published(plane, address, data=b"1"):
    """Publish by another door; give the id."""
    return (await plane.publisher.publish(plane.call(Protocol.HTTP), Publication(address, data))).sequence


async def test_mqtt_5_may_begin_at_a_position(plane):
    ids = [await published(plane, "market/A", b"%d" % number) for number in range(5)]
    await published(plane, "market/B", b"9")
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        assert await mqtt.subscribe(("market/A", 1), user=[("from", str(ids[1]))]) == [1]
        await published(plane, "market/A", b"5")
        events = [(await mqtt.answer(Type.PUBLISH)).v5 for _ in range(4)]
        assert [event.payload for event in events] == [b"2", b"3", b"4", b"5"]
        assert dict(events[0].user_properties)["id"] == str(ids[2])
        assert await mqtt.hears_nothing()


async def test_a_wildcard_may_begin_at_a_position_of_the_one_channel_that_it_meets(plane):
    await published(plane, "market/A", b"1")
    await published(plane, "market/B", b"2")
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        assert await mqtt.subscribe(("market/+", 0), user=[("from", "earliest")]) == [0]
        assert [(await mqtt.answer(Type.PUBLISH)).v5.payload for _ in range(2)] == [b"1", b"2"]
        assert await mqtt.subscribe(("#", 0), user=[("from", "earliest")]) == [0x83]
        assert await mqtt.subscribe(("market/A", 0), user=[("from", "yesterday")]) == [0x83]


async def test_a_wildcard_that_began_at_a_position_includes_channels_that_are_created_later(plane):
    narrow = channel("market/B")
    await delete_stream(plane.js, narrow["stream"])
    await published(plane, "market/A", b"1")
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        assert await mqtt.subscribe(("market/+", 0), user=[("from", "earliest")]) == [0]
        assert (await mqtt.answer(Type.PUBLISH)).v5.payload == b"1"
        await ensure_stream(plane.js, narrow)
        plane.snapshot.apply([("channel", "market/B", narrow)])
        for address, data in (("market/B", b"2"), ("market/A", b"3")):
            await published(plane, address, data)
            event = (await mqtt.answer(Type.PUBLISH)).v5
            assert (event.topic, event.payload) == (address, data)
        assert await mqtt.hears_nothing()


async def test_expired_ids_are_reported_with_the_next_event(plane):
    first = await published(plane, "trades", b"1")
    await plane.js.purge_stream(CHANNELS[0]["stream"])
    last = await published(plane, "trades", b"2")
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        await mqtt.subscribe(("trades", 0), user=[("from", str(first - 1))])
        reported = dict((await mqtt.answer(Type.PUBLISH)).v5.user_properties)
        assert json.loads(reported["gap"]) == {"from": str(first - 1), "to": str(last), "cause": "retention"}


async def test_stored_events_reach_a_slow_reader_as_fast_as_it_acknowledges(plane):
    most = 3 * IN_FLIGHT_MAX
    for number in range(most):
        await published(plane, "trades", b"%d" % number)
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text, properties={"receive_maximum": 10})
        await mqtt.subscribe(("trades", 1), user=[("from", "earliest")])
        for number in range(most):
            answer = await mqtt.answer(Type.PUBLISH)
            assert answer.v5.payload == b"%d" % number
            mqtt.ack(Type.PUBACK, answer.packet_id)
