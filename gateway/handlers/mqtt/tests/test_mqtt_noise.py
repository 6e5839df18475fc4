"""Conversations with bytes changed, cut out and put in: nothing fails, nobody else notices."""

import asyncio
import contextlib
import logging
import random

import pytest

from gateway.identity.failed_keys import FailedKeys
from gateway.tests.event_plane import WAIT_S, channel
from gateway.tests.mqtt_client import client, subscribe, unsubscribe
from gateway.tests.mqtt_plane import mqtt_plane
from gateway.wire.mqtt import codec
from gateway.wire.mqtt.packets import V5, V311, Ack, Connect, Publish, Type, Will

CHANNELS = [channel("trades"), channel("sensors/{id}", schema={"type": "number"})]
CONVERSATIONS = 200
AT_ONCE = 20
LISTEN_S = 0.1
TOPICS = ("trades", "sensors/1", "nowhere", "$SYS/x", "a b", "*")
FILTERS = ("#", "trades", "+/+", "$share/a/b", "nowhere/#", ">")


def publish(dice, version):
    qos = dice.choice([0, 1, 2])
    properties = {"topic_alias": dice.randint(1, 30)} if version == V5 and dice.random() < 0.3 else {}
    payload = dice.choice([b"1", b"", b"{", b"\xff"])
    packet_id = dice.randint(1, 5) if qos else 0
    topic = dice.choice(TOPICS)
    return codec.publish(version, Publish(topic, payload, qos, dice.random() < 0.3, False, packet_id, properties))


def ack(dice, version):
    type_ = dice.choice([Type.PUBACK, Type.PUBREC, Type.PUBREL, Type.PUBCOMP])
    return codec.ack(version, Ack(type_, dice.randint(1, 5)))


PACKETS = (
    publish,
    publish,
    ack,
    lambda dice, version: subscribe(version, dice.randint(1, 9), (dice.choice(FILTERS), dice.choice([0, 1, 2]))),
    lambda dice, version: unsubscribe(version, 3, dice.choice(FILTERS)),
    lambda dice, version: b"\xc0\x00",
    lambda dice, version: b"\xe0\x00",
)


def conversation(dice, key):
    version = dice.choice([V311, V5])
    will = Will("trades", b"1", dice.choice([0, 1, 2]), dice.random() < 0.5) if dice.random() < 0.3 else None
    connect = Connect(version, f"c{dice.randint(1, 9)}", True, dice.choice([0, 1, 60]), "any", key.encode(), will)
    body = bytearray(codec.connect(connect))
    begins_at = dice.choice([0, len(body)])
    for _ in range(dice.randint(1, 12)):
        body += dice.choice(PACKETS)(dice, version)
    for _ in range(dice.choice([0, 1, 1, 2, 5])):
        at = dice.randrange(begins_at, len(body))
        noise = bytes(dice.randrange(256) for _ in range(dice.randint(1, 3)))
        body[at : at + dice.randint(0, 3)] = dice.choice([noise, b"", noise[:1]])
        begins_at = min(begins_at, len(body) - 1)
    return bytes(body)


async def talk(port, dice, key):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(conversation(dice, key))
    with contextlib.suppress(TimeoutError, ConnectionError):
        await asyncio.wait_for(reader.read(), LISTEN_S)
    if dice.random() < 0.5:
        writer.transport.abort()
    writer.close()


@pytest.mark.parametrize("seed", range(3))
async def test_noise_ends_in_an_answer_or_a_closed_connection_and_never_in_an_error(
    nats_server, tmp_path, caplog, seed
):
    dice = random.Random(seed)
    async with mqtt_plane(nats_server.url, tmp_path, CHANNELS) as plane, client(plane, V311) as other:
        plane.authenticator._failed_keys = FailedKeys(1_000_000)
        await other.connect(plane.other_key.text)
        for _ in range(CONVERSATIONS // AT_ONCE):
            await asyncio.gather(*(talk(plane.mqtt_port, dice, plane.key.text) for _ in range(AT_ONCE)))
        assert await other.is_served()
        async with asyncio.timeout(WAIT_S):
            while len(plane.connections) > 1:
                await asyncio.sleep(0.01)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
