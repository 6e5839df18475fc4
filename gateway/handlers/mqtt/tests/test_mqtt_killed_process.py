"""What a client sends again to another process, once the one that served it was killed: stored once.

Here the other process is another listener, which knows nothing of the connections of the first.
``tests/scenarios/test_mqtt_qos_2.py`` kills real ones.
"""

import asyncio
import contextlib
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from gateway.durable import mqtt_sessions
from gateway.link.nats import MQTT_SESSIONS_STREAM
from gateway.refusals import Refused
from gateway.tests.event_plane import WAIT_S, channel
from gateway.tests.mqtt_client import client
from gateway.tests.mqtt_plane import another_listener, mqtt_plane, stored
from gateway.wire.mqtt.packets import V5, V311, Type
from gateway.wire.mqtt.uses import USES_MAX

NAMED = {"user": [("ce-id", "order-7"), ("ce-source", "/till")]}
VERSIONS = pytest.mark.parametrize("version", [V311, V5])


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with mqtt_plane(nats_server.url, tmp_path, [channel("trades"), channel("orders")]) as plane:
        await plane.js.purge_stream(MQTT_SESSIONS_STREAM)
        yield plane


@pytest.fixture
async def other(plane):
    """Another process."""
    async with another_listener(plane) as port:
        yield SimpleNamespace(mqtt_port=port)


@asynccontextmanager
async def till(at, plane, version=V311, key=None, *, is_clean=False, client_id="till", expiry_s=3600):
    """Connect the same client to a process."""
    async with client(at, version) as mqtt:
        properties = {"session_expiry": expiry_s} if version == V5 and expiry_s else None
        await mqtt.connect((key or plane.key).text, client_id=client_id, is_clean=is_clean, properties=properties)
        yield mqtt


async def publish(mqtt, payload, packet_id=5, topic="trades", **more):
    """Publish at QoS 2 up to PUBREC."""
    mqtt.publish(topic, payload, 2, packet_id=packet_id, **more)
    answer = await mqtt.answer(Type.PUBREC)
    assert answer.packet_id == packet_id
    return answer


async def release(mqtt, packet_id=5):
    mqtt.ack(Type.PUBREL, packet_id)
    answer = await mqtt.answer(Type.PUBCOMP)
    assert answer.packet_id == packet_id
    return answer


async def exchange(mqtt, payload, packet_id=5, **more):
    await publish(mqtt, payload, packet_id, **more)
    await release(mqtt, packet_id)


async def replies(log):
    """Return once the log replies again."""
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(Refused):
                return await log.require_reply()
            await asyncio.sleep(0.02)


async def data_of(plane, address="trades"):
    return [event.data for event in await stored(plane, address)]


@VERSIONS
async def test_a_publish_that_is_sent_again_to_another_process_is_stored_once(plane, other, version):
    async with till(plane, plane, version) as mqtt:
        await publish(mqtt, b"1")
    async with till(other, plane, version) as mqtt:
        await exchange(mqtt, b"1", is_duplicate=True)
        await exchange(mqtt, b"1")
    assert await data_of(plane) == [b"1", b"1"]


@VERSIONS
async def test_a_release_that_another_process_received_ends_the_use_of_its_packet_id(plane, other, version):
    async with till(plane, plane, version) as mqtt:
        await publish(mqtt, b"1")
    async with till(other, plane, version) as mqtt:
        assert (await release(mqtt)).content[2:] in (b"", b"\x00", b"\x00\x00")  # not: packet id not found
        await publish(mqtt, b"1")
    async with till(plane, plane, version) as mqtt:
        await exchange(mqtt, b"1", is_duplicate=True)
    assert await data_of(plane) == [b"1", b"1"]


async def test_what_is_released_is_known_before_its_completion_is_sent(plane, other):
    async with till(plane, plane) as mqtt:
        await exchange(mqtt, b"1")
    async with till(other, plane) as mqtt:
        # The PUBLISH itself never arrived at the first process: marked as a duplicate, it is an event like any other.
        await publish(mqtt, b"1", is_duplicate=True)
    assert await data_of(plane) == [b"1", b"1"]


async def test_many_publishes_in_flight_are_each_stored_once(plane, other):
    async with till(plane, plane) as mqtt:
        for packet_id in range(1, 51):
            mqtt.publish("trades", b"%d" % packet_id, 2, packet_id=packet_id)
        for _ in range(50):
            await mqtt.answer(Type.PUBREC)
        for packet_id in range(1, 26):
            mqtt.ack(Type.PUBREL, packet_id)
        assert [(await mqtt.answer(Type.PUBCOMP)).packet_id for _ in range(25)] == [*range(1, 26)]
    async with till(other, plane) as mqtt:
        for packet_id in range(26, 51):
            mqtt.publish("trades", b"%d" % packet_id, 2, packet_id=packet_id, is_duplicate=True)
        for packet_id in range(1, 26):
            mqtt.publish("trades", b"%d" % (50 + packet_id), 2, packet_id=packet_id)
        for _ in range(50):
            await mqtt.answer(Type.PUBREC)
    assert await data_of(plane) == [b"%d" % number for number in range(1, 76)]


