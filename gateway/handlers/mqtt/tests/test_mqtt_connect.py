"""How an MQTT connection begins and how it ends, through real sockets."""

import asyncio

import pytest

from gateway.credentials.api_keys import new_key
from gateway.tests.event_plane import PEPPER, WAIT_S, channel
from gateway.tests.mqtt_client import client
from gateway.tests.mqtt_plane import mqtt_plane
from gateway.wire.mqtt import codec, types
from gateway.wire.mqtt.packets import V5, V311, Connect, Publish, Type

CHANNELS = [channel("trades"), channel("gone/{id}"), channel("web/only", protocols=["http"])]
VERSIONS = pytest.mark.parametrize("version", [V311, V5])
UNKNOWN_KEY = new_key(PEPPER).text


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with mqtt_plane(nats_server.url, tmp_path, CHANNELS) as plane:
        yield plane


@pytest.fixture
async def hasty(nats_server, tmp_path):
    """Return a plane whose listener has short timeouts."""
    settings = {"mqtt_connect_timeout_s": 0.1, "close_timeout_s": 0.1}
    async with mqtt_plane(nats_server.url, tmp_path, CHANNELS, **settings) as plane:
        yield plane


def outcomes(plane):
    """Count what usage has tallied: (outcome, error class) of calls and of refusals inside connections."""
    return {(label[5], label[6]): tally.calls for label, tally in plane.usage._tallies.items()}


async def eventually(condition):
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


@VERSIONS
async def test_the_key_is_the_password_or_the_user_name_alone(plane, version):
    async with client(plane, version) as mqtt:
        assert (await mqtt.connect(plane.key.text)).content[:2] == b"\x00\x00"
        assert await mqtt.is_served()
    async with client(plane, version) as mqtt:
        assert (await mqtt.connect(None, username=plane.key.text)).content[:2] == b"\x00\x00"
        assert await mqtt.is_served()


@pytest.mark.parametrize(
    "key", [None, "", "nonsense", "apim_short", pytest.param(UNKNOWN_KEY, id="unknown"), "schlüssel", "a.b.c"]
)
@pytest.mark.parametrize(("version", "code"), [(V311, 5), (V5, 0x86)])
async def test_no_key_or_a_wrong_one_is_refused_and_counted(plane, version, code, key):
    async with client(plane, version) as mqtt:
        answer = await mqtt.connect(key, username=None if key is None else "any")
        assert answer.content[:2] == bytes([0, code])
        assert await mqtt.ends() == b""
    assert [error_class for _, error_class in outcomes(plane)] == ["handshake_auth"]
    assert len(plane.connections) == 0


@pytest.mark.parametrize(("version", "code"), [(V311, 5), (V5, 0x81)])
async def test_a_key_of_ten_kilobytes_is_refused(plane, version, code):
    async with client(plane, version) as mqtt:
        assert (await mqtt.connect("k" * 10_240)).content[:2] == bytes([0, code])


async def test_a_revoked_key_looks_like_an_unknown_one(plane):
    plane.change_key(revoked_at=1.0)
    async with client(plane, V5) as mqtt, client(plane, V5) as other:
        revoked, unknown = await mqtt.connect(plane.key.text), await other.connect(UNKNOWN_KEY)
        assert revoked.content == unknown.content
        assert (revoked.v5.reason_code, dict(revoked.v5.user_properties)) == (0x86, {"reason": "unauthenticated"})
    assert {outcome for outcome, _ in outcomes(plane)} == {"key-revoked", "key-unknown"}


async def test_properties_that_exceed_what_the_client_accepts_are_left_out(plane):
    for properties in ({"request_problem": 0}, {"maximum_packet_size": 20}):
        async with client(plane, V5) as mqtt:
            answer = (await mqtt.connect(UNKNOWN_KEY, properties=properties)).v5
            assert (answer.reason_code, answer.reason_str, answer.user_properties) == (0x86, None, [])


async def test_another_way_to_authenticate_is_refused(plane):
    async with client(plane, V5) as mqtt:
        answer = await mqtt.connect(plane.key.text, properties={"authentication_method": "SCRAM-SHA-1"})
        assert answer.v5.reason_code == 0x8C


async def test_connack_announces_the_limits_to_mqtt_5(plane):
    async with client(plane, V5) as mqtt:
        reported = (await mqtt.connect(plane.key.text)).v5
        assert reported.max_packet_size == plane.config.mqtt_packet_max_bytes
        assert reported.assigned_client_id
        assert (reported.session_present, reported.session_expiry_interval) == (False, 0)
        assert not reported.shared_subscription_available
        assert not reported.subscription_id_available
        assert reported.retain_available


async def test_no_session_outlives_its_connection_and_connack_says_so(plane):
    for _ in range(2):
        async with client(plane, V311) as mqtt:
            assert (await mqtt.connect(plane.key.text, client_id="sensor", is_clean=False)).content == b"\x00\x00"
            assert await mqtt.subscribe(("trades", 1)) == [1]


