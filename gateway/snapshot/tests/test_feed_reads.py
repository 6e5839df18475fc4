"""What the feed makes of the bucket's messages, over a bucket in memory."""

import asyncio
from types import SimpleNamespace

import orjson
import pytest

from gateway.snapshot import feed as snapshot_feed
from gateway.snapshot.bucket import PREFIX, STREAM, kv_key, object_of
from gateway.snapshot.feed import BATCH, SnapshotFeed
from gateway.snapshot.picture import Snapshot

WITHIN_S = 10


class MemoryBucket:
    """The messages of a bucket, and the client that reads them."""

    def __init__(self):
        self.messages = []
        self.sequence = 0
        self.stats = {"reconnects": 0}
        self.failures = 0
        self.reads = []
        self.nudge = None
        self.subscribed = []

    async def subscribe(self, subject, cb):
        self.subscribed.append(subject)
        self.nudge = cb

    async def read_batch(self, client, stream, subject, first, most):
        assert (client, stream, subject) == (self, STREAM, f"{PREFIX}>")
        self.reads.append(first)
        if self.failures:
            self.failures -= 1
            raise TimeoutError
        return [message for message in self.messages if int(message.headers["Nats-Sequence"]) >= first][:most]

    def put_raw(self, key, data, **headers):
        self.sequence += 1
        headers |= {"Nats-Sequence": str(self.sequence), "Nats-Subject": PREFIX + key}
        self.messages.append(SimpleNamespace(headers=headers, data=data))

    def put(self, name):
        self.put_raw(kv_key("tier", name), orjson.dumps({"name": name}))

    def delete(self, name, operation="DEL"):
        self.put_raw(kv_key("tier", name), b"", **{"KV-Operation": operation})

    def recreate(self, *names):
        self.messages, self.sequence = [], 0
        for name in names:
            self.put(name)

    async def reconnect(self):
        self.stats["reconnects"] += 1
        await self.nudge(None)


@pytest.fixture
def bucket(monkeypatch):
    bucket = MemoryBucket()
    monkeypatch.setattr(snapshot_feed, "read_batch", bucket.read_batch)
    monkeypatch.setattr(snapshot_feed, "RETRY_S", 0.001)
    return bucket


@pytest.fixture
async def started(bucket):
    bucket.put("gold")
    bucket.put("free")
    snapshot = Snapshot()
    feed = SnapshotFeed(bucket, snapshot)
    await feed.start()
    yield snapshot
    await feed.stop()


def tiers(*names):
    return {("tier", name) for name in names}


async def until(is_so):
    async with asyncio.timeout(WITHIN_S):
        while not is_so():
            await asyncio.sleep(0.001)


async def test_an_emptied_bucket_leaves_the_last_picture_until_it_is_filled_again(bucket, started, caplog):
    bucket.recreate()
    await bucket.reconnect()
    await until(lambda: "the bucket is empty" in caplog.text)
    assert started.names() == tiers("gold", "free")
    # The relay fills it: what has no document there now is gone, but only what comes up is known to be there.
    bucket.put("gold")
    await bucket.reconnect()
    await until(lambda: started.names() == tiers("gold"))


async def test_after_a_reconnect_the_bucket_is_compared_whole(bucket, started):
    revision = started.revision
    bucket.recreate("silver", "free")
    await bucket.reconnect()
    await until(lambda: started.revision > revision)
    assert started.names() == tiers("silver", "free")
    assert 1 in bucket.reads[1:]


async def test_what_a_recreated_bucket_deletes_is_gone(bucket, started):
    bucket.recreate("gold")
    bucket.delete("gold")
    bucket.put("silver")
    await bucket.reconnect()
    await until(lambda: started.names() == tiers("silver"))


async def test_the_comparison_is_tried_again_when_the_bucket_does_not_answer(bucket, started, caplog):
    bucket.recreate("silver")
    bucket.failures = 2
    await bucket.reconnect()
    await until(lambda: started.names() == tiers("silver"))
    assert "could not be read" in caplog.text
    assert "TimeoutError" in caplog.text


