"""Ceilings of anonymous connections, through real sockets: idle ones never keep out a caller with a key."""

import asyncio
import json
import os
import resource
import socket
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from ipaddress import ip_network

import pytest
from websockets.asyncio.client import connect

from gateway.listening.capacity import Capacity
from gateway.listening.ceilings import Ceilings
from gateway.listening.memory import Level, MemoryBudget
from gateway.listening.tcp_connections import ANONYMOUS_WHEN_TIGHT, Ceiling
from gateway.server.server import SWEEP_S
from gateway.tests.http_plane import Caller, ask, caller_of, echo, eventually, route, running, upstream_that

LOOPBACK, OTHER = "127.0.0.1", "127.0.0.2"
HEAD = b"GET /r HTTP/1.1\r\nhost: x\r\n"


class Sizes:
    """The resident size of the process, as the test sets it."""

    bytes = 0

    def __call__(self):
        return self.bytes


@pytest.fixture
def sizes():
    return Sizes()


@pytest.fixture
async def plane(tmp_path, sizes):
    async with upstream_that(echo) as behind, plane_of(tmp_path, sizes, behind) as plane:
        yield plane


@asynccontextmanager
async def plane_of(tmp_path, sizes, behind, **settings):
    routes = [route("r", "/r", behind.url), route("ws", "/ws", behind.url.replace("http", "ws"), protocol="websocket")]
    async with running(tmp_path, routes, **settings) as plane:
        ceilings = Ceilings(files=10_000, anonymous=60, of_network_at_once=30, of_network=10)
        plane.capacity.connections.ceilings = ceilings
        plane.capacity.memory = MemoryBudget(100 * 2**20, sizes)
        yield plane


@asynccontextmanager
async def flood(plane, count, first=b"", ip=LOOPBACK):
    """Open connections that send ``first`` and nothing more."""
    async with AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(caller_from(plane, ip)) for _ in range(count)]
        for caller in callers:
            caller.send(first)
        yield callers


@asynccontextmanager
async def caller_from(plane, ip):
    reader, writer = await asyncio.open_connection("127.0.0.1", plane.port, local_addr=(ip, 0))
    try:
        yield Caller(plane, reader, writer)
    finally:
        writer.transport.abort()


def shed(plane, ceiling):
    return plane.capacity.connections.shed[ceiling]


@pytest.mark.parametrize(
    "first",
    [b"", HEAD, b"GET /nowhere" + HEAD.removeprefix(b"GET /r") + b"\r\n", HEAD + b"\r\n"],
    ids=["silent", "half a head", "not found", "without a key"],
)  # fmt: skip
@pytest.mark.parametrize("ip", [LOOPBACK, OTHER])
async def test_idle_connections_keep_nobody_out(plane, first, ip):
    async with caller_of(plane) as kept:
        assert (await kept.ask("GET", "/r")).status == 200
        async with flood(plane, 200, first):
            for _ in range(20):
                async with caller_from(plane, ip) as caller:
                    assert (await caller.ask("GET", "/r")).status == 200
                assert (await kept.ask("GET", "/r")).status == 200
            assert shed(plane, Ceiling.ADDRESS) >= 170
    await eventually(lambda: plane.capacity.connections.anonymous == 0)
    assert (await ask(plane, "GET", "/r")).status == 200


async def test_beyond_a_moment_an_address_keeps_fewer(plane):
    async with flood(plane, 30):
        await eventually(lambda: plane.capacity.connections.anonymous == 10)
    assert shed(plane, Ceiling.ADDRESS) == 20


async def test_from_many_addresses_those_that_wait_longest_make_room(plane):
    async with AsyncExitStack() as stack:
        for number in range(10, 30):
            await stack.enter_async_context(flood(plane, 9, ip=f"127.0.0.{number}"))
        assert (await ask(plane, "GET", "/r")).status == 200
        assert plane.capacity.connections.anonymous <= 60
        assert shed(plane, Ceiling.PROCESS) >= 120


async def test_the_one_that_is_closed_is_answered_overloaded(plane):
    async with caller_of(plane) as caller, flood(plane, 30):
        answer = await caller.answer()
        assert (answer.status, answer.header("connection"), answer.header("retry-after")) == (503, "close", "2")
        assert json.loads(answer.body)["reason"] == "overloaded"
        assert await caller.is_closed()


async def test_one_that_was_answered_and_is_idle_is_closed_without_an_answer(plane):
    async with caller_of(plane) as caller:
        assert (await caller.ask("GET", "/nowhere", key=None)).status == 404
        async with flood(plane, 30):
            assert await caller.is_closed()


async def test_open_sockets_and_a_pool_of_a_keys_connections_are_not_counted(plane):
    headers = {"x-api-key": plane.key.text}
    async with AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(caller_of(plane)) for _ in range(25)]
        for caller in callers:
            assert (await caller.ask("GET", "/r")).status == 200
        async with flood(plane, 100):
            for caller in callers:
                assert (await caller.ask("GET", "/r")).status == 200
        assert plane.capacity.connections.with_credential == 25
        with pytest.raises(Exception, match="HTTP 200"):
            await connect(f"ws://127.0.0.1:{plane.port}/ws", additional_headers=headers)


async def test_after_a_refusal_a_connection_is_kept_for_a_shorter_time(tmp_path, sizes):
    async with (
        upstream_that(echo) as behind,
        plane_of(tmp_path, sizes, behind, anonymous_keep_alive_s=0.1) as plane,
        caller_of(plane) as proved,
        caller_of(plane) as refused,
        caller_of(plane) as lost,
    ):
        assert (await proved.ask("GET", "/r")).status == 200
        assert (await lost.ask("GET", "/r")).status == 200
        assert (await refused.ask("GET", "/r", key=None)).status == 401
        assert (await lost.ask("GET", "/nowhere")).status == 404
        assert await refused.is_closed()
        assert await lost.is_closed()
        assert (await proved.ask("GET", "/r")).status == 200


