"""What a client repeats to another process, once the one that served it was killed."""

import socket

import pytest

from gateway.concurrency.stopping import stop_tasks
from gateway.protocols.mqtt import serve
from gateway.tests.event_plane import channel
from gateway.tests.mqtt_client import client
from gateway.tests.mqtt_plane import mqtt_plane
from gateway.wire.mqtt.packets import V5, Type

NAMED = {"user": [("ce-id", "order-7"), ("ce-source", "/till")]}


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with mqtt_plane(nats_server.url, tmp_path, [channel("trades")]) as plane:
        yield plane


async def publish(plane, **more):
    """Publish at QoS 2 up to PUBREC, on a new connection of the same client."""
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text, client_id="till", is_clean=False)
        mqtt.publish("trades", b"1", 2, packet_id=5, **more)
        assert (await mqtt.answer(Type.PUBREC)).packet_id == 5


@pytest.mark.parametrize(("properties", "stored"), [(NAMED, 1), ({}, 2)])
async def test_a_qos_2_publish_is_stored_once_if_its_event_has_an_id_and_at_least_once_otherwise(
    plane, properties, stored
):
    """The packet ids that wait for PUBREL are known to the first process alone."""
    await publish(plane, properties=properties)
    listening = socket.create_server(("127.0.0.1", 0))
    accepting, sweeper = await serve(plane, listening)
    plane.mqtt_port = listening.getsockname()[1]
    await publish(plane, properties=properties, is_duplicate=True)
    await accepting.stop()
    await stop_tasks(sweeper)
    found, _ = plane.snapshot.channel("trades")
    assert len(await plane.log.history(found, found.subject, 0, 10)) == stored
