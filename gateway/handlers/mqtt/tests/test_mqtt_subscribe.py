"""Subscribing over MQTT, through real sockets from a real log."""

import asyncio
import contextlib
import json
import queue

import paho.mqtt.client as paho
import pytest

from gateway.channels.publication import Publication
from gateway.protocol import Protocol
from gateway.tests.event_plane import WAIT_S, channel
from gateway.tests.mqtt_client import client, unsubscribe
from gateway.tests.mqtt_plane import mqtt_plane
from gateway.wire.mqtt.packets import V5, V311, Type
from gateway.wire.mqtt.session import IN_FLIGHT_MAX, SUBSCRIPTIONS_MAX

CHANNELS = [
    channel("trades"),
    channel("market/{symbol}"),
    channel("market/{symbol}/depth"),
    channel("secret/{id}"),
    channel("web/only", protocols=["http", "sse"]),
]
VERSIONS = pytest.mark.parametrize("version", [V311, V5])


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with mqtt_plane(nats_server.url, tmp_path, CHANNELS) as plane:
        yield plane


async def published(plane, address, data=b"1", **more):
    """Publish by another door; give the id."""
    call = plane.call(Protocol.HTTP, key=plane.other_key)
    return (await plane.publisher.publish(call, Publication(address, data, **more))).sequence


async def heard(mqtt):
    return (await mqtt.answer(Type.PUBLISH)).topic_and_payload


@VERSIONS
async def test_an_event_published_over_another_protocol_reaches_the_subscriber(plane, version):
    async with client(plane, version) as mqtt:
        await mqtt.connect(plane.key.text)
        assert await mqtt.subscribe(("trades", 0)) == [0]
        await published(plane, "trades", b'{"a":1}')
        answer = await mqtt.answer(Type.PUBLISH)
        if version == V5:
            assert (answer.v5.topic, answer.v5.payload) == ("trades", b'{"a":1}')
        else:
            assert answer.topic_and_payload == ("trades", b'{"a":1}')
        (connection,) = plane.connections
        assert (connection.messages_out, connection.bytes_out > 0) == (1, True)


async def test_mqtt_5_receives_id_time_trace_and_attributes(plane):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        await mqtt.subscribe(("trades", 0))
        attributes = {"type": "tick", "id": "mine", "region": "eu", "tracestate": "a=1"}
        id_ = await published(plane, "trades", traceparent=trace, attributes=attributes)
        event = (await mqtt.answer(Type.PUBLISH)).v5
        reported = dict(event.user_properties)
        assert event.content_type == "application/json"
        assert reported.pop("time")
        assert reported == {
            "id": str(id_), "ce-source": "/consumers/bolt", "ce-type": "tick", "ce-id": "mine", "ce-region": "eu",
            "traceparent": trace, "tracestate": "a=1",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("filter_", "wanted"),
    [
        ("market/+", ["market/A"]),
        ("market/#", ["market/A", "market/A/depth"]),
        ("+/A", ["market/A", "secret/A"]),
        ("+/+/depth", ["market/A/depth"]),
        ("#", ["market/A", "market/A/depth", "secret/A", "trades"]),
        ("market/A/#", ["market/A", "market/A/depth"]),
        ("trades/#", ["trades"]),
    ],
)
async def test_filters_match_as_mqtt_says(plane, filter_, wanted):
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text)
        assert await mqtt.subscribe((filter_, 0)) == [0]
        for address in ("market/A", "market/A/depth", "secret/A", "web/only", "trades"):
            await published(plane, address)
        assert sorted([(await heard(mqtt))[0] for _ in wanted]) == sorted(wanted)
        assert await mqtt.hears_nothing()


# Rights


@VERSIONS
async def test_a_wildcard_brings_only_what_may_be_read(plane, version):
    plane.change_key(scopes=["subscribe:market/{symbol}", "subscribe:web/only"])
    async with client(plane, version) as mqtt:
        await mqtt.connect(plane.key.text)
        assert await mqtt.subscribe(("#", 0), ("+/+", 0)) == [0, 0]
        for address in ("secret/1", "trades", "web/only", "market/A/depth", "market/A"):
            await published(plane, address)
        for _ in range(2):
            answer = await mqtt.answer(Type.PUBLISH)
            assert (answer.v5.topic if version == V5 else answer.topic_and_payload[0]) == "market/A"
        assert await mqtt.hears_nothing()


