"""Publishing over MQTT, through real sockets into a real log."""

import asyncio
import json

import orjson
import pytest

from gateway.link.nats import DEAD_STREAM, DEAD_SUBJECT, read_batch
from gateway.tests.event_plane import WAIT_S, channel
from gateway.tests.mqtt_client import client
from gateway.tests.mqtt_plane import mqtt_plane, stored
from gateway.wire.mqtt.packets import V5, V311, Type
from gateway.wire.mqtt.session import RECEIVE_MAX

TEMPERATURE = {"type": "object", "properties": {"value": {"type": "number"}}, "required": ["value"]}
CHANNELS = [
    channel("trades"),
    channel("anything", content_type="bytes"),
    channel("sensors/{id}", schema=TEMPERATURE),
    channel("letters", schema=TEMPERATURE, on_invalid="dead-letter"),
    channel("web/only", protocols=["http"]),
]
VERSIONS = pytest.mark.parametrize("version", [V311, V5])


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with mqtt_plane(nats_server.url, tmp_path, CHANNELS) as plane:
        yield plane


async def data_of(plane, address):
    return [event.data for event in await stored(plane, address)]


async def dead(plane, address):
    """Return the dead letters of a channel, including those of other tests."""
    found, _ = plane.snapshot.channel(address)
    messages = await read_batch(plane.nats, DEAD_STREAM, f"{DEAD_SUBJECT}.{found.stream}", 1)
    return [orjson.loads(message.data) for message in messages]


def refusals(plane):
    """Count what was refused inside open connections, by cause."""
    (connection,) = plane.connections
    return connection.refusals


@VERSIONS
@pytest.mark.parametrize(("qos", "answer"), [(1, Type.PUBACK), (2, Type.PUBREC)])
async def test_what_is_acknowledged_is_stored(plane, version, qos, answer):
    async with client(plane, version) as mqtt:
        await mqtt.connect(plane.key.text)
        mqtt.publish("trades", b'{"price":1}', qos, packet_id=9)
        assert (await mqtt.answer(answer)).packet_id == 9
        (event,) = await stored(plane, "trades")
        assert (event.data, event.source) == (b'{"price":1}', "/consumers/acme")


@VERSIONS
async def test_what_was_published_before_the_client_left_is_stored_in_its_order(plane, version):
    async with client(plane, version) as mqtt:
        await mqtt.connect(plane.key.text)
        for number in range(100):
            mqtt.publish("trades", b"%d" % number)
        mqtt.write(b"\xe0\x00")
        assert await mqtt.ends() == b""
    assert await data_of(plane, "trades") == [b"%d" % number for number in range(100)]


@VERSIONS
async def test_many_publishes_are_under_way_and_acknowledged_in_their_order(plane, version):
    async with client(plane, version) as mqtt:
        await mqtt.connect(plane.key.text)
        for number in range(1, 501):
            mqtt.publish("trades", b"%d" % number, 1, packet_id=number)
        assert [(await mqtt.answer(Type.PUBACK)).packet_id for _ in range(500)] == [*range(1, 501)]
    assert await data_of(plane, "trades") == [b"%d" % number for number in range(1, 501)]


async def test_publishes_of_every_qos_retained_or_not_are_stored_in_the_order_in_which_they_arrived(plane):
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text, client_id="till", is_clean=False)
        for number in range(60):
            mqtt.publish("trades", b"%d" % number, number % 3, packet_id=number + 1, retain=number % 4 == 0)
        for _ in range(40):
            await mqtt.answer()
    assert await data_of(plane, "trades") == [b"%d" % number for number in range(60)]


@VERSIONS
async def test_a_duplicate_of_qos_2_is_stored_once(plane, version):
    async with client(plane, version) as mqtt:
        await mqtt.connect(plane.key.text)
        mqtt.publish("trades", b"1", 2, packet_id=5)
        await mqtt.answer(Type.PUBREC)
        mqtt.publish("trades", b"1", 2, packet_id=5, is_duplicate=True)
        await mqtt.answer(Type.PUBREC)
        mqtt.ack(Type.PUBREL, 5)
        assert (await mqtt.answer(Type.PUBCOMP)).packet_id == 5
        mqtt.publish("trades", b"2", 2, packet_id=5)
        await mqtt.answer(Type.PUBREC)
    assert await data_of(plane, "trades") == [b"1", b"2"]


