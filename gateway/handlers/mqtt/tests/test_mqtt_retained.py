"""Retained events of MQTT, through real sockets into a real log."""

import asyncio

import pytest

from gateway.channels.publication import Publication
from gateway.link.nats import RETAINED_STREAM, RETAINED_SUBJECT
from gateway.log.streams import delete_stream, ensure_stream
from gateway.protocol import Protocol
from gateway.tests.event_plane import WAIT_S, channel
from gateway.tests.mqtt_client import client
from gateway.tests.mqtt_plane import mqtt_plane
from gateway.wire.mqtt.packets import V5, V311, Type, Will
from gateway.wire.mqtt.session import IN_FLIGHT_MAX

CHANNELS = [channel("lamps/{id}"), channel("secret/{id}"), channel("doors/{id}", schema={"type": "number"})]
VERSIONS = pytest.mark.parametrize("version", [V311, V5])
AS_PUBLISHED, ONLY_NEW, NEVER = 0x08, 0x10, 0x20


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with mqtt_plane(nats_server.url, tmp_path, CHANNELS) as plane:
        await plane.js.purge_stream(RETAINED_STREAM)
        yield plane


async def retain(mqtt, address, payload=b"1", qos=1):
    mqtt.publish(address, payload, qos, packet_id=9, retain=True)
    answer = await mqtt.answer(Type.PUBACK)
    return answer.content[2] if len(answer.content) > 2 else 0


async def heard(mqtt):
    """Return topic, payload and retain flag of the next event."""
    answer = await mqtt.answer(Type.PUBLISH)
    topic, payload = answer.topic_and_payload if mqtt.version == V311 else (answer.v5.topic, answer.v5.payload)
    return topic, payload, bool(answer.flags & 1)


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1])
async def test_a_new_subscriber_is_given_the_last_retained_event_of_each_address(plane, version, qos):
    async with client(plane, V311) as publisher, client(plane, version) as mqtt:
        await publisher.connect(plane.key.text)
        for address, payload in (("lamps/1", b"1"), ("lamps/2", b"2"), ("lamps/1", b"3")):
            assert await retain(publisher, address, payload) == 0
        publisher.publish("lamps/1", b"4", 1, packet_id=1)
        await publisher.answer(Type.PUBACK)
        await mqtt.connect(plane.other_key.text)
        assert await mqtt.subscribe(("lamps/#", qos)) == [qos]
        assert sorted([await heard(mqtt) for _ in range(2)]) == [("lamps/1", b"3", True), ("lamps/2", b"2", True)]
        assert await mqtt.hears_nothing()


async def test_what_is_live_is_not_flagged_unless_asked_as_published(plane):
    async with client(plane, V5) as publisher, client(plane, V5) as plain, client(plane, V5) as exact:
        for mqtt in (publisher, plain, exact):
            await mqtt.connect(plane.key.text)
        await plain.subscribe(("lamps/1", 0))
        await exact.subscribe(("lamps/1", AS_PUBLISHED))
        await retain(publisher, "lamps/1")
        publisher.publish("lamps/1", b"2")
        assert [await heard(plain) for _ in range(2)] == [("lamps/1", b"1", False), ("lamps/1", b"2", False)]
        assert [await heard(exact) for _ in range(2)] == [("lamps/1", b"1", True), ("lamps/1", b"2", False)]


async def test_an_empty_payload_retains_nothing_any_more_and_is_no_event(plane):
    async with client(plane, V311) as publisher, client(plane, V311) as mqtt:
        await publisher.connect(plane.key.text)
        await retain(publisher, "lamps/1")
        await retain(publisher, "lamps/1", b"")
        await mqtt.connect(plane.key.text)
        await mqtt.subscribe(("lamps/1", 0))
        assert await mqtt.hears_nothing()
    found, _ = plane.snapshot.channel("lamps/1")
    assert len(await plane.log.history(found, "lamps.1", 0, 10)) == 1


async def test_only_what_may_be_read_is_given(plane):
    plane.change_key(scopes=["subscribe:lamps/2"])
    async with client(plane, V311) as publisher, client(plane, V311) as mqtt:
        await publisher.connect(plane.other_key.text)
        for address in ("lamps/1", "lamps/2", "secret/1"):
            await retain(publisher, address)
        await mqtt.connect(plane.key.text)
        await mqtt.subscribe(("#", 0))
        assert await heard(mqtt) == ("lamps/2", b"1", True)
        assert await mqtt.hears_nothing()


async def test_only_what_may_be_published_is_retained_or_cleared(plane):
    plane.change_key(scopes=["publish:lamps/1"])
    async with client(plane, V5) as other, client(plane, V5) as mqtt:
        await other.connect(plane.other_key.text)
        await retain(other, "secret/1")
        await mqtt.connect(plane.key.text)
        assert await retain(mqtt, "secret/1", b"") == 0x87
        assert await retain(mqtt, "secret/1", b"2") == 0x87
        await other.subscribe(("secret/1", 0))
        assert await heard(other) == ("secret/1", b"1", True)


async def test_what_is_invalid_is_not_retained(plane):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        assert await retain(mqtt, "doors/1", b'"open"') == 0x83
        await mqtt.subscribe(("doors/1", 0))
        assert await mqtt.hears_nothing()


async def test_what_the_channel_no_longer_keeps_is_not_given(plane):
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text)
        await retain(mqtt, "lamps/1")
        await plane.js.purge_stream(CHANNELS[0]["stream"])
        await mqtt.subscribe(("lamps/1", 0))
        assert await mqtt.hears_nothing()


