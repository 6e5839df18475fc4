"""Ceilings of MQTT connections before CONNECT is accepted, memory, and PROXY headers, through real sockets."""

import asyncio
from contextlib import asynccontextmanager
from ipaddress import ip_network

import pytest

from gateway.listening.capacity import Capacity
from gateway.listening.ceilings import Ceilings
from gateway.listening.memory import Level, MemoryBudget
from gateway.listening.tcp_connections import Ceiling
from gateway.tests.event_plane import WAIT_S, channel
from gateway.tests.mqtt_client import client
from gateway.tests.mqtt_plane import mqtt_plane
from gateway.wire.mqtt.packets import V5, V311
from gateway.wire.proxy_header import LOCAL
from gateway.wire.tests.test_proxy_header import header

CHANNELS = [channel("trades")]
VERSIONS = pytest.mark.parametrize("version", [V311, V5])
UNFINISHED_CONNECT = b"\x10\x40\x00\x04MQTT\x04"
PROXY, CLIENT = "127.0.0.7", "203.0.113.9"


class Settings:
    trusted_proxies = ()
    anonymous_connections_max = 60
    anonymous_connections_per_ip = 10
    head_max_bytes = 1024
    path_max_bytes = 1024


class Sizes:
    bytes = 0

    def __call__(self):
        return self.bytes


@pytest.fixture
def capacity():
    capacity = Capacity(Settings(), files=1000, memory=MemoryBudget(100 * 2**20, Sizes()))
    capacity.connections.ceilings = Ceilings(files=10_000, anonymous=60, of_network_at_once=30, of_network=10)
    return capacity


@pytest.fixture
async def plane(nats_server, tmp_path, capacity):
    proxies = (ip_network(f"{PROXY}/32"),)
    settings = {"proxy_protocol_from": proxies, "failed_keys_per_minute": 2}
    async with mqtt_plane(nats_server.url, tmp_path, CHANNELS, capacity=capacity, **settings) as plane:
        yield plane


@asynccontextmanager
async def flood(plane, count, first):
    streams = []
    for _ in range(count):
        streams.append(await asyncio.open_connection("127.0.0.1", plane.mqtt_port))
        streams[-1][1].write(first)
    try:
        yield streams
    finally:
        for _, writer in streams:
            writer.transport.abort()


async def eventually(condition):
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


async def answer_to(plane, version, first, key=None):
    """Connect from the proxy, send what it would, and return the code of CONNACK; None if there is none."""
    async with client(plane, version, PROXY) as mqtt:
        mqtt.write(first)
        try:
            return (await mqtt.connect(key or plane.key.text)).content[1]
        except (asyncio.IncompleteReadError, ConnectionError):
            return None


@VERSIONS
@pytest.mark.parametrize("first", [b"", UNFINISHED_CONNECT], ids=["silent", "half of CONNECT"])
async def test_clients_that_never_connect_keep_nobody_out(plane, capacity, version, first):
    async with client(plane, version) as kept:
        assert (await kept.connect(plane.key.text)).content[1] == 0
        async with flood(plane, 200, first):
            for _ in range(10):
                async with client(plane, version) as mqtt:
                    assert (await mqtt.connect(plane.key.text)).content[1] == 0
                    assert await mqtt.is_served()
                assert await kept.is_served()
            assert capacity.connections.shed[Ceiling.ADDRESS] >= 160
        assert await kept.is_served()
    await eventually(lambda: capacity.connections.anonymous == 0)
    assert capacity.connections.with_credential <= 1


@VERSIONS
async def test_accepted_clients_are_not_counted(plane, capacity, version):
    clients = []
    for number in range(20):
        mqtt = client(plane, version)
        clients.append((mqtt, await mqtt.__aenter__()))
        assert (await clients[-1][1].connect(plane.key.text, client_id=f"c{number}")).content[1] == 0
    assert (capacity.connections.anonymous, capacity.connections.with_credential) == (0, 20)
    async with flood(plane, 100, b""):
        assert all([await one.is_served() for _, one in clients])
    for manager, _ in clients:
        await manager.__aexit__(None, None, None)


@pytest.mark.parametrize(("version", "code"), [(V311, 3), (V5, 0x89)])
async def test_at_the_memory_budget_new_clients_are_refused_and_open_ones_served(plane, capacity, version, code):
    async with client(plane, version) as kept:
        assert (await kept.connect(plane.key.text)).content[1] == 0
        capacity.memory._read.bytes = 95 * 2**20
        await eventually(lambda: capacity.memory.level is Level.FULL)
        async with client(plane, version) as mqtt:
            assert (await mqtt.connect(plane.key.text)).content[1] == code
        assert await kept.is_served()
        capacity.memory._read.bytes = 0
        await eventually(lambda: capacity.memory.level is not Level.FULL)
        async with client(plane, version) as mqtt:
            assert (await mqtt.connect(plane.key.text)).content[1] == 0


async def test_the_client_that_a_proxy_reports_is_the_clients_address(plane):
    assert await answer_to(plane, V5, header(CLIENT)) == 0
    assert await answer_to(plane, V311, LOCAL) == 0
    wrong = plane.key.text[:-7] + "aaaaaaa"
    codes = [await answer_to(plane, V5, header(CLIENT), wrong) for _ in range(3)]
    assert codes[0] == codes[1] != codes[2]
    assert await answer_to(plane, V5, header("203.0.113.10"), wrong) == codes[0]


async def test_without_a_valid_header_a_proxys_connection_is_closed(plane, capacity):
    assert await answer_to(plane, V311, b"") is None
    assert await answer_to(plane, V5, b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n") is None
    assert capacity.malformed_proxy_headers == 2
    async with client(plane, V5) as mqtt:
        mqtt.write(header(CLIENT))
        assert await mqtt.ends() == b""