REFUSED = {
    # A stranger does not learn what is there, nor that it is nothing.
    "secret/1": 0x87, "secret/+": 0x87, "secret/#": 0x87, "nowhere": 0x87, "nowhere/#": 0x87, "web/only": 0x87,
    "$SYS/#": 0x8F, "$SYS/broker/load": 0x8F, "_apimgmt/#": 0x8F,
    "a/#/b": 0x8F, "a+": 0x8F, "*": 0x87, ">": 0x87, "market/*": 0x87, "a b": 0x87, "$share/group/trades": 0x9E,
}  # fmt: skip


@pytest.mark.parametrize("filter_", REFUSED)
@VERSIONS
async def test_a_filter_that_may_not_be_read_is_refused_and_the_others_are_granted(plane, version, filter_):
    plane.change_key(scopes=["subscribe:trades"])
    async with client(plane, version) as mqtt:
        await mqtt.connect(plane.key.text)
        refused, granted = await mqtt.subscribe((filter_, 1), ("trades", 1))
        assert refused == (0x80 if version == V311 else REFUSED[filter_])
        assert granted == 1
        (connection,) = plane.connections
        assert sum(connection.refusals.values()) == 1


async def test_a_caller_that_may_read_everything_learns_that_a_channel_is_unknown(plane):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        assert await mqtt.subscribe(("nowhere", 0), ("nowhere/+", 0), ("web/only", 0)) == [0x8F, 0x8F, 0x87]
        assert await mqtt.subscribe(("$SYS/#", 0), ("$SYS", 0)) == [0x8F, 0x8F]


async def test_rights_are_looked_at_again_when_the_key_changes(plane):
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text)
        await mqtt.subscribe(("#", 0))
        await published(plane, "secret/1")
        assert (await heard(mqtt))[0] == "secret/1"
        plane.change_key(scopes=["subscribe:trades"])
        await published(plane, "secret/1")
        await published(plane, "trades")
        assert (await heard(mqtt))[0] == "trades"
        plane.change_key(scopes=["subscribe:*"])
        await published(plane, "secret/1")
        assert (await heard(mqtt))[0] == "secret/1"


@pytest.mark.parametrize("filter_", ["trades", "market/+", "market/A"])
@pytest.mark.parametrize("loser", ["key", "tier"])
async def test_a_right_that_is_lost_ends_the_connection_that_needs_it(plane, filter_, loser):
    async with client(plane, V5) as mqtt, client(plane, V5) as other:
        for one, wanted in ((mqtt, filter_), (other, "secret/1")):
            await one.connect(plane.key.text)
            assert await one.subscribe((wanted, 0)) == [0]
        if loser == "key":
            plane.change_key(scopes=["subscribe:secret/*"])
        else:
            plane.change_tier([], scopes=["subscribe:secret/{id}", "publish:*"])
        assert (await mqtt.answer(Type.DISCONNECT)).content[0] == 0x87
        await published(plane, "secret/1")
        assert (await heard(other))[0] == "secret/1"


async def test_a_tier_bounds_what_a_wildcard_brings(plane):
    plane.change_tier([], scopes=["subscribe:market/A", "subscribe:trades", "publish:*"])
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text)
        assert await mqtt.subscribe(("secret/#", 0), ("market/+", 0)) == [0x80, 0]
        await published(plane, "market/A")
        assert (await heard(mqtt))[0] == "market/A"
        plane.change_key(scopes=["*"])
        assert await mqtt.subscribe(("secret/+", 0), ("+", 0)) == [0x80, 0]


