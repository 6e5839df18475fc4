"""The link to NATS: made soon or not at all, and then kept."""

import asyncio
import socket

import pytest

from gateway.link import nats as nats_link
from gateway.link.nats import connect, ensure_infrastructure
from gateway.tests.nats_server import NatsServer


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(nats_link, "FIRST_WITHIN_S", 0.3)


async def test_where_nobody_listens_it_fails_soon():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with asyncio.timeout(10):
        with pytest.raises((OSError, TimeoutError)):
            await connect(f"nats://127.0.0.1:{port}", "tests")


async def test_where_somebody_listens_and_says_nothing_it_fails_soon():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with asyncio.timeout(10):
            with pytest.raises((OSError, TimeoutError)):
                await connect(f"nats://127.0.0.1:{silent.getsockname()[1]}", "tests")


async def test_what_failed_leaves_nothing_behind():
    before = asyncio.all_tasks()
    with pytest.raises((OSError, TimeoutError)):
        await connect("nats://127.0.0.1:1", "tests")
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_a_nats_with_little_room_gets_smaller_streams(tmp_path, monkeypatch):
    monkeypatch.setattr(nats_link, "FIRST_WITHIN_S", 5)
    server = NatsServer(tmp_path, store_max="200MB")
    server.start()
    try:
        client, js = await connect(server.url, "tests")
        await ensure_infrastructure(js)
        sizes = [(await js.stream_info(name)).config.max_bytes for name in ("USAGE", "DEAD", "RETRIES")]
        await ensure_infrastructure(js)
        await client.close()
    finally:
        server.kill()
    assert all(0 < size < 200_000_000 for size in sizes)
