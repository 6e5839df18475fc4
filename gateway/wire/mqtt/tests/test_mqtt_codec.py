"""The codec against two other implementations, and against bytes that no client should send."""

import mqtt5
import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.wire.mqtt import codec, types
from gateway.wire.mqtt.packets import (
    V5,
    V311,
    Ack,
    Auth,
    Connect,
    Disconnect,
    Malformed,
    Ping,
    Publish,
    RequestedFilter,
    Subscribe,
    Type,
    Unsubscribe,
    Will,
)

MOST = 256 * 1024
VERSIONS = pytest.mark.parametrize("version", [V311, V5])
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40)
TOPICS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00+#"), min_size=1, max_size=40)
IDS = st.integers(1, 65_535)
USER = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3)


def parser(version=V311, most=MOST):
    """Return a parser that has read CONNECT."""
    ready = codec.Parser(most)
    ready.feed(codec.connect(Connect(version, "c", True, 0)))
    assert isinstance(ready.next(), Connect)
    return ready


def read(data, version=V311):
    ready = parser(version)
    ready.feed(data)
    packet = ready.next()
    assert ready.next() is None
    return packet


# As other implementations write them


class Sent(paho.Client):
    """paho without a socket: what it would write is kept."""

    def __init__(self, version=V311, client_id="", **more):
        super().__init__(paho.CallbackAPIVersion.VERSION2, client_id, protocol=version, **more)
        self.sent = b""

    def publish_as_if_connected(self, *arguments, **more):
        self._sock = object()
        self._send_publish(*arguments, **more)
        self._sock = None

    def _packet_queue(self, command, packet, mid, qos, info=None):
        self.sent += bytes(packet)
        return paho.MQTT_ERR_SUCCESS


def props(type_, **values):
    properties = Properties(type_)
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


@VERSIONS
def test_connect_as_paho_writes_it(version):
    client = Sent(version, "sensor-1")
    client.username_pw_set("any", "key")
    client.will_set("a/b", b"gone", qos=1, retain=True)
    client._send_connect(60)
    wanted = Connect(version, "sensor-1", True, 60, "any", b"key", Will("a/b", b"gone", 1, True))
    reader = codec.Parser(MOST)
    reader.feed(client.sent)
    packet = reader.next()
    assert (packet.version, packet.client_id, packet.keep_alive_s, packet.username, packet.password, packet.will) == (
        wanted.version, wanted.client_id, 60, "any", b"key", wanted.will,
    )  # fmt: skip


@given(TOPICS, st.binary(max_size=200), st.integers(0, 2), st.booleans(), st.booleans(), IDS)
def test_publish_as_paho_writes_it(topic, payload, qos, retain, is_duplicate, packet_id):
    client = Sent()
    is_duplicate = is_duplicate and qos > 0
    client.publish_as_if_connected(packet_id, topic.encode(), payload, qos, retain, is_duplicate)
    expected = Publish(topic, payload, qos, retain, is_duplicate, packet_id if qos else 0)
    assert read(client.sent) == expected


def test_publish_of_mqtt_5_as_paho_writes_it():
    client = Sent(V5)
    properties = props(
        PacketTypes.PUBLISH, ContentType="application/json", TopicAlias=3, UserProperty=[("a", "1"), ("a", "2")],
        MessageExpiryInterval=70_000, CorrelationData=b"\x00\xff", PayloadFormatIndicator=1, ResponseTopic="r",
    )  # fmt: skip
    client.publish_as_if_connected(5, b"a/b", b"{}", 1, False, False, properties=properties)
    packet = read(client.sent, V5)
    assert packet.properties == {
        "content_type": "application/json", "topic_alias": 3, "user": [("a", "1"), ("a", "2")],
        "message_expiry": 70_000, "correlation_data": b"\x00\xff", "payload_format": 1, "response_topic": "r",
    }  # fmt: skip