async def test_a_channel_that_is_closed_to_mqtt_is_heard_no_more(plane):
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text)
        await mqtt.subscribe(("market/#", 0))
        plane.snapshot.apply([("channel", "market/{symbol}", channel("market/{symbol}", protocols=["sse"]))])
        call = plane.call(Protocol.SSE, key=plane.other_key)
        await plane.publisher.publish(call, Publication("market/A", b"1"))
        await published(plane, "market/A/depth")
        assert (await heard(mqtt))[0] == "market/A/depth"


async def test_a_channel_made_later_is_heard_by_a_wildcard(plane):
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text)
        await mqtt.subscribe(("#", 0))
        document = channel("later/{id}")
        plane.snapshot.apply([("channel", "later/{id}", document)])
        await published(plane, "later/1")
        assert (await heard(mqtt))[0] == "later/1"


# QoS


@pytest.mark.parametrize(("requested", "granted"), [(0, 0), (1, 1), (2, 1)])
async def test_at_most_qos_1_is_granted(plane, requested, granted):
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text)
        assert await mqtt.subscribe(("trades", requested)) == [granted]
        await published(plane, "trades")
        answer = await mqtt.answer(Type.PUBLISH)
        assert (answer.flags >> 1 & 3, answer.topic_and_payload) == (granted, ("trades", b"1"))


async def test_no_more_events_are_under_way_than_the_client_takes(plane):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text, properties={"receive_maximum": 2})
        await mqtt.subscribe(("trades", 1))
        for number in range(5):
            await published(plane, "trades", b"%d" % number)
        first, second = await mqtt.answer(Type.PUBLISH), await mqtt.answer(Type.PUBLISH)
        assert await mqtt.hears_nothing()
        for answer in (first, second):
            mqtt.ack(Type.PUBACK, answer.packet_id)
        rest = [await mqtt.answer(Type.PUBLISH) for _ in range(2)]
        mqtt.ack(Type.PUBACK, rest[0].packet_id)
        rest.append(await mqtt.answer(Type.PUBLISH))
        assert [answer.v5.payload for answer in (first, second, *rest)] == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_client_that_never_acknowledges_is_too_slow(nats_server, tmp_path):
    few = {"send_buffer_max_events": 10}
    async with mqtt_plane(nats_server.url, tmp_path, CHANNELS, **few) as plane, client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        await mqtt.subscribe(("trades", 1))
        for _ in range(IN_FLIGHT_MAX):
            await published(plane, "trades")
            await mqtt.answer(Type.PUBLISH)
        for _ in range(11):
            await published(plane, "trades")
        assert (await mqtt.ends())[:3:2] == b"\xe0\x97"


@VERSIONS
async def test_a_reader_that_never_reads_is_dropped_and_the_others_hear_everything(plane, version):
    async with client(plane, version) as slow, client(plane, V311) as good:
        for mqtt in (slow, good):
            await mqtt.connect(plane.key.text)
            await mqtt.subscribe(("trades", 0))
        slow.writer.transport.pause_reading()
        payload = json.dumps("x" * 500_000).encode()
        for _ in range(30):
            await published(plane, "trades", payload)
            assert (await heard(good))[1] == payload
        async with asyncio.timeout(WAIT_S):
            while len(plane.connections) > 1:
                await asyncio.sleep(0.01)
        assert await good.is_served()
        slow.writer.transport.abort()


async def test_an_event_larger_than_the_client_takes_is_left_out_and_counted(plane):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text, properties={"maximum_packet_size": 300})
        await mqtt.subscribe(("trades", 0))
        await published(plane, "trades", json.dumps("x" * 300).encode())
        await published(plane, "trades", b"2")
        assert (await mqtt.answer(Type.PUBLISH)).v5.payload == b"2"
        (connection,) = plane.connections
        assert connection.refusals == {"event-over-maximum-packet-size": 1}


# Options


async def test_no_local_keeps_a_connections_own_events_from_it_and_from_no_other(plane):
    no_local = 0x04
    async with client(plane, V5) as mine, client(plane, V5) as sibling:
        for mqtt in (mine, sibling):
            await mqtt.connect(plane.key.text)
            assert await mqtt.subscribe(("trades", no_local)) == [0]
        mine.publish("trades", b"1", 1, packet_id=1)
        await mine.answer(Type.PUBACK)
        event = (await sibling.answer(Type.PUBLISH)).v5
        assert event.payload == b"1"
        assert "ce-connection" not in dict(event.user_properties)
        sibling.publish("trades", b"2", 1, packet_id=1)
        assert (await mine.answer(Type.PUBLISH)).v5.payload == b"2"
        assert await mine.hears_nothing()


