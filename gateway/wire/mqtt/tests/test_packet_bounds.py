"""What one MQTT packet may hold at most, beside its bytes."""

import pytest

from gateway.wire.mqtt import codec, types
from gateway.wire.mqtt.packets import V5, Connect, Malformed, Publish, Subscribe, Unsubscribe


def read(first, content):
    parser = codec.Parser(10**6)
    parser.feed(codec.connect(Connect(V5, "c", True, 0)))
    parser.next()
    parser.feed(bytes([first]) + types.variable(len(content)) + content)
    return parser.next()


def publish(count):
    properties = (b"\x26" + types.text("name") + types.text("value")) * count
    return read(0x30, types.text("t") + types.variable(len(properties)) + properties + b"1")


def subscribe(count):
    return read(0x82, b"\x00\x01\x00" + (types.text("t") + b"\x00") * count)


def unsubscribe(count):
    return read(0xA2, b"\x00\x01\x00" + types.text("t") * count)


@pytest.mark.parametrize(
    ("packet_with", "most", "kind"),
    [
        (publish, types.REPEATED_MAX, Publish),
        (subscribe, codec.FILTERS_MAX, Subscribe),
        (unsubscribe, codec.FILTERS_MAX, Unsubscribe),
    ],
)
def test_a_packet_holds_so_many_user_properties_and_filters_and_no_more(packet_with, most, kind):
    assert isinstance(packet_with(most), kind)
    refused = packet_with(most + 1)
    assert isinstance(refused, Malformed)
    assert refused.code == types.TOO_LARGE