@VERSIONS
def test_subscribe_and_unsubscribe_as_paho_writes_them(version):
    client = Sent(version)
    options = paho.SubscribeOptions(1, noLocal=True, retainHandling=2) if version == V5 else 1
    client._send_subscribe(False, [(b"a/+", options)])
    packet = read(client.sent, version)
    is_v5 = version == V5
    assert packet.filters == (RequestedFilter("a/+", 1, no_local=is_v5, retain_handling=2 if is_v5 else 0),)
    client.sent = b""
    client._send_unsubscribe(False, [b"a/+", b"b/#"])
    assert read(client.sent, version).filters == ("a/+", "b/#")


@VERSIONS
def test_acknowledgements_ping_and_disconnect_as_paho_writes_them(version):
    client = Sent(version)
    client._send_puback(1)
    client._send_pubrec(2)
    client._send_pubrel(3)
    client._send_pubcomp(4)
    client._send_pingreq()
    client._send_disconnect()
    ready = parser(version)
    ready.feed(client.sent)
    assert [ready.next() for _ in range(6)] == [
        Ack(Type.PUBACK, 1), Ack(Type.PUBREC, 2), Ack(Type.PUBREL, 3), Ack(Type.PUBCOMP, 4), Ping(), Disconnect(),
    ]  # fmt: skip


@given(TEXTS, st.none() | TEXTS, st.none() | st.binary(max_size=50), st.integers(0, 65_535), USER, TOPICS)
def test_connect_of_mqtt_5_reads_back_and_in_another_implementation(client_id, username, password, alive, user, topic):
    will = Will(topic, b"gone", 1, False, {"content_type": "text/plain", "will_delay": 3})
    ours = Connect(V5, client_id, True, alive, username, password, will, {"receive_maximum": 7, "user": user})
    reader = codec.Parser(MOST)
    reader.feed(codec.connect(ours))
    assert reader.next() == ours
    theirs, _ = mqtt5.read(codec.connect(ours))
    assert (theirs.client_id, theirs.username, theirs.password) == (client_id, username, password)
    assert (theirs.keep_alive, theirs.receive_max, theirs.user_properties) == (alive, 7, user)
    assert (theirs.will.topic, theirs.will.will_delay_interval) == (topic, 3)


@given(TOPICS, st.binary(max_size=300), st.integers(0, 2), IDS, USER)
def test_publish_reads_back_and_in_another_implementation(topic, payload, qos, packet_id, user):
    ours = Publish(topic, payload, qos, False, False, packet_id if qos else 0, {"user": user})
    raw = codec.publish(V5, ours)
    assert read(raw, V5) == ours
    theirs, size = mqtt5.read(raw)
    assert size == len(raw)
    assert (theirs.topic, theirs.payload, theirs.qos, theirs.user_properties) == (topic, payload, qos, user)
    assert codec.publish_of(codec.shared_parts(V5, ours), qos, packet_id) == raw
    plain = Publish(topic, payload, qos, False, False, packet_id if qos else 0)
    assert codec.publish_of(codec.shared_parts(V311, plain), qos, packet_id) == codec.publish(V311, plain)


@given(st.lists(st.tuples(TOPICS, st.integers(0, 2)), min_size=1, max_size=4), IDS)
def test_subscribe_of_another_implementation_is_read(filters, packet_id):
    theirs = mqtt5.SubscribePacket(
        packet_id,
        [mqtt5.TopicFilter(topic, max_qos=mqtt5.QoS(qos), retain_as_published=False) for topic, qos in filters],
    )
    packet = read(theirs.write(), V5)
    assert packet == Subscribe(packet_id, tuple(RequestedFilter(topic, qos) for topic, qos in filters))
    assert read(mqtt5.UnsubscribePacket(packet_id, [topic for topic, _ in filters]).write(), V5) == Unsubscribe(
        packet_id, tuple(topic for topic, _ in filters)
    )


