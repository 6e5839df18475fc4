"""Payloads of every type over MQTT, as the channel takes them."""

import pytest

from gateway.tests.event_plane import channel
from gateway.tests.mqtt_client import client
from gateway.tests.mqtt_plane import mqtt_plane, stored
from gateway.wire.mqtt.packets import V5, V311, Type

CHANNELS = [
    channel("trades"),
    channel("anything", content_type="bytes"),
    channel("photos/{id}", content_type="image/jpeg"),
    channel("states", content_type="text"),
]
VERSIONS = pytest.mark.parametrize("version", [V311, V5])


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with mqtt_plane(nats_server.url, tmp_path, CHANNELS) as plane:
        yield plane


async def test_mqtt_5_may_publish_what_is_no_json_and_say_topics_once(plane):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        mqtt.publish("anything", b"plain", 1, packet_id=3, properties={"content_type": "text/plain", "topic_alias": 1})
        await mqtt.answer(Type.PUBACK)
        mqtt.publish("", b"2", 1, packet_id=4, properties={"topic_alias": 1})
        await mqtt.answer(Type.PUBACK)
        mqtt.publish("", b"3", 1, packet_id=5, properties={"topic_alias": 9})
        assert (await mqtt.ends())[:3:2] == b"\xe0\x82"
    first, second = await stored(plane, "anything")
    assert (first.data, first.content_type, second.data) == (b"plain", "text/plain", b"2")


@VERSIONS
async def test_a_payload_without_a_content_type_is_what_its_channel_takes(plane, version):
    """home-assistant/core#155463: devices that speak 3.1.1 send states and images, and cannot name their type."""
    jpeg = bytes(range(256))
    async with client(plane, version) as mqtt:
        await mqtt.connect(plane.key.text)
        for number, (topic, payload) in enumerate(
            [("states", "ö ON".encode()), ("photos/a", jpeg), ("anything", jpeg)]
        ):
            mqtt.publish(topic, payload, 1, packet_id=number + 1)
            await mqtt.answer(Type.PUBACK)
    events = [event for topic in ("states", "photos/a", "anything") for event in await stored(plane, topic)]
    assert [(event.data, event.content_type) for event in events] == [
        ("ö ON".encode(), "text/plain"),
        (jpeg, "image/jpeg"),
        (jpeg, "application/octet-stream"),
    ]


@pytest.mark.parametrize(
    ("topic", "payload", "properties"),
    [
        ("states", b"\xff\xfe", {}),
        ("states", b"1", {"content_type": "application/json"}),
        ("trades", b"1", {"content_type": "text/plain"}),
        ("photos/a", b"1", {"content_type": "image/png"}),
        ("anything", b"\xff", {"payload_format": 1}),
    ],
)
async def test_a_payload_that_its_channel_does_not_take_has_the_wrong_format(plane, topic, payload, properties):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        mqtt.publish(topic, payload, 1, packet_id=3, properties=properties)
        assert (await mqtt.answer(Type.PUBACK)).v5.reason_code == 0x99
    assert await stored(plane, topic) == []