async def test_retain_handling_is_kept_to(plane):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        await retain(mqtt, "lamps/1")
        await mqtt.subscribe(("lamps/1", NEVER))
        assert await mqtt.hears_nothing()
        await mqtt.subscribe(("lamps/1", ONLY_NEW))
        assert await mqtt.hears_nothing()
        await mqtt.subscribe(("lamps/1", 0))
        assert await heard(mqtt) == ("lamps/1", b"1", True)
        await mqtt.subscribe(("lamps/+", ONLY_NEW))
        assert await heard(mqtt) == ("lamps/1", b"1", True)


async def test_more_than_the_client_takes_at_once_is_given_as_it_acknowledges(plane):
    most = 2 * IN_FLIGHT_MAX + 50
    async with client(plane, V311) as publisher, client(plane, V5) as mqtt:
        await publisher.connect(plane.key.text)
        for number in range(most):
            await retain(publisher, f"lamps/{number}", b"%d" % number)
        await mqtt.connect(plane.key.text, properties={"receive_maximum": 10})
        await mqtt.subscribe(("lamps/+", 1))
        given = set()
        for _ in range(most):
            answer = await mqtt.answer(Type.PUBLISH)
            given.add(answer.v5.topic)
            mqtt.ack(Type.PUBACK, answer.packet_id)
        assert len(given) == most


async def test_a_retained_will_is_sent_to_later_subscribers(plane):
    async with client(plane, V311) as leaving, client(plane, V311) as mqtt:
        await leaving.connect(plane.key.text, will=Will("lamps/1", b'"gone"', 1, True))
        leaving.writer.transport.abort()
        async with asyncio.timeout(WAIT_S):
            while len(plane.connections):
                await asyncio.sleep(0.01)
        await mqtt.connect(plane.key.text)
        await mqtt.subscribe(("lamps/1", 0))
        assert await heard(mqtt) == ("lamps/1", b'"gone"', True)


async def test_another_protocol_reads_a_retained_event_as_any_other(plane):
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text)
        await retain(mqtt, "lamps/1")
        await plane.publisher.publish(plane.call(Protocol.HTTP), Publication("lamps/1", b"2"))
    found, _ = plane.snapshot.channel("lamps/1")
    assert [event.data for event in await plane.log.history(found, "lamps.1", 0, 10)] == [b"1", b"2"]


@pytest.fixture
def limited(plane):
    """Put a route before the listener that lets two publishes through in so many seconds."""

    def limit(seconds):
        options = {"rateLimitBy": "user", "requestsAllowed": 2, "timeWindowMinutes": seconds / 60}
        policy = {"type": "rate-limit", "options": options | {"metric": "messages_in"}}
        route = {"path": "/mqtt", "methods": ["GET"], "handler": {"type": "builtin"}, "policies": [policy]}
        plane.snapshot.apply([("route", "devices", route | {"name": "devices", "protocol": "mqtt"})])

    return limit


async def test_what_clears_a_retained_event_and_a_will_are_publishes_to_the_policies_of_a_route(plane, limited):
    limited(36_000)
    async with client(plane, V5) as mqtt, client(plane, V5) as other:
        await mqtt.connect(plane.key.text)
        assert [await retain(mqtt, "lamps/1", payload) for payload in (b"1", b"", b"")] == [0, 0, 0x97]
        await other.connect(plane.key.text, will=Will("lamps/1", b"2", 1, False))
        other.writer.transport.abort()
        async with asyncio.timeout(WAIT_S):
            while len(plane.connections) > 1:
                await asyncio.sleep(0.01)
    found, _ = plane.snapshot.channel("lamps/1")
    assert [event.data for event in await plane.log.history(found, "lamps.1", 0, 10)] == [b"1"]


async def test_a_rate_limited_client_of_3_1_1_is_delayed_as_it_clears_a_retained_event(plane, limited):
    limited(60)
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text)
        assert [await retain(mqtt, "lamps/1", b"") for _ in range(2)] == [0, 0]
        mqtt.publish("lamps/1", b"", 1, packet_id=9, retain=True)
        (connection,) = plane.connections
        async with asyncio.timeout(WAIT_S):
            while not connection.throttled:
                await asyncio.sleep(0.01)
        assert await mqtt.hears_nothing()
        assert [*plane.connections] == [connection]


async def test_a_retained_event_stays_when_another_channel_owns_its_address(plane):
    narrow = channel("lamps/1")
    await delete_stream(plane.js, narrow["stream"])
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        await retain(mqtt, "lamps/1")
        await ensure_stream(plane.js, narrow)
        plane.snapshot.apply([("channel", "lamps/1", narrow)])
        await mqtt.subscribe(("lamps/1", 0))
        assert await heard(mqtt) == ("lamps/1", b"1", True)


async def test_what_earlier_versions_retained_is_sent(plane):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        mqtt.publish("lamps/1", b"1", 1, packet_id=1)
        await mqtt.answer(Type.PUBACK)
        (event,) = await plane.log.history(plane.snapshot.channel("lamps/1")[0], "lamps.1", 0, 10)
        await plane.log.store(f"{RETAINED_SUBJECT}.lamps.1", b"%d" % event.id)
        await mqtt.subscribe(("lamps/1", 0))
        assert await heard(mqtt) == ("lamps/1", b"1", True)