def test_packets_of_the_server_are_parsed_by_another_implementation():
    properties = {"reason": "no", "user": [("retry_after_s", "1.5")]}
    theirs, _ = mqtt5.read(codec.connack(V5, 0x97, properties))
    assert (theirs.reason_code, theirs.reason_str, theirs.user_properties) == (0x97, "no", properties["user"])
    theirs, _ = mqtt5.read(codec.ack(V5, Ack(Type.PUBACK, 3, 0x83), "bad", [("pointer", "/a")]))
    assert (theirs.packet_id, theirs.reason_code, theirs.reason_str) == (3, 0x83, "bad")
    theirs, _ = mqtt5.read(codec.ack(V5, Ack(Type.PUBCOMP, 3, 0x92)))
    assert (theirs.packet_id, theirs.reason_code) == (3, 0x92)
    theirs, _ = mqtt5.read(codec.suback(V5, 4, [1, 0x87], "no", None))
    assert (theirs.packet_id, theirs.reason_codes, theirs.reason_str) == (4, [1, 0x87], "no")
    theirs, _ = mqtt5.read(codec.unsuback(V5, 5, [0, 0x11]))
    assert (theirs.packet_id, theirs.reason_codes) == (5, [0, 0x11])
    theirs, _ = mqtt5.read(codec.disconnect(V5, 0x8B, "restarting"))
    assert (theirs.reason_code, theirs.reason_str) == (0x8B, "restarting")
    assert isinstance(mqtt5.read(codec.PING_RESPONSE)[0], mqtt5.PingRespPacket)
    assert codec.disconnect(V311, 0x8B) == b""


# As they come


@given(st.lists(st.sampled_from([b"\xc0\x00", b"\x40\x02\x00\x01", b"\x30\x05\x00\x01a{}"]), max_size=20), st.data())
def test_packets_are_the_same_however_their_bytes_are_cut(packets, data):
    whole = b"".join(packets)
    ready, found, at = parser(), [], 0
    while at < len(whole):
        step = data.draw(st.integers(1, len(whole) - at))
        ready.feed(whole[at : at + step])
        at += step
        while (packet := ready.next()) is not None:
            found.append(packet)
    known = {b"\xc0": Ping(), b"\x40": Ack(Type.PUBACK, 1), b"\x30": Publish("a", b"{}")}
    assert found == [known[packet[:1]] for packet in packets]
    assert ready.buffered_bytes == 0


@given(st.binary(max_size=200), st.sampled_from([V311, V5]), st.booleans())
def test_no_bytes_raise(noise, version, is_connected):
    ready = parser(version) if is_connected else codec.Parser(MOST)
    ready.feed(noise)
    for _ in range(len(noise) + 1):
        packet = ready.next()
        if packet is None:
            return
        if isinstance(packet, Malformed):
            ready.feed(b"\xc0\x00")
            assert ready.next() is None
            assert ready.buffered_bytes == 0
            return
    raise AssertionError("more packets than bytes")


@given(st.integers(1, 14), st.binary(max_size=60))
def test_no_content_raises(type_, content):
    flags = {Type.PUBREL: 2, Type.SUBSCRIBE: 2, Type.UNSUBSCRIBE: 2}.get(type_, 0)
    for version in (V311, V5):
        assert read(bytes([type_ << 4 | flags]) + types.variable(len(content)) + content, version) is not None


def packet_of(first, content):
    return bytes([first]) + types.variable(len(content)) + content


