"""The snapshot follows its bucket: at once, also where a nudge is faster than what it tells of."""

import asyncio
import contextlib

import orjson
import pytest
from nats.js.errors import NotFoundError

from gateway.link.nats import connect, ensure_infrastructure
from gateway.snapshot import feed as snapshot_feed
from gateway.snapshot.bucket import STREAM, kv_key
from gateway.snapshot.feed import POLL_S, SnapshotFeed
from gateway.snapshot.picture import Snapshot

WITHIN_S = 20


@pytest.fixture
async def bucket(nats_url):
    """Return a client and a new, empty bucket."""
    client, js = await connect(nats_url, "tests")
    with contextlib.suppress(NotFoundError):
        await js.delete_stream(STREAM)
    await ensure_infrastructure(js)
    yield client, await js.key_value("snapshot")
    await client.close()


async def revision(snapshot, wanted):
    async with asyncio.timeout(WITHIN_S):
        while snapshot.revision < wanted:
            await asyncio.sleep(0.005)


async def put(bucket, name):
    await bucket.put(kv_key("tier", name), orjson.dumps({"name": name}))


async def test_what_is_there_is_loaded_and_what_comes_is_followed(bucket):
    client, stored = bucket
    await put(stored, "gold")
    snapshot = Snapshot()
    feed = SnapshotFeed(client, snapshot)
    await feed.start()
    assert snapshot.names() == {("tier", "gold")}
    await put(stored, "free")
    await stored.delete(kv_key("tier", "gold"))
    async with asyncio.timeout(WITHIN_S):
        while snapshot.names() != {("tier", "free")}:
            await asyncio.sleep(0.005)
    await feed.stop()


async def test_a_nudge_that_is_faster_than_what_it_tells_of_costs_no_seconds(bucket, monkeypatch):
    client, stored = bucket
    snapshot = Snapshot()
    feed = SnapshotFeed(client, snapshot)
    await feed.start()
    read_batch, looks = snapshot_feed.read_batch, []

    async def late(*requested):
        """Find nothing at the first look after each change: it is not stored yet."""
        looks.append(requested)
        return [] if len(looks) == 1 else await read_batch(*requested)

    monkeypatch.setattr(snapshot_feed, "read_batch", late)
    began_at = asyncio.get_running_loop().time()
    for number in range(1, 5):
        looks.clear()
        await put(stored, f"tier-{number}")
        await revision(snapshot, number)
    # Each would take all of it by itself.
    assert asyncio.get_running_loop().time() - began_at < 4 * POLL_S / 2
    await feed.stop()


async def test_it_stops_whatever_comes_at_that_moment(bucket):
    client, _ = bucket
    feed = SnapshotFeed(client, Snapshot())
    await feed.start()
    await asyncio.sleep(0.05)  # it waits for a nudge by now
    feed._changed.set()
    async with asyncio.timeout(WITHIN_S):
        await feed.stop()
