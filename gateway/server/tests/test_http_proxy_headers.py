"""PROXY headers before HTTP, through real sockets: whom they are believed, and what they change."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network

import pytest

from gateway.listening.tcp_connections import Ceiling
from gateway.tests.http_plane import Caller, echo, eventually, route, running, upstream_that
from gateway.wire.proxy_header import LOCAL, SIGNATURE
from gateway.wire.tests.test_proxy_header import TLV, UNIX, header

PROXY, OTHER = "127.0.0.7", "127.0.0.8"
CLIENT = "203.0.113.9"


@pytest.fixture
async def plane(tmp_path):
    async with plane_of(tmp_path) as plane:
        yield plane


@asynccontextmanager
async def plane_of(tmp_path, **settings):
    proxies = (ip_network(f"{PROXY}/32"),)
    async with upstream_that(echo) as behind:
        routes = [route("r", "/r", behind.url)]
        async with running(tmp_path, routes, proxy_protocol_from=proxies, **settings) as plane:
            plane.behind = behind
            yield plane


@asynccontextmanager
async def connected(plane, ip=PROXY):
    reader, writer = await asyncio.open_connection("127.0.0.1", plane.port, local_addr=(ip, 0))
    try:
        yield Caller(plane, reader, writer)
    finally:
        writer.transport.abort()


async def seen_by_upstream(plane, *first, ip=PROXY):
    async with connected(plane, ip) as caller:
        for part in first:
            caller.send(part)
            await asyncio.sleep(0)
        assert (await caller.ask("GET", "/r")).status == 200
    return plane.behind.requests[-1].header("x-forwarded-for")


@pytest.mark.parametrize("client", [CLIENT, "2001:db8::9", "::ffff:203.0.113.9"])
@pytest.mark.parametrize("more", [b"", TLV * 20])
async def test_the_reported_client_is_the_caller(plane, client, more):
    expected = client.removeprefix("::ffff:")
    assert await seen_by_upstream(plane, header(client, more=more)) == [expected]


async def test_a_header_may_come_byte_by_byte_and_with_the_request_behind_it(plane):
    one_by_one = [bytes([byte]) for byte in header(CLIENT, more=TLV)]
    assert await seen_by_upstream(plane, *one_by_one) == [CLIENT]
    async with connected(plane) as caller:
        caller.send(header(CLIENT) + caller.head("GET", "/r") + caller.head("GET", "/r"))
        assert [(await caller.answer()).status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize(
    "first", [LOCAL, SIGNATURE + b"\x21\x00\x00\x00", SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216)]
)
async def test_without_a_reported_client_it_is_the_proxy_itself(plane, first):
    assert await seen_by_upstream(plane, first) == [PROXY]


@pytest.mark.parametrize(
    "first",
    [
        b"GET /r HTTP/1.1\r\nhost: x\r\n\r\n",
        b"PROXY TCP4 203.0.113.9 127.0.0.1 5 443\r\n",
        SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\xff\xff",
        header(CLIENT, family=0x12),
        header(CLIENT, family=UNIX),
    ],
    ids=["none", "version 1", "unknown version", "too long", "datagram", "short"],
)
async def test_a_proxy_that_sends_no_valid_header_is_closed_and_counted(plane, first):
    async with connected(plane) as caller:
        caller.send(first)
        assert await caller.is_closed()
    assert plane.capacity.malformed_proxy_headers == 1
    assert plane.behind.requests == []
    await eventually(lambda: plane.capacity.connections.anonymous == 0)


async def test_a_header_that_does_not_end_is_closed_in_time(tmp_path):
    async with plane_of(tmp_path, head_timeout_s=0.1) as plane, connected(plane) as caller:
        caller.send(header(CLIENT)[:-1])
        assert await caller.is_closed()
        assert plane.capacity.malformed_proxy_headers == 1


async def test_from_anybody_else_a_header_is_bad_input(plane):
    async with connected(plane, OTHER) as caller:
        caller.send(header(CLIENT) + caller.head("GET", "/r"))
        assert (await caller.answer()).status == 400
        assert await caller.is_closed()
    assert plane.never_calls[-1].cause == "malformed-request"
    assert await seen_by_upstream(plane, ip=OTHER) == [OTHER]


async def test_the_header_of_a_proxy_in_front_of_another_is_believed_and_then_the_others(tmp_path):
    async with plane_of(tmp_path, trusted_proxies=(ip_network("10.0.0.0/8"),)) as plane, connected(plane) as caller:
        caller.send(header("10.1.1.1"))
        answer = await caller.ask("GET", "/r", f"x-forwarded-for: 198.51.100.1, {CLIENT}")
        assert answer.status == 200
        assert plane.behind.requests[-1].header("x-forwarded-for")[-1].endswith(CLIENT)


async def test_wrong_keys_are_counted_by_the_reported_client(tmp_path):
    async with plane_of(tmp_path, failed_keys_per_minute=2) as plane:
        wrong = plane.other_key.text[:-7] + "aaaaaaa"

        async def status(client):
            async with connected(plane) as caller:
                caller.send(header(client))
                return (await caller.ask("GET", "/r", f"x-api-key: {wrong}", key=None)).status

        assert [await status(CLIENT) for _ in range(3)] == [401, 401, 429]
        assert await status("203.0.113.10") == 401


async def test_idle_clients_are_counted_by_the_address_that_is_reported(plane):
    ceilings = plane.capacity.connections.ceilings
    async with connected(plane) as first, connected(plane) as other:
        first.send(header(CLIENT))
        other.send(header("203.0.113.10"))
        await eventually(lambda: len(plane.capacity.connections._networks) == 2)
        plane.capacity.connections.ceilings = replace(ceilings, of_network_at_once=3, of_network=3)
        flood = [await asyncio.open_connection("127.0.0.1", plane.port, local_addr=(PROXY, 0)) for _ in range(3)]
        for _, writer in flood:
            writer.write(header(CLIENT))
        answer = await first.answer()
        assert json.loads(answer.body)["reason"] == "overloaded"
        assert plane.capacity.connections.shed == {Ceiling.ADDRESS: 1}
        assert (await other.ask("GET", "/r")).status == 200
        for _, writer in flood:
            writer.transport.abort()