async def test_a_limit_on_the_rate_of_connecting_says_when_to_come_back(nats_server, redis_url, tmp_path):
    async with mqtt_plane(nats_server.url, tmp_path, CHANNELS, redis_url=redis_url) as plane:
        plane.change_tier([{"metric": "connections", "amount": 1, "per": 600}])
        async with client(plane, V5) as first, client(plane, V5) as second:
            assert (await first.connect(plane.key.text)).v5.reason_code == 0
            answer = (await second.connect(plane.key.text)).v5
            assert (answer.reason_code, dict(answer.user_properties)["reason"]) == (0x9F, "rate-limited")
            assert 0 < float(dict(answer.user_properties)["retry_after_s"]) <= 600


@pytest.mark.parametrize(("version", "code"), [(V311, 3), (V5, 0x97)])
async def test_a_connection_too_many_is_refused(nats_server, redis_url, tmp_path, version, code):
    async with mqtt_plane(nats_server.url, tmp_path, CHANNELS, redis_url=redis_url) as plane:
        plane.change_tier([{"metric": "open_connections", "amount": 1}])
        async with client(plane, version) as first, client(plane, version) as second:
            await first.connect(plane.key.text)
            assert (await second.connect(plane.key.text)).content[1] == code
            assert await first.is_served()


async def test_a_draining_listener_sends_clients_elsewhere(plane):
    plane.draining = True
    async with client(plane, V5) as mqtt, client(plane, V311) as old:
        assert (await mqtt.connect(plane.key.text)).v5.reason_code == 0x88
        assert (await old.connect(plane.key.text)).content[1] == 3


@VERSIONS
async def test_draining_ends_connections_with_a_disconnect_packet_in_mqtt_5(plane, version):
    async with client(plane, version) as mqtt:
        await mqtt.connect(plane.key.text)
        await plane.connections.drain(5)
        assert (await mqtt.ends())[:3:2] == (b"\xe0\x8b" if version == V5 else b"")


@VERSIONS
async def test_a_revoked_key_ends_the_connection_and_no_other(plane, version):
    async with client(plane, version) as mqtt, client(plane, version) as other:
        await mqtt.connect(plane.key.text, client_id="same")
        await other.connect(plane.other_key.text, client_id="same")
        plane.change_key(revoked_at=1.0)
        assert (await mqtt.ends())[:3:2] == (b"\xe0\x98" if version == V5 else b"")
        assert await other.is_served()
    assert ("key-revoked", "revoked") in outcomes(plane)


# Client ids


@VERSIONS
async def test_the_same_client_takes_its_own_place(plane, version):
    async with client(plane, version) as first, client(plane, version) as second:
        await first.connect(plane.key.text, client_id="sensor")
        await second.connect(plane.key.text, client_id="sensor")
        assert (await first.ends())[:3:2] == (b"\xe0\x8e" if version == V5 else b"")
        assert await second.is_served()


@VERSIONS
async def test_another_consumer_cannot_take_it_over(plane, version):
    async with client(plane, version) as mine, client(plane, version) as theirs:
        await mine.connect(plane.key.text, client_id="sensor")
        await theirs.connect(plane.other_key.text, client_id="sensor")
        assert await mine.is_served()
        assert await theirs.is_served()


@VERSIONS
@pytest.mark.parametrize("name", ["+", "#", "a/+/#", ">", "*", "$SYS", "a.b", "acme\u202e", "x" * 256])
async def test_a_client_id_or_user_name_is_only_a_name(plane, version, name):
    async with client(plane, version) as mqtt:
        assert (await mqtt.connect(plane.key.text, client_id=name, username=name)).content[1] == 0
        assert await mqtt.subscribe(("trades", 0)) == [0]
        assert await mqtt.subscribe(("#", 0)) == [0]


@pytest.mark.parametrize(("version", "code"), [(V311, 2), (V5, 0x85)])
async def test_a_client_id_without_end_is_refused(plane, version, code):
    async with client(plane, version) as mqtt:
        assert (await mqtt.connect(plane.key.text, client_id="x" * 257)).content[1] == code


# Deadlines


async def test_a_client_whose_connect_is_late_is_disconnected(hasty):
    async with client(hasty, V311) as silent, client(hasty, V311) as slow:
        whole = codec.connect(Connect(V311, "c", True, 0, "any", hasty.key.text.encode()))
        slow.write(whole[:10])
        assert await silent.ends() == b""
        assert await slow.ends() == b""
    assert outcomes(hasty) == {("idle", "idle"): 2}


async def test_a_client_that_falls_silent_is_idle(plane):
    async with client(plane, V5) as mqtt, client(plane, V5) as other:
        await other.connect(plane.key.text)
        await mqtt.connect(plane.key.text, keep_alive_s=1)
        assert (await mqtt.ends())[:3:2] == b"\xe0\x8d"
        assert await other.is_served()
    assert ("idle", "idle") in outcomes(plane)


