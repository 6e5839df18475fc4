"""The Message Expiry Interval of MQTT 5, through real sockets into a real log."""

import time
from datetime import UTC, datetime

import pytest

from gateway.link.nats import RETAINED_STREAM
from gateway.log.event import rfc3339
from gateway.tests.clock import HOUR_S, Clock
from gateway.tests.event_plane import channel
from gateway.tests.mqtt_client import client
from gateway.tests.mqtt_plane import mqtt_plane
from gateway.wire.mqtt.packets import V5, V311, Type

INTERVAL_S = 600
EARLIEST = [("from", "earliest")]


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with mqtt_plane(nats_server.url, tmp_path, [channel("lamps/{id}")]) as plane:
        await plane.js.purge_stream(RETAINED_STREAM)
        yield plane


async def publish(mqtt, payload=b"1", interval_s=INTERVAL_S, *, retain=False, user=()):
    """Publish an event that expires; return the reason code of its PUBACK."""
    properties = {"message_expiry": interval_s, "user": list(user)}
    mqtt.publish("lamps/1", payload, 1, packet_id=9, retain=retain, properties=properties)
    answer = await mqtt.answer(Type.PUBACK)
    return answer.content[2] if len(answer.content) > 2 else 0


async def heard(mqtt):
    """Return the payload of the next event, and its remaining interval."""
    event = (await mqtt.answer(Type.PUBLISH)).v5
    return event.payload, event.message_expiry_interval


@pytest.mark.parametrize("qos", [0, 1])
async def test_the_interval_that_is_left_is_sent_and_nothing_once_it_is_over(plane, monkeypatch, qos):
    """MQTT 5, 3.3.2-5 and 3.3.2-6: mochi-mqtt/server#126, BSD-Team/FlashMQ#122."""
    clock = Clock(monkeypatch)
    async with client(plane, V5) as publisher, client(plane, V5) as live:
        await publisher.connect(plane.key.text)
        await live.connect(plane.key.text)
        await live.subscribe(("lamps/+", qos))
        assert await publish(publisher, retain=True) == 0
        assert await heard(live) == (b"1", INTERVAL_S)
        clock.jump(100)
        for user in (None, EARLIEST):  # retained, and stored
            async with client(plane, V5) as mqtt:
                await mqtt.connect(plane.key.text)
                await mqtt.subscribe(("lamps/1", qos), user=user)
                assert await heard(mqtt) == (b"1", INTERVAL_S - 100)
        clock.jump(INTERVAL_S)
        for user in (None, EARLIEST):
            async with client(plane, V5) as mqtt:
                await mqtt.connect(plane.key.text)
                await mqtt.subscribe(("lamps/1", qos), user=user)
                publisher.publish("lamps/1", b"2", 1, packet_id=10)
                await publisher.answer(Type.PUBACK)
                assert await heard(mqtt) == (b"2", None)


async def test_an_event_that_waits_for_acknowledgements_expires_meanwhile(plane, monkeypatch):
    clock = Clock(monkeypatch)
    async with client(plane, V5) as publisher, client(plane, V5) as mqtt:
        await publisher.connect(plane.key.text)
        await mqtt.connect(plane.key.text, properties={"receive_maximum": 1})
        await mqtt.subscribe(("lamps/1", 1))
        for payload, interval_s in ((b"1", INTERVAL_S), (b"2", INTERVAL_S), (b"3", 2 * HOUR_S)):
            await publish(publisher, payload, interval_s)
        first = await mqtt.answer(Type.PUBLISH)
        assert await mqtt.is_served()
        clock.jump(HOUR_S)
        mqtt.ack(Type.PUBACK, first.packet_id)
        assert await heard(mqtt) == (b"3", HOUR_S)


async def test_the_earlier_of_two_expiries_counts(plane, monkeypatch):
    Clock(monkeypatch)
    at = rfc3339(datetime.fromtimestamp(time.time() + 60, UTC))
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        await mqtt.subscribe(("lamps/1", 0))
        mqtt.publish("lamps/1", b"1", properties={"message_expiry": 600, "user": [("ce-expirytime", at)]})
        mqtt.publish("lamps/1", b"2", properties={"message_expiry": 6, "user": [("ce-expirytime", at)]})
        assert [await heard(mqtt), await heard(mqtt)] == [(b"1", 60), (b"2", 6)]


@pytest.mark.parametrize(("interval_s", "left_s"), [(0, 1), (1, 1), (2**32 - 1, 2**32 - 1)])
async def test_every_interval_that_mqtt_knows_is_taken(plane, interval_s, left_s):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        await mqtt.subscribe(("lamps/1", 0))
        mqtt.publish("lamps/1", b"1", properties={"message_expiry": interval_s})
        assert await heard(mqtt) == (b"1", left_s)


@pytest.mark.parametrize("expiry", ["2020-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "-1", "soon"])
async def test_an_attribute_that_is_no_coming_instant_is_refused(plane, expiry):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        assert await publish(mqtt, user=[("ce-expirytime", expiry)]) == 0x83


async def test_a_client_of_3_1_1_hears_of_no_interval_but_receives_no_expired_event(plane, monkeypatch):
    clock = Clock(monkeypatch)
    async with client(plane, V5) as publisher, client(plane, V311) as mqtt:
        await publisher.connect(plane.key.text)
        await mqtt.connect(plane.key.text)
        await publish(publisher, retain=True)
        clock.jump(HOUR_S)
        await mqtt.subscribe(("lamps/1", 0))
        publisher.publish("lamps/1", b"2")
        assert (await mqtt.answer(Type.PUBLISH)).topic_and_payload == ("lamps/1", b"2")