NO_FILTER, NO_FILTERS = b"\x82\x02\x00\x01", b"\xa2\x02\x00\x01"
CONNECT_HEAD = b"\x00\x04MQTT"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x30\x05\x00\x01a{}", types.PROTOCOL_ERROR),  # PUBLISH before CONNECT
        (b"\xc0\x00", types.PROTOCOL_ERROR),
        (b"\x00\x00", types.PROTOCOL_ERROR),
        (b"GET / HTTP/1.1\r\n", types.PROTOCOL_ERROR),
        (b"\x16\x03\x01\x02\x00\x01\x00", types.MALFORMED),  # TLS on the plain port
        (b"\x11\x00", types.MALFORMED),  # reserved bit of CONNECT
        (packet_of(0x10, b"\x00\x06MQIsdp\x03\x02\x00\x00\x00\x00"), codec.UNSUPPORTED_VERSION),
        (packet_of(0x10, CONNECT_HEAD + b"\x06\x02\x00\x00\x00\x00"), codec.UNSUPPORTED_VERSION),
        (packet_of(0x10, CONNECT_HEAD + b"\x04\x03\x00\x00\x00\x00"), types.MALFORMED),  # reserved flag
        (packet_of(0x10, CONNECT_HEAD + b"\x04\x0a\x00\x00\x00\x00"), types.MALFORMED),  # QoS of a will that is none
        (
            packet_of(0x10, CONNECT_HEAD + b"\x04\x1e\x00\x00\x00\x00\x00\x01a\x00\x00"),
            types.MALFORMED,
        ),  # QoS 3 of a will
        (
            packet_of(0x10, CONNECT_HEAD + b"\x04\x42\x00\x00\x00\x00\x00\x01a"),
            types.MALFORMED,
        ),  # password, no user name
        (packet_of(0x10, CONNECT_HEAD + b"\x04\x00\x00\x00\x00\x00"), codec.BAD_CLIENT_ID),
        (packet_of(0x10, CONNECT_HEAD + b"\x04\x02\x00\x00\x00\x00more"), types.MALFORMED),
        (packet_of(0x10, CONNECT_HEAD + b"\x04\x02\x00\x00\x00\x09c"), types.MALFORMED),  # lying length
        (packet_of(0x10, CONNECT_HEAD + b"\x04\x02\x00\x00\x00\x02\xff\xfe"), types.MALFORMED),  # bad UTF-8
        (packet_of(0x10, CONNECT_HEAD + b"\x05\x02\x00\x00\x03\x21\x00\x00\x00\x00"), types.PROTOCOL_ERROR),
        (packet_of(0x10, CONNECT_HEAD + b"\x05\x02\x00\x00\x02\x17\x02\x00\x00"), types.PROTOCOL_ERROR),
        (packet_of(0x10, CONNECT_HEAD + b"\x05\x02\x00\x00\x04\x16\x00\x01x\x00\x00"), types.PROTOCOL_ERROR),
        (b"\x10\xff\xff\xff\xff\x01", types.MALFORMED),  # a length of five bytes
        (b"\x10\x8c\x80\x00", types.MALFORMED),  # a length longer than it needs to be
        (b"\x10\x80\x80\x80\x01", types.TOO_LARGE),  # said in the header: nothing is waited for
    ],
)
def test_a_first_packet_that_is_no_connect_is_malformed(data, code):
    reader = codec.Parser(MOST)
    reader.feed(data)
    packet = reader.next()
    assert isinstance(packet, Malformed)
    assert packet.code == code
    assert reader.next() is None


@pytest.mark.parametrize("version", [V311, V5])
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (codec.connect(Connect(V311, "c", True, 0)), types.PROTOCOL_ERROR),  # CONNECT twice
        (b"\xc1\x00", types.MALFORMED),  # reserved bits
        (b"\x80\x06\x00\x01\x00\x01a\x00", types.MALFORMED),
        (b"\x60\x02\x00\x01", types.MALFORMED),
        (b"\x00\x00", types.MALFORMED),  # no such type
        (b"\x20\x02\x00\x00", types.PROTOCOL_ERROR),  # a server's packets
        (b"\x90\x03\x00\x01\x00", types.PROTOCOL_ERROR),
        (b"\xd0\x00", types.PROTOCOL_ERROR),
        (b"\xc0\x01x", types.MALFORMED),
        (b"\x36\x05\x00\x01a\x00\x01", types.MALFORMED),  # QoS 3
        (b"\x38\x03\x00\x01a", types.MALFORMED),  # a duplicate at QoS 0
        (b"\x32\x05\x00\x01a\x00\x00", types.MALFORMED),  # packet id 0
        (b"\x32\x03\x00\x01a", types.MALFORMED),  # no packet id
        (b"\x30\x03\x00\x05a", types.MALFORMED),  # a topic that reaches past the end
        (b"\x30\x01\x00", types.MALFORMED),
        (b"\x40\x02\x00\x00", types.MALFORMED),
        (NO_FILTER, types.PROTOCOL_ERROR),
        (NO_FILTERS, types.PROTOCOL_ERROR),
        (b"\x30\x80\x80\x80\x01", types.TOO_LARGE),
    ],
)
def test_a_packet_that_breaks_a_rule_is_malformed(version, data, code):
    if version == V5:
        # MQTT 5 wants a length of properties first, so that the other fault is what is found.
        data = {NO_FILTER: b"\x82\x03\x00\x01\x00", NO_FILTERS: b"\xa2\x03\x00\x01\x00"}.get(data, data)
    packet = read(data, version)
    assert isinstance(packet, Malformed)
    assert packet.code == code


