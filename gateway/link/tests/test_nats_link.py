"""The first connection to NATS fails within a bounded time, and streams fit the space that there is."""

import asyncio
import socket

import pytest

from gateway.link import nats as nats_link
from gateway.link.nats import connect, ensure_infrastructure, read_all
from gateway.tests.nats_server import NatsServer


@pytest.fixture(autouse=True)
def short_timeout(monkeypatch):
    monkeypatch.setattr(nats_link, "CONNECT_TIMEOUT_S", 0.3)


async def test_connecting_fails_soon_where_nothing_listens():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with asyncio.timeout(10):
        with pytest.raises((OSError, TimeoutError)):
            await connect(f"nats://127.0.0.1:{port}", "tests")


async def test_connecting_fails_soon_where_the_server_is_silent():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with asyncio.timeout(10):
            with pytest.raises((OSError, TimeoutError)):
                await connect(f"nats://127.0.0.1:{silent.getsockname()[1]}", "tests")


async def test_a_failed_connection_leaves_no_task_behind():
    before = asyncio.all_tasks()
    with pytest.raises((OSError, TimeoutError)):
        await connect("nats://127.0.0.1:1", "tests")
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_a_nats_with_little_storage_gets_smaller_streams(tmp_path, monkeypatch):
    monkeypatch.setattr(nats_link, "CONNECT_TIMEOUT_S", 5)
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


async def test_counts_of_withheld_deliveries_move_out_of_the_stream_of_retries(nats_server):
    client, js = await connect(nats_server.url, "test")
    try:
        await ensure_infrastructure(js)
        await js.delete_stream(nats_link.WITHHELD_STREAM)  # as a version before the split has it
        retry = b'{"id":7}'
        await js.publish("_apimgmt.retries.sub_a.7", retry)
        for event_id in range(3):
            await js.publish(f"_apimgmt.retries.sub_b.{event_id}", b"%d" % (event_id + 1))
        await ensure_infrastructure(js)
        counts = await read_all(client, nats_link.WITHHELD_STREAM, "_apimgmt.withheld.sub_b.*", batch=2)
        assert [message.data for message in counts] == [b"1", b"2", b"3"]
        assert [one.data for one in await read_all(client, nats_link.RETRIES_STREAM, "_apimgmt.retries.>")] == [retry]
    finally:
        await js.purge_stream(nats_link.RETRIES_STREAM)
        await js.purge_stream(nats_link.WITHHELD_STREAM)
        await client.close()
