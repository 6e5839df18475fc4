"""What a PUBLISH costs, in counts: they do not depend on the machine."""

import pytest

from gateway.tests.counting import counted_tasks
from gateway.tests.event_plane import channel
from gateway.tests.mqtt_client import client
from gateway.tests.mqtt_plane import mqtt_plane
from gateway.wire.mqtt.packets import V5, V311, Type


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with mqtt_plane(nats_server.url, tmp_path, [channel("trades")]) as plane:
        yield plane


@pytest.mark.parametrize("version", [V311, V5])
async def test_publishes_of_qos_1_are_acknowledged_in_order_without_a_task_for_each(plane, version):
    async with client(plane, version) as mqtt:
        await mqtt.connect(plane.key.text)
        mqtt.publish("trades", b"0", 1, packet_id=500)
        await mqtt.answer(Type.PUBACK)
        with counted_tasks() as tasks:
            for number in range(1, 101):
                mqtt.publish("trades", b"%d" % number, 1, packet_id=number)
            ids = [(await mqtt.answer(Type.PUBACK)).packet_id for _ in range(100)]
        assert ids == list(range(1, 101))
        assert [name for name in tasks if "Publishing" in name or "Publisher" in name] == []