async def test_subscribing_again_changes_the_options_and_doubles_nothing(plane):
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text)
        assert await mqtt.subscribe(("trades", 0)) == [0]
        assert await mqtt.subscribe(("trades", 1)) == [1]
        await published(plane, "trades")
        assert (await mqtt.answer(Type.PUBLISH)).flags >> 1 & 3 == 1
        assert await mqtt.hears_nothing()


@VERSIONS
async def test_after_unsubscribe_nothing_comes(plane, version):
    async with client(plane, version) as mqtt:
        await mqtt.connect(plane.key.text)
        await mqtt.subscribe(("trades", 0))
        mqtt.write(unsubscribe(version, 8, "trades", "never"))
        answer = await mqtt.answer(Type.UNSUBACK)
        if version == V5:
            assert answer.v5.reason_codes == [0, 0x11]
        else:
            assert answer.content == b"\x00\x08"
        await published(plane, "trades")
        assert await mqtt.hears_nothing()


async def test_identifiers_are_not_offered_and_said_so(plane):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        mqtt.write(b"\x82\x09\x00\x01\x02\x0b\x05\x00\x01a\x00")
        assert (await mqtt.ends())[:3:2] == b"\xe0\xa1"


async def test_subscriptions_are_bounded(plane):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        filters = [(f"market/S{number}", 0) for number in range(SUBSCRIPTIONS_MAX + 1)]
        assert await mqtt.subscribe(*filters) == [0] * SUBSCRIPTIONS_MAX + [0x97]


# Limits


async def test_events_over_a_limit_are_held_back_and_not_lost(plane):
    plane.change_tier([{"metric": "messages_out", "amount": 20, "burst": 1, "per": 1, "scope": "connection"}])
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text)
        await mqtt.subscribe(("trades", 0))
        for number in range(5):
            await published(plane, "trades", b"%d" % number)
        assert [(await heard(mqtt))[1] for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


async def test_events_that_came_while_nats_was_away_are_caught_up(plane, nats_server):
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text)
        await mqtt.subscribe(("trades", 0))
        await published(plane, "trades", b"1")
        assert (await heard(mqtt))[1] == b"1"
        nats_server.kill()
        nats_server.start()
        async with asyncio.timeout(WAIT_S):
            while True:
                with contextlib.suppress(Exception):
                    await published(plane, "trades", b"2")
                    break
                await asyncio.sleep(0.05)
        assert (await heard(mqtt))[1] == b"2"


# A client of other people's


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_paho_publishes_and_subscribes(plane, version, qos):
    def talk():
        heard, connected = queue.Queue(), queue.Queue()
        mqtt = paho.Client(paho.CallbackAPIVersion.VERSION2, "paho", protocol=version)
        mqtt.username_pw_set("any", plane.key.text)
        mqtt.on_connect = lambda client, data, flags, code, properties: connected.put(code)
        mqtt.on_subscribe = lambda client, data, mid, codes, properties: connected.put(codes[0])
        mqtt.on_message = lambda client, data, message: heard.put((message.topic, message.payload))
        mqtt.connect("127.0.0.1", plane.mqtt_port)
        mqtt.loop_start()
        try:
            assert not connected.get(timeout=WAIT_S).is_failure
            mqtt.subscribe("market/#", qos)
            assert connected.get(timeout=WAIT_S).value == min(qos, 1)
            infos = [mqtt.publish("market/A", b"%d" % number, qos) for number in range(50)]
            for info in infos:
                info.wait_for_publish(WAIT_S)
            return [heard.get(timeout=WAIT_S) for _ in range(50)]
        finally:
            mqtt.disconnect()
            mqtt.loop_stop()

    assert await asyncio.to_thread(talk) == [("market/A", b"%d" % number) for number in range(50)]