@VERSIONS
async def test_a_duplicate_on_a_new_connection_is_stored_once(plane, version):
    async with client(plane, version) as mqtt:
        await mqtt.connect(plane.key.text, client_id="till", is_clean=False)
        mqtt.publish("trades", b"1", 2, packet_id=5)
        while not await data_of(plane, "trades"):
            await asyncio.sleep(0.01)
    async with client(plane, version) as mqtt:
        await mqtt.connect(plane.key.text, client_id="till", is_clean=False)
        mqtt.publish("trades", b"1", 2, packet_id=5, is_duplicate=True)
        await mqtt.answer(Type.PUBREC)
        mqtt.ack(Type.PUBREL, 5)
        await mqtt.answer(Type.PUBCOMP)
        mqtt.publish("trades", b"2", 2, packet_id=5)
        await mqtt.answer(Type.PUBREC)
    async with client(plane, version) as mqtt:
        await mqtt.connect(plane.key.text, client_id="till", is_clean=False)
        mqtt.publish("trades", b"3", 2, packet_id=5)  # the client has begun anew
        await mqtt.answer(Type.PUBREC)
    async with client(plane, version) as mqtt:
        await mqtt.connect(plane.key.text, client_id="till", is_clean=True)
        mqtt.publish("trades", b"4", 2, packet_id=5, is_duplicate=True)
        await mqtt.answer(Type.PUBREC)
    assert await data_of(plane, "trades") == [b"1", b"2", b"3", b"4"]


async def test_a_duplicate_on_the_heels_of_the_first_is_stored_once(plane):
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text)
        for _ in range(5):
            mqtt.publish("trades", b"1", 2, packet_id=5)
        await mqtt.answer(Type.PUBREC)
        mqtt.ack(Type.PUBREL, 5)
        while (await mqtt.answer()).type is Type.PUBREC:
            pass
    assert await data_of(plane, "trades") == [b"1"]


async def test_a_release_of_an_unknown_packet_id_is_answered_with_its_code(plane):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        mqtt.ack(Type.PUBREL, 77)
        assert (await mqtt.answer(Type.PUBCOMP)).v5.reason_code == 0x92


@VERSIONS
async def test_publishes_that_are_never_released_end_the_connection(plane, version):
    async with client(plane, version) as mqtt:
        await mqtt.connect(plane.key.text)
        for number in range(1, RECEIVE_MAX + 2):
            mqtt.publish("trades", b"1", 2, packet_id=number)
        body = await mqtt.ends()
    recs, rest = body[: 4 * RECEIVE_MAX], body[4 * RECEIVE_MAX :]
    assert recs[::4] == b"\x50" * RECEIVE_MAX
    assert rest[:3:2] == (b"\xe0\x93" if version == V5 else b"")


# What is refused


async def test_an_invalid_payload_is_refused_with_its_pointer(plane):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        mqtt.publish("sensors/1", b'{"value":"warm"}', 1, packet_id=3)
        answer = (await mqtt.answer(Type.PUBACK)).v5
        assert (answer.packet_id, answer.reason_code) == (3, 0x83)
        assert "warm" in answer.reason_str
        assert dict(answer.user_properties) == {"reason": "invalid-payload", "pointer": "/value"}
        mqtt.publish("sensors/1", b'{"value":1}', 2, packet_id=4)
        assert (await mqtt.answer(Type.PUBREC)).v5.reason_code == 0
        assert refusals(plane) == {"invalid-payload": 1}
    assert await data_of(plane, "sensors/1") == [b'{"value":1}']


@pytest.mark.parametrize("payload", [b"\xff\xfe", b'"\xed\xa0\x80"'])
async def test_a_payload_of_bad_utf8_has_its_own_code(plane, payload):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        mqtt.publish("trades", payload, 1, packet_id=3)
        assert (await mqtt.answer(Type.PUBACK)).v5.reason_code == 0x99