async def test_more_releases_than_are_counted_confuse_no_packet_ids(plane, other):
    async with till(plane, plane) as mqtt:
        await publish(mqtt, b'"held"', packet_id=9)
        for packet_id in range(10, 12 + USES_MAX):
            await exchange(mqtt, b"1", packet_id)
    async with till(other, plane) as mqtt:
        await exchange(mqtt, b'"held"', packet_id=9, is_duplicate=True)
        await exchange(mqtt, b"1", packet_id=10)
    found, _ = plane.snapshot.channel("trades")
    assert (await plane.log.extent(found)).last - (await plane.log.first(found)) + 1 == 1 + USES_MAX + 2 + 1


async def test_another_event_under_an_id_that_was_not_released_is_stored(plane, other):
    """A client that has lost its state begins anew."""
    async with till(plane, plane) as mqtt:
        await publish(mqtt, b"1")
    async with till(other, plane) as mqtt:
        await publish(mqtt, b"2")
    async with till(plane, plane) as mqtt:
        await exchange(mqtt, b"2", is_duplicate=True)
    assert await data_of(plane) == [b"1", b"2"]


@VERSIONS
async def test_a_publish_that_is_sent_again_without_the_mark_of_a_duplicate_is_stored_once(plane, other, version):
    """The id alone counts until it is released (MQTT-4.3.3-2); MQTT.js 5 never sets the mark."""
    async with till(plane, plane, version) as mqtt:
        await publish(mqtt, b"1")
    async with till(other, plane, version) as mqtt:
        await exchange(mqtt, b"1")
        await exchange(mqtt, b"1")
    assert await data_of(plane) == [b"1", b"1"]


async def test_another_event_marked_as_a_duplicate_is_stored(plane, other):
    async with till(plane, plane) as mqtt:
        await publish(mqtt, b"1")
    async with till(other, plane) as mqtt:
        await publish(mqtt, b"2", is_duplicate=True)
        await publish(mqtt, b"3", packet_id=6)
        await publish(mqtt, b"1", packet_id=7, topic="orders")
    assert (await data_of(plane), await data_of(plane, "orders")) == ([b"1", b"2", b"3"], [b"1"])


@VERSIONS
async def test_a_clean_start_forgets_the_session(plane, other, version):
    async with till(plane, plane, version) as mqtt:
        await publish(mqtt, b"1")
    async with till(other, plane, version, is_clean=True, expiry_s=0) as mqtt:
        await publish(mqtt, b"1")
    async with till(plane, plane, version) as mqtt:
        await publish(mqtt, b"1", is_duplicate=True)
    assert await data_of(plane) == [b"1", b"1", b"1"]


async def test_a_clean_start_with_a_lasting_session_begins_another_one(plane, other):
    async with till(plane, plane, V5) as mqtt:
        await publish(mqtt, b"1")
    async with till(other, plane, V5, is_clean=True) as mqtt:
        await publish(mqtt, b"1")
    async with till(plane, plane, V5, expiry_s=0) as mqtt:
        await publish(mqtt, b"1", is_duplicate=True)
    assert await data_of(plane) == [b"1", b"1"]


async def test_sessions_of_other_consumers_and_clients_are_others(plane, other):
    async with till(plane, plane) as mqtt:
        await publish(mqtt, b"1")
    async with till(other, plane, key=plane.other_key) as mqtt:
        await exchange(mqtt, b"1", is_duplicate=True)
    async with till(other, plane, client_id="another") as mqtt:
        await exchange(mqtt, b"1", is_duplicate=True)
    async with till(other, plane) as mqtt:
        await publish(mqtt, b"1", is_duplicate=True)
    assert await data_of(plane) == [b"1", b"1", b"1"]


async def test_a_connection_that_was_taken_over_elsewhere_ends_and_changes_nothing(plane, other):
    async with till(plane, plane, V5) as older, till(other, plane, V5) as newer:
        await publish(older, b"1")
        await exchange(newer, b"1", is_duplicate=True)
        older.ack(Type.PUBREL, 5)
        assert (await older.ends())[:3:2] == b"\xe0\x8e"
        await publish(newer, b"1")
    async with till(plane, plane, V5) as mqtt:
        await publish(mqtt, b"1", is_duplicate=True)
    assert await data_of(plane) == [b"1", b"1"]


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_session_without_qos_2_costs_the_store_nothing(plane, qos):
    async with till(plane, plane, V5) as mqtt:
        mqtt.publish("trades", b"1", qos, packet_id=1)
        assert await mqtt.is_served() or qos
    assert (await plane.js.stream_info(MQTT_SESSIONS_STREAM)).state.messages == 0


