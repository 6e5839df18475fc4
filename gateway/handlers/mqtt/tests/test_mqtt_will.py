"""Wills: what a client leaves to be published when its connection ends abnormally, through real sockets."""

import asyncio

import pytest

from gateway.tests.event_plane import WAIT_S, channel
from gateway.tests.mqtt_client import client
from gateway.tests.mqtt_plane import mqtt_plane
from gateway.wire.mqtt.packets import V5, V311, Will

CHANNELS = [channel("trades"), channel("gone/{id}"), channel("web/only", protocols=["http"])]
VERSIONS = pytest.mark.parametrize("version", [V311, V5])


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with mqtt_plane(nats_server.url, tmp_path, CHANNELS) as plane:
        yield plane


async def disconnected(plane):
    """Wait until every connection has ended, its will published or dropped."""
    async with asyncio.timeout(WAIT_S):
        while len(plane.connections):
            await asyncio.sleep(0.01)


async def published_wills(plane):
    found, _ = plane.snapshot.channel("gone/1")
    return [event.data for event in await plane.log.history(found, "gone.1", 0, 10)]


async def heard_on(plane, address, begin):
    """Return the first event on an address after `begin` was called."""
    heard = asyncio.Queue()
    listener = await plane.hub.subscribe_confirmed(address.replace("/", "."), heard.put_nowait)
    await begin()
    event = await asyncio.wait_for(heard.get(), WAIT_S)
    listener.stop()
    return event


@VERSIONS
async def test_a_will_is_published_when_the_client_vanishes(plane, version):
    async with client(plane, version) as mqtt:
        await mqtt.connect(plane.key.text, will=Will("gone/1", b'{"left":true}', 1, False))

        async def vanish():
            mqtt.writer.transport.abort()

        event = await heard_on(plane, "gone/1", vanish)
    assert (event.data, event.source) == (b'{"left":true}', "/consumers/acme")


async def test_a_will_is_not_published_when_the_client_takes_leave_unless_it_says_so(plane):
    async with client(plane, V5) as quiet, client(plane, V5) as loud:
        await quiet.connect(plane.key.text, will=Will("gone/1", b"1", 0, False))
        await loud.connect(plane.key.text, will=Will("gone/1", b"2", 0, False))

        async def leave():
            quiet.write(b"\xe0\x00")
            await quiet.ends()
            loud.write(b"\xe0\x01\x04")

        assert (await heard_on(plane, "gone/1", leave)).data == b"2"
    assert await published_wills(plane) == [b"2"]


@pytest.mark.parametrize(
    ("topic", "codes"),
    [("secret", {V311: 5, V5: 0x87}), ("web/only", {V311: 5, V5: 0x87}), ("$SYS/x", {V311: 5, V5: 0x87})],
)
@VERSIONS
async def test_a_will_that_could_not_be_published_is_refused_at_connect(plane, version, topic, codes):
    plane.change_key(scopes=["publish:trades", "publish:web/only"])
    async with client(plane, version) as mqtt:
        answer = await mqtt.connect(plane.key.text, will=Will(topic, b"1", 0, False))
        assert answer.content[1] == codes[version]
        assert await mqtt.ends() == b""


async def test_a_client_whose_key_is_revoked_leaves_no_will(plane):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text, will=Will("gone/1", b"1", 0, False))
        plane.change_key(revoked_at=1.0)
        await mqtt.ends()
    await disconnected(plane)
    assert await published_wills(plane) == []


@pytest.mark.parametrize(
    "change",
    [{"scopes": ["publish:*"]}, {"scopes": ["publish:*", "subscribe:news"]}, {"allowed_ips": ["192.0.2.0/24"]}],
    ids=["no right to subscribe", "no right to its filter", "no right from this address"],
)
@VERSIONS
async def test_a_client_that_is_disconnected_as_forbidden_leaves_no_will(plane, version, change):
    async with client(plane, version) as mqtt:
        await mqtt.connect(plane.key.text, will=Will("gone/1", b"1", 0, False))
        await mqtt.subscribe(("trades", 0))
        plane.change_key(**change)
        await mqtt.ends()
    await disconnected(plane)
    assert await published_wills(plane) == []


async def test_a_client_that_has_lost_the_right_to_its_topic_leaves_no_will(plane):
    async with client(plane, V5) as mqtt:
        await mqtt.connect(plane.key.text, will=Will("gone/1", b"1", 0, False))
        plane.change_key(scopes=["publish:trades"])
        assert await mqtt.is_served()
        mqtt.writer.transport.abort()
    await disconnected(plane)
    assert await published_wills(plane) == []