@pytest.mark.parametrize("payload", [b"", b"{", b"NaN", b"[" * 100_000, b'{"a":1,"a":2}', b"1" * 5000, b"\x00"])
async def test_what_is_no_json_is_refused_and_the_connection_goes_on(plane, payload):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        mqtt.publish("trades", payload, 1, packet_id=3)
        assert (await mqtt.answer(Type.PUBACK)).v5.reason_code == 0x83
        assert await mqtt.is_served()


@pytest.mark.parametrize("address", ["sensors/1", "letters"])
@pytest.mark.parametrize(("qos", "answer"), [(1, Type.PUBACK), (2, Type.PUBREC)])
async def test_an_invalid_payload_of_3_1_1_is_acknowledged_and_kept_in_the_dead_letters(plane, address, qos, answer):
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text)
        before = len(await dead(plane, address))
        mqtt.publish(address, b'{"value":"cold"}', qos, packet_id=3)
        assert (await mqtt.answer(answer)).content == b"\x00\x03"
        assert refusals(plane) == {"invalid-payload": 1}
    letters = (await dead(plane, address))[before:]
    assert [(letter["reason"], letter["protocol"], letter["address"]) for letter in letters] == [
        ("invalid-payload", "mqtt", address)
    ]
    assert letters[0]["event"]["data"] == {"value": "cold"}
    assert await data_of(plane, address) == []


FORBIDDEN = {"secret": 0x87, "web/only": 0x87, "$SYS/broker": 0x87}


@pytest.mark.parametrize("address", FORBIDDEN)
@VERSIONS
async def test_what_may_not_be_published_is_refused_or_ends_the_connection(plane, version, address):
    plane.change_key(scopes=["publish:web/only", "publish:trades"])
    async with client(plane, version) as mqtt, client(plane, version) as other:
        await other.connect(plane.other_key.text)
        await mqtt.connect(plane.key.text)
        mqtt.publish(address, b"1", 1, packet_id=3)
        if version == V5:
            assert (await mqtt.answer(Type.PUBACK)).v5.reason_code == FORBIDDEN[address]
            mqtt.publish("trades", b"1", 1, packet_id=4)
            assert (await mqtt.answer(Type.PUBACK)).v5.reason_code == 0
        else:
            assert await mqtt.ends() == b""
        assert await other.is_served()


@pytest.mark.parametrize("address", ["nowhere", "trades/x", "trades.", "a b", "*", ">", "_apimgmt/usage", "$JS/API"])
async def test_an_address_without_channel_is_refused_and_nothing_reaches_nats(plane, address):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        mqtt.publish(address, b"1", 1, packet_id=3)
        assert (await mqtt.answer(Type.PUBACK)).v5.reason_code in (0x83, 0x90)
        assert await mqtt.is_served()


async def test_a_packet_over_the_limit_ends_the_connection(plane):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        mqtt.publish("trades", b'"' + b"x" * plane.config.mqtt_packet_max_bytes + b'"', 1, packet_id=3)
        assert (await mqtt.ends())[:3:2] == b"\xe0\x95"


async def test_the_largest_packet_is_stored(plane):
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text)
        payload = json.dumps("x" * (plane.config.mqtt_packet_max_bytes - 20)).encode()
        mqtt.publish("trades", payload, 1, packet_id=3)
        await mqtt.answer(Type.PUBACK)
    assert await data_of(plane, "trades") == [payload]


# Limits


async def test_a_rate_limited_publish_of_mqtt_5_is_answered_with_retry_after(plane):
    plane.change_tier([{"metric": "messages_in", "amount": 1, "per": 600, "scope": "connection"}])
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        for packet_id in (1, 2):
            mqtt.publish("trades", b"%d" % packet_id, 1, packet_id=packet_id)
        assert (await mqtt.answer(Type.PUBACK)).v5.reason_code == 0
        answer = (await mqtt.answer(Type.PUBACK)).v5
        assert answer.reason_code == 0x97
        assert 0 < float(dict(answer.user_properties)["retry_after_s"]) <= 600
        assert refusals(plane) == {"rate-limited": 1}
        assert await mqtt.is_served()
    assert await data_of(plane, "trades") == [b"1"]


