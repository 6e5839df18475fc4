"""The Message Expiry Interval of another MQTT broker."""

import time
from types import SimpleNamespace

import pytest
from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.connectors.broker import resolve_options
from gateway.connectors.kinds import SINK, find
from gateway.connectors.mqtt import _record
from gateway.log.event import Event
from gateway.log.expiry import EXPIRY, read_expiry
from gateway.tests.clock import Clock


@pytest.mark.parametrize("interval_s", [None, 0, 60])
def test_a_source_keeps_when_a_message_expires(interval_s, monkeypatch):
    Clock(monkeypatch)
    message = MQTTMessage(topic=b"lamps/1")
    message.properties = Properties(PacketTypes.PUBLISH)
    if interval_s is not None:
        message.properties.MessageExpiryInterval = interval_s
    expires_at = read_expiry(_record(message).attributes.get(EXPIRY))
    if interval_s is None:
        assert expires_at is None
    else:
        assert expires_at - time.time() == pytest.approx(max(interval_s, 1), abs=5)


@pytest.mark.parametrize("left_s", [None, 60])
async def test_a_sink_sends_what_is_left(left_s):
    factory = find("mqtt", SINK)
    sink = factory.make(resolve_options({"host": "localhost", "topic": "out"}, factory.options), "out")
    sent = []

    def publish(topic, data, qos, retain, properties):
        sent.append(getattr(properties, "MessageExpiryInterval", None))
        return SimpleNamespace(rc=0, mid=1)

    sink._client, sink._sent = SimpleNamespace(publish=publish), {}
    expires_at = None if left_s is None else time.time() + left_s
    sink._publish(Event("out", "out", 1, "", b"1", expires_at=expires_at))
    if left_s is None:
        assert sent == [None]
    else:
        assert 55 <= sent[0] <= left_s
