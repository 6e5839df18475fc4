"""Publishing over MQTT, through real sockets into a real log."""

import asyncio
import json

import pytest

from gateway.protocols.mqtt.packets import V5, V311, Publish, Type
from gateway.tests.event_plane import channel
from gateway.tests.mqtt_client import client
from gateway.tests.mqtt_plane import mqtt_plane

TEMPERATURE = {
    "type": "object",
    "properties": {"value": {"type": "number"}},
    "required": ["value"],
}
CHANNELS = [
    channel("trades"),
    channel("sensors/{id}", schema=TEMPERATURE),
    channel("letters", schema=TEMPERATURE, on_invalid="dead-letter"),
    channel("web/only", protocols=["http"]),
]
VERSIONS = pytest.mark.parametrize("version", [V311, V5])


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with mqtt_plane(nats_server.url, tmp_path, CHANNELS) as plane:
        yield plane


async def stored(plane, address):
    found, _ = plane.snapshot.channel(address)
    return await plane.log.history(found, found.subject, 0, 1000)


@VERSIONS
@pytest.mark.parametrize(("qos", "answer"), [(1, Type.PUBACK), (2, Type.PUBREC)])
async def test_what_is_acknowledged_is_stored(plane, version, qos, answer):
    async with client(plane, version) as mqtt:
        await mqtt.connect(plane.key.text)
        mqtt.publish("trades", b'{"price":1}', qos, packet_id=9)
        assert (await mqtt.answer(answer)).packet_id == 9
        assert [event.data for event in await stored(plane, "trades")] == [b'{"price":1}']