async def test_releases_that_arrive_together_share_their_writes(plane):
    async with till(plane, plane) as mqtt:
        for packet_id in range(1, 101):
            mqtt.publish("trades", b"1", 2, packet_id=packet_id)
        for _ in range(100):
            await mqtt.answer(Type.PUBREC)
        before = (await plane.js.stream_info(MQTT_SESSIONS_STREAM)).state.last_seq
        for packet_id in range(1, 101):
            mqtt.ack(Type.PUBREL, packet_id)
        for packet_id in range(1, 101):
            assert (await mqtt.answer(Type.PUBCOMP)).packet_id == packet_id
        assert (await plane.js.stream_info(MQTT_SESSIONS_STREAM)).state.last_seq - before <= 20


async def test_a_consumer_has_so_many_sessions_and_a_further_one_replaces_its_oldest(plane, monkeypatch):
    monkeypatch.setattr(mqtt_sessions, "SESSIONS_MAX", 3)
    async with till(plane, plane, key=plane.other_key) as mqtt:
        await publish(mqtt, b"1")
    for name in "abcd":
        async with till(plane, plane, client_id=name) as mqtt:
            await publish(mqtt, b"1")
    assert (await plane.js.stream_info(MQTT_SESSIONS_STREAM)).state.messages == 4
    async with till(plane, plane, client_id="b") as mqtt:
        await publish(mqtt, b"1", is_duplicate=True)
    async with till(plane, plane, key=plane.other_key) as mqtt:
        await publish(mqtt, b"1", is_duplicate=True)
    assert await data_of(plane) == [b"1"] * 5


@VERSIONS
async def test_while_the_log_is_away_a_release_is_not_completed_and_nothing_is_lost(plane, nats_server, version):
    async with till(plane, plane, version) as mqtt:
        await publish(mqtt, b"1")
        nats_server.freeze()
        try:
            mqtt.ack(Type.PUBREL, 5)
            assert (await mqtt.ends())[:1] == (b"\xe0" if version == V5 else b"")
        finally:
            nats_server.thaw()
    await replies(plane.log)
    async with till(plane, plane, version) as mqtt:
        await release(mqtt)
        await publish(mqtt, b"1")
    assert await data_of(plane) == [b"1", b"1"]


@pytest.mark.parametrize("is_duplicate", [False, True])
async def test_a_publish_that_may_be_stored_gets_no_negative_answer(plane, nats_server, is_duplicate):
    """A client of MQTT 5 that got one would publish its event once more, under another packet id."""
    async with till(plane, plane, V5) as mqtt:
        await exchange(mqtt, b"1", packet_id=4)
        nats_server.freeze()
        try:
            mqtt.publish("trades", b"2", 2, packet_id=5, is_duplicate=is_duplicate)
            assert (await mqtt.ends())[:1] == b"\xe0"
        finally:
            nats_server.thaw()
    await replies(plane.log)
    async with till(plane, plane, V5) as mqtt:
        await exchange(mqtt, b"2", is_duplicate=True)
    assert await data_of(plane) == [b"1", b"2"]


async def test_a_repeated_publish_is_delayed_by_a_limit_and_not_refused(plane, other):
    plane.change_tier([{"metric": "messages_in", "amount": 20, "burst": 1, "per": 10, "scope": "connection"}])
    async with till(plane, plane, V5) as mqtt:
        await publish(mqtt, b"1")
    async with till(other, plane, V5) as mqtt:
        await publish(mqtt, b"2", packet_id=6)
        answer = await publish(mqtt, b"1", is_duplicate=True)
        assert answer.content[2:] in (b"", b"\x00", b"\x00\x00")
    assert await data_of(plane) == [b"1", b"2"]


@pytest.mark.parametrize("version", [V5])
async def test_an_event_with_an_id_is_stored_once_whatever_its_session(plane, other, version):
    for at in (plane, other):
        async with till(at, plane, version, is_clean=True, expiry_s=0) as mqtt:
            await publish(mqtt, b"1", properties=NAMED)
    assert await data_of(plane) == [b"1"]


async def test_a_retained_publish_that_is_sent_again_does_not_replace_a_later_one(plane, other):
    async with till(plane, plane) as mqtt:
        await publish(mqtt, b"1", retain=True)
        mqtt.publish("trades", b"2", 1, packet_id=6, retain=True)
        await mqtt.answer(Type.PUBACK)
    async with till(other, plane) as mqtt:
        await publish(mqtt, b"1", is_duplicate=True, retain=True)
        await mqtt.subscribe(("trades", 0))
        assert (await mqtt.answer(Type.PUBLISH)).topic_and_payload == ("trades", b"2")


async def test_many_clients_at_once_have_their_own_sessions(plane, other):
    async def one(name):
        async with till(plane, plane, client_id=name) as mqtt:
            await publish(mqtt, name.encode())
        async with till(other, plane, client_id=name) as mqtt:
            await exchange(mqtt, name.encode(), is_duplicate=True)

    await asyncio.gather(*(one(f'"{number}"') for number in range(20)))
    assert sorted(await data_of(plane)) == sorted(f'"{number}"'.encode() for number in range(20))