async def test_a_client_that_pings_is_not_idle(plane):
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text, keep_alive_s=1)
        for _ in range(5):
            await asyncio.sleep(0.5)
            assert await mqtt.is_served()


# Bad input


@pytest.mark.parametrize(
    "noise",
    [
        codec.publish(V311, Publish("trades", b"1")),
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"\x10\xff\xff\xff\xff\x7f",
        b"\x10\xff\xff\xff\x7f",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"\x11\x00",
    ],
)
async def test_a_client_that_does_not_begin_with_connect_is_disconnected_and_counted(plane, noise):
    async with client(plane, V311) as mqtt, client(plane, V311) as other:
        await other.connect(plane.key.text)
        mqtt.write(noise)
        assert await mqtt.ends() == b""
        assert await other.is_served()
    assert outcomes(plane) == {("malformed-packet", "protocol_error"): 1}


async def test_another_version_is_answered(plane):
    async with client(plane, V311) as mqtt:
        mqtt.write(b"\x10\x0e\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x00")
        assert await mqtt.ends() == b"\x20\x02\x00\x01"


BAD = {
    "a second CONNECT": (codec.connect(Connect(V311, "c", True, 0)), types.PROTOCOL_ERROR),
    "reserved bits": (b"\xc3\x00", types.MALFORMED),
    "no such type": (b"\x00\x00", types.MALFORMED),
    "a server's packet": (b"\xd0\x00", types.PROTOCOL_ERROR),
    "lying length": (b"\x30\x03\x00\x09a", types.MALFORMED),
    "a length of five bytes": (b"\x30\xff\xff\xff\xff\x01", types.MALFORMED),
    "bad UTF-8": (b"\x30\x04\x00\x02\xff\xfe", types.MALFORMED),
    "NUL": (b"\x30\x04\x00\x02a\x00", types.MALFORMED),
    "a surrogate": (b"\x30\x05\x00\x03\xed\xa0\x80", types.MALFORMED),
    "over the limit": (b"\x30\x80\x80\x80\x01", types.TOO_LARGE),
    "AUTH": (b"\xf0\x00", types.PROTOCOL_ERROR),
}


@VERSIONS
@pytest.mark.parametrize("name", BAD)
async def test_what_breaks_mqtt_ends_the_connection_with_its_code_and_no_other(plane, version, name):
    data, code = BAD[name]
    async with client(plane, version) as mqtt, client(plane, version) as other:
        await mqtt.connect(plane.key.text)
        await other.connect(plane.key.text)
        mqtt.write(data)
        packet = await mqtt.ends()
        if version == V5:
            assert (packet[0], packet[2]) == (0xE0, code)
        else:
            assert packet == b""
        assert await other.is_served()
    assert ("malformed-packet", "protocol_error") in outcomes(plane)


async def test_bytes_one_at_a_time_are_served(plane):
    whole = codec.connect(Connect(V311, "c", True, 0, "any", plane.key.text.encode())) + b"\xc0\x00"
    async with client(plane, V311) as mqtt:
        for byte in whole:
            mqtt.write(bytes([byte]))
            await mqtt.writer.drain()
        assert (await mqtt.answer(Type.CONNACK)).content[1] == 0
        await mqtt.answer(Type.PINGRESP)


async def test_a_ping_flood_of_a_client_that_does_not_read_costs_the_others_nothing(plane):
    async with client(plane, V311) as flooding, client(plane, V311) as other:
        await flooding.connect(plane.key.text)
        await other.connect(plane.key.text)
        flooding.writer.transport.pause_reading()
        for _ in range(200):
            flooding.write(b"\xc0\x00" * 10_000)
        assert await other.is_served()
        flooding.writer.transport.abort()


async def test_a_client_that_hangs_up_is_noticed(plane):
    async with client(plane, V311) as mqtt:
        await mqtt.connect(plane.key.text)
        assert len(plane.connections) == 1
        mqtt.writer.transport.abort()
        await eventually(lambda: not len(plane.connections))
    assert outcomes(plane) == {("ok", "client_gone"): 1}


async def test_a_client_that_is_still_sending_receives_the_reason_of_its_disconnect(plane):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text)
        mqtt.write(b"\x36\x05\x00\x01a\x00\x01" + b"\x30\x05\x00\x01a{}" * 50_000)
        assert (await mqtt.ends())[:3:2] == b"\xe0\x81"


async def test_a_client_that_does_not_close_is_closed(hasty):
    async with client(hasty, V5) as mqtt:
        await mqtt.connect(hasty.key.text)
        mqtt.write(b"\x00\x00")
        assert (await mqtt.ends())[:3:2] == b"\xe0\x81"
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(ping_for_ever(mqtt), WAIT_S)


async def ping_for_ever(mqtt):
    while True:
        mqtt.write(b"\xc0\x00")
        await mqtt.writer.drain()
        await asyncio.sleep(0.02)