@pytest.mark.parametrize("operation", ["DEL", "PURGE"])
async def test_deleted_and_purged_documents_leave_the_picture(bucket, started, operation):
    bucket.delete("gold", operation)
    await bucket.nudge(None)
    await until(lambda: started.names() == tiers("free"))


async def test_each_change_is_read_once(bucket, started):
    bucket.put("silver")
    await bucket.nudge(None)
    await until(lambda: len(started.names()) == 3)
    assert bucket.reads[0] == 1
    assert set(bucket.reads[1:]) <= {3, 4}


async def test_more_than_one_batch_is_read_before_it_starts(bucket):
    for number in range(2 * BATCH):
        bucket.put(f"tier-{number}")
    snapshot = Snapshot()
    feed = SnapshotFeed(bucket, snapshot)
    await feed.start()
    assert len(snapshot.names()) == 2 * BATCH
    assert bucket.reads == [1, BATCH + 1, 2 * BATCH + 1]
    assert bucket.subscribed == [f"{PREFIX}>"]
    await feed.stop()


async def test_a_start_without_the_bucket_fails(bucket):
    bucket.failures = 1
    with pytest.raises(TimeoutError):
        await SnapshotFeed(bucket, Snapshot()).start()


async def test_documents_that_cannot_be_read_are_left_out_and_logged(bucket, started, caplog):
    bucket.put_raw("tier.a", b"{}")
    bucket.put_raw(kv_key("tier", "bad"), b"{")
    bucket.put("silver")
    await bucket.nudge(None)
    await until(lambda: started.names() == tiers("gold", "free", "silver"))
    assert caplog.text.count(PREFIX) == 2


async def test_without_a_nudge_it_looks_again_after_a_while(bucket, monkeypatch):
    monkeypatch.setattr(snapshot_feed, "POLL_S", 0.01)
    snapshot = Snapshot()
    feed = SnapshotFeed(bucket, snapshot)
    await feed.start()
    bucket.put("gold")
    await until(lambda: snapshot.names() == tiers("gold"))
    await feed.stop()


@pytest.mark.parametrize("name", ["gold", "sensors/{id}/t", "*", "naïve name", "a", "ab", "abc"])
def test_names_of_any_characters_make_a_valid_key(name):
    key = kv_key("channel", name)
    assert set(key.removeprefix("channel.")) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
    assert object_of(key) == ("channel", name)


def test_ids_of_keys_are_kept_as_they_are():
    assert kv_key("key", "0aZ") == "key.0aZ"
    assert object_of("key.0aZ") == ("key", "0aZ")


async def test_a_failed_read_is_repeated_after_a_pause_and_without_another_notification(bucket, monkeypatch):
    monkeypatch.setattr(snapshot_feed, "POLL_S", 60)
    monkeypatch.setattr(snapshot_feed, "REREAD_S", ())
    monkeypatch.setattr(snapshot_feed, "RETRY_S", 0.2)
    snapshot = Snapshot()
    feed = SnapshotFeed(bucket, snapshot)
    await feed.start()
    bucket.put("gold")
    bucket.failures = 1
    began_at = asyncio.get_running_loop().time()
    await bucket.nudge(None)
    await until(lambda: snapshot.names() == tiers("gold"))
    assert asyncio.get_running_loop().time() - began_at >= 0.2
    await feed.stop()


async def test_a_stopped_feed_reads_nothing_more(bucket):
    feed = SnapshotFeed(bucket, Snapshot())
    await feed.start()
    await feed.stop()
    reads = len(bucket.reads)
    await bucket.nudge(None)
    await asyncio.sleep(0.05)
    assert len(bucket.reads) == reads


@pytest.mark.parametrize(("data", "headers"), [(b"", {}), (b'{"name": "gold"}', {"KV-Operation": "DEL"})])
async def test_an_empty_document_and_a_delete_marker_remove_the_object(bucket, started, data, headers):
    bucket.put_raw(kv_key("tier", "gold"), data, **headers)
    await bucket.nudge(None)
    await until(lambda: started.names() == tiers("free"))