@pytest.mark.parametrize("topic", [b"a\x00b", b"\xed\xa0\x80", b"\xff", b"\xc0\x80", b"\xf4\x90\x80\x80"])
@VERSIONS
def test_text_is_well_formed_utf8_without_nul_or_surrogates(version, topic):
    content = len(topic).to_bytes(2, "big") + topic + (b"\x00" if version == V5 else b"")
    assert read(packet_of(0x30, content), version).code == types.MALFORMED


@pytest.mark.parametrize("topic", [b"a/+", b"#", b"a+b", b""])
def test_a_topic_to_publish_to_is_not_empty_and_has_no_wildcards(topic):
    assert read(packet_of(0x30, len(topic).to_bytes(2, "big") + topic)).code == codec.BAD_TOPIC


@pytest.mark.parametrize("options", [0x03, 0x40, 0x80, 0x30])
def test_subscription_options_have_no_reserved_bits(options):
    assert read(packet_of(0x82, b"\x00\x01\x00\x00\x01a" + bytes([options])), V5).code == types.MALFORMED
    assert read(packet_of(0x82, b"\x00\x01\x00\x01a" + bytes([options | 0x04])), V311).code == types.MALFORMED


@pytest.mark.parametrize(
    ("properties", "code"),
    [
        (b"\x11\x00\x00\x00\x01", types.MALFORMED),  # a property of CONNECT
        (b"\x7f\x00", types.MALFORMED),  # no such property
        (b"\x0b\x01", types.MALFORMED),  # a server's property
        (b"\x23\x00\x00", types.BAD_ALIAS),
        (b"\x23\x00\x01\x23\x00\x01", types.PROTOCOL_ERROR),  # twice
        (b"\x01\x02", types.PROTOCOL_ERROR),
        (b"\x26\x00\x01a", types.MALFORMED),  # half a pair
        (b"\x03\x00\x09x", types.MALFORMED),
        (b"\x08\x00\x01#", types.PROTOCOL_ERROR),  # a response topic with a wildcard
    ],
)
def test_a_property_out_of_place_is_malformed(properties, code):
    assert read(packet_of(0x30, b"\x00\x01a" + types.variable(len(properties)) + properties), V5).code == code


def test_a_property_length_that_reaches_past_the_packet_is_malformed():
    assert read(packet_of(0x30, b"\x00\x01a\x7f{}"), V5).code == types.MALFORMED
    assert read(packet_of(0x30, b"\x00\x01a\x80\x80\x80\x80\x01"), V5).code == types.MALFORMED
    assert read(packet_of(0x30, b"\x00\x01a\x80\x00"), V5).code == types.MALFORMED


def test_auth_is_of_mqtt_5_alone():
    assert read(b"\xf0\x00", V5) == Auth(0)
    assert read(b"\xf0\x00", V311).code == types.PROTOCOL_ERROR


def test_a_packet_of_the_very_most_bytes_is_taken_and_one_more_is_not():
    content = b"\x00\x01a" + b"x" * (1000 - 3 - 3)
    fits = packet_of(0x30, content)
    assert len(fits) == 1000
    ready = parser(most=1000)
    ready.feed(fits)
    assert isinstance(ready.next(), Publish)
    ready.feed(packet_of(0x30, content + b"x")[:3])
    assert ready.next().code == types.TOO_LARGE


def test_text_is_cut_between_characters_and_cleaned_of_what_mqtt_forbids():
    assert types.text("a\x00\ud800b") == b"\x00\x02ab"
    cut = types.text("é" * 40_000)
    assert cut[:2] == (65_534).to_bytes(2, "big")
    cut[2:].decode()


@given(st.integers(0, types.VARIABLE_MAX))
def test_variable_integers_read_back(value):
    assert types.Reader(types.variable(value)).variable() == value
