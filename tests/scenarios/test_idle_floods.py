"""Thousands of idle connections of one address, beside callers with a key: no error, and nothing left afterwards."""

import asyncio
import http.client
import re
import socket
from contextlib import asynccontextmanager
from functools import partial

import pytest

from gateway.concurrency.stopping import stop_tasks
from gateway.wire.mqtt import codec
from gateway.wire.mqtt.packets import V311, Connect
from gateway.wire.tests.test_proxy_header import header
from tests.product import Product, eventually

pytestmark = pytest.mark.xdist_group("product")
FLOOD = 2_000
SAME, OTHER, PROXY, CLIENT = "127.0.0.1", "127.0.0.2", "127.0.0.7", "203.0.113.9"
HALF_A_HEAD = b"GET /v1/me HTTP/1.1\r\nhost: x\r\nx-filler: "
HALF_A_CONNECT = b"\x10\x40\x00\x04MQTT"
PINGREQ, PINGRESP = b"\xc0\x00", b"\xd0\x00"


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    product = Product(tmp_path_factory.mktemp("idle") / "var", PROXY_PROTOCOL_FROM=f"{PROXY}/32", DRAIN_S="1")
    yield product
    product.stop()


@asynccontextmanager
async def flood(port, count, first=b"", ip=SAME):
    """Open connections that send ``first`` and nothing more."""
    loop, sockets = asyncio.get_running_loop(), []
    try:
        for _ in range(count):
            sockets.append(socket.socket())
            sockets[-1].setblocking(False)
            sockets[-1].bind((ip, 0))
            await loop.sock_connect(sockets[-1], ("127.0.0.1", port))
            await loop.sock_sendall(sockets[-1], first)
        yield sockets
    finally:
        for one in sockets:
            one.close()


@asynccontextmanager
async def connected(port, ip):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(ip, 0))
    try:
        async with asyncio.timeout(60):
            yield reader, writer
    finally:
        writer.transport.abort()


class Honest:
    """A caller with a key, which counts its answers; any other answer is an error."""

    def __init__(self, product, ip):
        self.product, self.ip = product, ip
        self.answers = 0

    async def ask(self, reader, writer):
        key = self.product.ready["keys"]["bench"]
        writer.write(f"GET /v1/me HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))
        self.answers += 1

    async def connect(self, reader, writer):
        key = self.product.ready["keys"]["bench"].encode()
        writer.write(codec.connect(Connect(V311, "", True, 0, "any", key)))
        assert (await reader.readexactly(4))[3] == 0

    async def ping(self, reader, writer):
        writer.write(PINGREQ)
        assert await reader.readexactly(2) == PINGRESP
        self.answers += 1

    async def http(self):
        """Ask on one connection, and on a new one each time."""
        async with connected(self.product.port, self.ip) as kept:
            while True:
                await self.ask(*kept)
                async with connected(self.product.port, self.ip) as new:
                    await self.ask(*new)
                await asyncio.sleep(0.02)

    async def mqtt(self):
        """Ping on one connection, and connect anew each time."""
        async with connected(self.product.mqtt_port, self.ip) as kept:
            await self.connect(*kept)
            while True:
                await self.ping(*kept)
                async with connected(self.product.mqtt_port, self.ip) as new:
                    await self.connect(*new)
                await asyncio.sleep(0.02)


def figure(product, name, process, label):
    """Return a figure of a process, by one of its labels."""
    _, _, text = product.call("GET", "/metrics")
    lines = [line for line in text.decode().splitlines() if line.startswith(f"{name}{{")]
    return sum(float(line.split()[-1]) for line in lines if f'process="{process}"' in line and label in line)


@pytest.mark.parametrize(
    ("protocol", "process", "first"),
    [
        ("http", "web-1", b""),
        ("http", "web-1", HALF_A_HEAD),
        ("mqtt", "mqtt-1", b""),
        ("mqtt", "mqtt-1", HALF_A_CONNECT),
    ],
    ids=["http", "half a head", "mqtt", "half of CONNECT"],
)
async def test_idle_connections_of_one_address_cost_callers_with_a_key_nothing(product, protocol, process, first):
    port = product.port if protocol == "http" else product.mqtt_port
    shed = partial(figure, product, "apimgmt_connections_shed_total", process, 'ceiling="address"')
    left = partial(figure, product, "apimgmt_tcp_connections", process, 'proved="no"')
    before = await asyncio.to_thread(shed)
    honest = [Honest(product, ip) for ip in (SAME, OTHER)]
    tasks = [asyncio.create_task(getattr(one, protocol)()) for one in honest]
    async with flood(port, FLOOD, first):
        for _ in range(30):
            await asyncio.sleep(0.1)
            assert not any(task.done() for task in tasks), [task.exception() for task in tasks if task.done()]
    assert all(one.answers > 10 for one in honest)
    await stop_tasks(*tasks)
    await asyncio.to_thread(eventually, lambda: shed() - before > FLOOD // 8)
    await asyncio.to_thread(eventually, lambda: left() < 10)


async def test_idle_connections_do_not_keep_operators_out(product):
    for port in (product.admin_port, product.port):
        async with flood(port, FLOOD):
            assert await asyncio.to_thread(product.admin, "GET", "tiers")


def test_the_connection_of_an_operator_is_not_anonymous(product):
    operator = http.client.HTTPConnection("127.0.0.1", product.admin_port)
    operator.request("GET", "/api/v1/tiers", headers={"Authorization": f"Token {product.ready['admin']['token']}"})
    operator.getresponse().read()
    proved = partial(figure, product, "apimgmt_tcp_connections", "admin-1", 'proved="yes"')
    eventually(lambda: proved() >= 1)
    operator.close()


async def test_the_client_that_a_proxy_reports_is_in_the_ledger(product):
    def ips():
        return [row["ip"] for row in product.admin("GET", "connections?state=open&protocol=mqtt")["results"]]

    async with connected(product.mqtt_port, PROXY) as (reader, writer):
        writer.write(header(CLIENT))
        await Honest(product, PROXY).connect(reader, writer)
        await asyncio.to_thread(eventually, lambda: CLIENT in ips())
    async with connected(product.port, PROXY) as (reader, writer):
        writer.write(header(CLIENT))
        await Honest(product, PROXY).ask(reader, writer)