async def test_behind_a_trusted_proxy_callers_are_counted_by_the_address_that_it_reports(tmp_path, sizes):
    proxies = (ip_network(LOOPBACK),)
    async with upstream_that(echo) as behind, plane_of(tmp_path, sizes, behind, trusted_proxies=proxies) as plane:
        async with flood(plane, 50):
            assert (await ask(plane, "GET", "/r", "x-forwarded-for: 203.0.113.9")).status == 200
            await asyncio.sleep(2 * SWEEP_S)
            assert shed(plane, Ceiling.ADDRESS) == 0
        slow = b"POST /docs HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 203.0.113.9\r\ncontent-length: 9\r\n\r\n"
        async with flood(plane, 50, slow):
            assert (await ask(plane, "GET", "/r", "x-forwarded-for: 203.0.113.9")).status == 200


async def test_when_files_are_scarce_anonymous_connections_make_room(plane):
    ceilings = plane.capacity.connections.ceilings
    async with flood(plane, 20):
        await eventually(lambda: plane.capacity.connections.anonymous == 20)
        plane.capacity.connections.ceilings = replace(ceilings, files=3)
        assert (await ask(plane, "GET", "/r")).status == 200
    await eventually(lambda: plane.capacity.connections.anonymous == 0)
    assert shed(plane, Ceiling.FILES) >= 1


@contextmanager
def no_file_left():
    """Let this process open no further file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_without_any_file_accepting_pauses_and_goes_on(plane):
    async with caller_of(plane) as kept:
        assert (await kept.ask("GET", "/r")).status == 200
        kept.send(kept.head("POST", "/r", "content-length: 3") + b"ab")
        await eventually(lambda: all(one.is_busy for one in plane.capacity.connections._proved))
        waiting = socket.socket()
        waiting.setblocking(False)
        with no_file_left():
            await asyncio.get_running_loop().sock_connect(waiting, (LOOPBACK, plane.port))
            await eventually(lambda: plane.capacity.accept_failures >= 2)
            kept.send(b"c")
            assert (await kept.answer()).body == b"/ abc"
            assert plane.capacity.accept_failures < 50
        reader, writer = await asyncio.open_connection(sock=waiting)
        assert (await Caller(plane, reader, writer).ask("GET", "/r")).status == 200
        writer.close()


async def test_without_any_file_an_anonymous_connection_makes_room(plane):
    async with caller_of(plane) as silent, caller_of(plane) as kept:
        assert (await kept.ask("GET", "/r")).status == 200
        waiting = socket.socket()
        waiting.setblocking(False)
        with no_file_left():
            await asyncio.get_running_loop().sock_connect(waiting, (LOOPBACK, plane.port))
            assert (await silent.answer()).status == 503
            reader, writer = await asyncio.open_connection(sock=waiting)
            assert (await Caller(plane, reader, writer).ask("GET", "/r")).status == 200
            writer.close()


async def test_near_its_memory_budget_the_anonymous_go_and_a_key_is_served(plane, sizes):
    async with flood(plane, 30, ip=OTHER), caller_of(plane) as kept:
        assert (await kept.ask("GET", "/r")).status == 200
        sizes.bytes = 80 * 2**20
        await eventually(lambda: plane.capacity.memory.level is Level.TIGHT)
        await eventually(lambda: plane.capacity.connections.anonymous == 0)
        assert shed(plane, Ceiling.MEMORY) == 30
        assert (await kept.ask("GET", "/r")).status == 200
        assert (await ask(plane, "GET", "/r")).status == 200
        async with flood(plane, 2 * ANONYMOUS_WHEN_TIGHT, ip=OTHER):
            assert plane.capacity.connections.anonymous <= ANONYMOUS_WHEN_TIGHT
            assert (await ask(plane, "GET", "/r")).status == 200


async def test_at_its_memory_budget_new_work_is_refused_until_there_is_room(plane, sizes):
    sizes.bytes = 95 * 2**20
    await eventually(lambda: plane.capacity.memory.level is Level.FULL)
    answer = await ask(plane, "POST", "/r", body=b"abc")
    assert (answer.status, answer.header("retry-after")) == (503, "2")
    assert json.loads(answer.body)["reason"] == "overloaded"
    assert plane.never_calls[-1].cause == "memory"
    with pytest.raises(Exception, match="503"):
        await connect(f"ws://127.0.0.1:{plane.port}/ws", additional_headers={"x-api-key": plane.key.text})
    assert (await ask(plane, "GET", "/healthz", key=None)).status == 404
    sizes.bytes = 80 * 2**20
    await asyncio.sleep(0)
    sizes.bytes = 10 * 2**20
    await eventually(lambda: plane.capacity.memory.level is not Level.FULL)
    assert (await ask(plane, "GET", "/r")).status == 200


async def test_the_figures_are_among_the_metrics():
    from prometheus_client import generate_latest
    from prometheus_client.registry import CollectorRegistry

    registry = CollectorRegistry()
    registry.register(Capacity(_Settings(), files=1000))
    text = generate_latest(registry).decode()
    for name in ("tcp_connections", "connections_shed_total", "accept_failures_total", "memory_level"):
        assert f"apimgmt_{name}" in text


class _Settings:
    trusted_proxies = ()
    anonymous_connections_max = 100
    anonymous_connections_per_ip = 10
    head_max_bytes = 1024
    path_max_bytes = 1024
    memory_max_bytes = None