async def test_a_client_of_3_1_1_is_made_to_wait_and_loses_nothing(plane):
    plane.change_tier([{"metric": "messages_in", "amount": 20, "burst": 1, "per": 1, "scope": "connection"}])
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text)
        for packet_id in range(1, 6):
            mqtt.publish("trades", b"%d" % packet_id, 1, packet_id=packet_id)
        assert [(await mqtt.answer(Type.PUBACK)).packet_id for _ in range(5)] == [1, 2, 3, 4, 5]
        (connection,) = plane.connections
        assert connection.throttled > 0
    assert await data_of(plane, "trades") == [b"1", b"2", b"3", b"4", b"5"]


async def test_a_client_of_3_1_1_that_would_wait_too_long_is_disconnected(plane):
    plane.change_tier([{"metric": "messages_in", "amount": 1, "per": 3600, "scope": "connection"}])
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text)
        for packet_id in (1, 2):
            mqtt.publish("trades", b"1", 1, packet_id=packet_id)
        assert await mqtt.ends() in (b"\x40\x02\x00\x01", b"")
    assert len(await data_of(plane, "trades")) == 1


async def test_a_client_that_a_limit_delays_is_not_idle(plane):
    plane.change_tier([{"metric": "messages_in", "amount": 1, "per": 4, "scope": "connection", "exceed": "delay"}])
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text, keep_alive_s=1)
        for packet_id in (1, 2):
            mqtt.publish("trades", b"1", 1, packet_id=packet_id)
        for packet_id in (1, 2):
            assert (await mqtt.answer(Type.PUBACK)).packet_id == packet_id


# Where the log is away


@VERSIONS
async def test_what_is_not_stored_is_not_acknowledged(plane, nats_server, version):
    async with client(plane, version) as mqtt:
        await mqtt.connect(plane.key.text)
        nats_server.freeze()
        try:
            mqtt.publish("trades", b"1", 1, packet_id=3)
            if version == V5:
                answer = (await mqtt.answer(Type.PUBACK)).v5
                assert (answer.reason_code, dict(answer.user_properties)["reason"]) == (0x80, "overloaded")
            else:
                assert await mqtt.ends() == b""
        finally:
            nats_server.thaw()


# What an event carries


async def test_mqtt_5_carries_attributes_of_cloudevents(plane):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    user = [("ce-type", "temperature"), ("ce-id", "a-1"), ("traceparent", trace), ("tracestate", "a=1"), ("other", "x")]
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        mqtt.publish("trades", b"1", 1, packet_id=3, properties={"user": user})
        await mqtt.answer(Type.PUBACK)
        binary = [("specversion", "1.0"), ("type", "tick"), ("id", "b-1"), ("source", "/things/1")]
        mqtt.publish("trades", b"2", 1, packet_id=3, properties={"user": binary})
        await mqtt.answer(Type.PUBACK)
        structured = {"specversion": "1.0", "type": "tock", "id": "c-1", "source": "/things/2", "data": {"a": 1}}
        kind = {"content_type": "application/cloudevents+json"}
        mqtt.publish("trades", orjson.dumps(structured), 1, packet_id=3, properties=kind)
        await mqtt.answer(Type.PUBACK)
    first, second, third = await stored(plane, "trades")
    assert (first.type, first.published_id, first.traceparent) == ("temperature", "a-1", trace)
    assert first.extensions["tracestate"] == "a=1"
    assert (second.type, second.published_id, second.source) == ("tick", "b-1", "/things/1")
    assert (third.type, third.published_id, third.data) == ("tock", "c-1", b'{"a":1}')


async def test_one_consumers_events_cannot_claim_to_be_anothers(plane):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        mqtt.publish("trades", b"1", 1, packet_id=3, properties={"user": [("ce-source", "/consumers/bolt")]})
        assert (await mqtt.answer(Type.PUBACK)).v5.reason_code == 0x83


async def test_messages_and_bytes_are_counted(plane):
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text)
        for _ in range(3):
            mqtt.publish("trades", b"1234")
        assert await mqtt.is_served()
        (connection,) = plane.connections
        async with asyncio.timeout(WAIT_S):
            while connection.messages_in < 3:
                await asyncio.sleep(0.01)
        assert (connection.messages_in, connection.bytes_in) == (3, 12)
