import asyncio
import random
from io import StringIO

import pytest
from asgiref.sync import sync_to_async
from django.core.management import CommandError, call_command
from django.utils import timezone
from nats.js.errors import NotFoundError

from audit import relay
from audit.models import Change
from audit.snapshot_documents import all_documents
from audit.tests.conftest import in_thread, running, until
from audit.tests.histories import step
from consumers.models import Consumer, Tier
from consumers.services import create_consumer, create_tier, delete_consumer, delete_tier, update_consumer, update_tier
from events.models import Channel
from events.services import create_channel, delete_channel
from gateway.link.nats import SNAPSHOT_BUCKET, ensure_infrastructure
from gateway.snapshot.bucket import STREAM, kv_key
from gateway.snapshot.feed import SnapshotFeed
from gateway.snapshot.picture import Snapshot
from gateway.wire.subjects import stored_prefix, stream_of
from keys.services import issue_key, revoke_key

pytestmark = pytest.mark.django_db(transaction=True)


def some_rows():
    tier = create_tier(name="gold", by="ann")
    consumer = create_consumer(name="acme", tier=tier, by="ann")
    key, _ = issue_key(consumer=consumer, by="ann")
    create_channel(address="trades", by="ann")
    return tier, consumer, key


def written():
    return {kv_key(kind, name): relay.encode(document) for (kind, name), document in all_documents().items()}


async def bucket_holds(client):
    try:
        present = await relay._present(client)
    except TimeoutError:
        return None
    return {key: entry.data for key, entry in present.items() if entry.data is not None}


async def is_in_step(client):
    return await bucket_holds(client) == await sync_to_async(written)()


async def all_is_told(client):
    return await is_in_step(client) and not await Change.objects.unpublished().aexists()


async def test_changes_reach_the_data_plane_in_order(link):
    client, js = link
    snapshot = Snapshot()
    async with running(relay.run, client, js):
        await until(lambda: has_bucket(js))
        feed = SnapshotFeed(client, snapshot)
        await feed.start()
        _, _, key = await sync_to_async(some_rows)()
        await until(lambda: truth(snapshot.principal(key.id) is not None))
        await until(lambda: truth(snapshot.channel("trades") is not None))
        await sync_to_async(revoke_key)(key, by="ann")
        await until(lambda: truth(snapshot.principal(key.id) is None))
        assert snapshot.key(key.id).revoked_at is not None
        await until(lambda: all_is_told(client))
        await feed.stop()


async def truth(value):
    return value


async def has_bucket(js):
    try:
        return await js.stream_info(STREAM)
    except NotFoundError:
        return False


def own_subject(address, subject):
    return stored_prefix(stream_of(address)) + subject


async def test_a_channel_has_its_stream_before_it_is_published(link):
    client, js = link
    heard = asyncio.Queue()

    async def hear(message):
        if message.subject.startswith(f"$KV.{SNAPSHOT_BUCKET}.channel."):
            try:
                heard.put_nowait((await js.stream_info(stream_of("a/{x}"))).config.subjects[0])
            except NotFoundError:
                heard.put_nowait(None)

    await client.subscribe(f"$KV.{SNAPSHOT_BUCKET}.>", cb=hear)
    async with running(relay.run, client, js):
        await until(lambda: has_bucket(js))
        await sync_to_async(create_channel)(address="a/{x}", by="ann")
        assert await asyncio.wait_for(heard.get(), 20) == own_subject("a/{x}", "a.*")


async def test_changes_while_the_relay_is_stopped_are_published_later(link):
    client, js = link
    tier, consumer, _ = await sync_to_async(some_rows)()
    async with running(relay.run, client, js):
        await until(lambda: all_is_told(client))
    await sync_to_async(delete_consumer)(consumer, by="ann")
    await sync_to_async(delete_tier)(tier, by="ann")
    assert await Change.objects.unpublished().acount() == 3
    async with running(relay.run, client, js):
        await until(lambda: all_is_told(client))
    assert list(await bucket_holds(client)) == [kv_key("channel", "trades")]


async def test_a_bucket_that_differs_is_repaired(link):
    client, js = link
    await sync_to_async(some_rows)()
    assert await relay.reconcile(client, js) == 4
    bucket = await js.key_value(SNAPSHOT_BUCKET)
    await bucket.put(kv_key("tier", "gold"), b'{"name": "gold", "limits": "nonsense"}')
    await bucket.put(kv_key("tier", "ghost"), b'{"name": "ghost", "limits": []}')
    await bucket.delete(kv_key("consumer", "acme"))
    assert await relay.reconcile(client, js) == 3
    assert await is_in_step(client)
    assert await relay.reconcile(client, js) == 0


async def test_an_emptied_nats_is_filled_again(nats_server, link):
    client, js = link
    await sync_to_async(some_rows)()
    async with running(relay.run, client, js):
        await until(lambda: all_is_told(client))
        await asyncio.to_thread(nats_server.empty)
        await until(lambda: is_in_step(client))
        assert (await js.stream_info(stream_of("trades"))).config.subjects[0] == own_subject("trades", "trades")


async def test_a_bucket_that_is_deleted_while_connected_is_recreated(link, monkeypatch):
    monkeypatch.setattr(relay, "CHECK_BUCKET_S", 0.1)
    client, js = link
    await sync_to_async(some_rows)()
    async with running(relay.run, client, js):
        await until(lambda: all_is_told(client))
        await js.delete_key_value(SNAPSHOT_BUCKET)
        await until(lambda: is_in_step(client))


async def test_changes_while_nats_is_unavailable_are_published_afterwards(nats_server, link):
    client, js = link
    tier, _, _ = await sync_to_async(some_rows)()
    async with running(relay.run, client, js):
        await until(lambda: all_is_told(client))
        nats_server.kill()
        await sync_to_async(update_tier)(tier, limits=[{"metric": "requests", "amount": 1, "per": 1}], by="ann")
        nats_server.start()
        await until(lambda: all_is_told(client))


async def test_a_rebuild_beside_a_busy_relay_never_restores_old_documents(link):
    client, js = link
    dice = random.Random(7)
    tier, _, _ = await sync_to_async(some_rows)()

    def change_something():
        consumers = list(Consumer.objects.all())
        what = dice.randrange(3)
        if what == 0:
            create_consumer(name=f"c{Change.objects.count()}", tier=tier, by="ann")
        elif what == 1 and len(consumers) > 1:
            delete_consumer(dice.choice(consumers), by="ann")
        else:
            update_consumer(dice.choice(consumers), metadata={"n": dice.random()}, by="ann")

    async with running(relay.run, client, js):
        for _ in range(25):
            await asyncio.gather(sync_to_async(change_something)(), relay.reconcile(client, js))
        await until(lambda: all_is_told(client))


async def test_a_deleted_channel_keeps_its_events_and_does_not_block_others(link):
    client, js = link
    channel = await sync_to_async(create_channel)(address="a/b", by="ann")
    async with running(relay.run, client, js):
        await until(lambda: all_is_told(client))
        kept, other = own_subject("a/b", "a.b"), own_subject("a/{x}", "a.b")
        stored = await js.publish(kept, b'"kept"')
        await sync_to_async(delete_channel)(channel, by="ann")
        wide = await sync_to_async(create_channel)(address="a/{x}", by="ann")
        await until(lambda: all_is_told(client))
        assert (await js.publish(other, b'"other"')).stream == stream_of("a/{x}")
        await sync_to_async(delete_channel)(wide, by="ann")
        await sync_to_async(create_channel)(address="a/b", by="ann")
        await until(lambda: all_is_told(client))
    state = (await js.stream_info(stored.stream)).state
    assert (state.messages, state.first_seq) == (1, stored.seq)
    assert (await js.publish(kept, b"1")).stream == stored.stream


async def test_an_update_keeps_the_subjects_and_the_events_of_channels_that_exist(link):
    client, js = link

    def as_an_earlier_version(address):
        channel = Channel.objects.create(address=address)
        document = {name: value for name, value in channel.recorded().items() if name != "subject_prefix"}
        Change.objects.create(
            kind="channel", name=address, action="created", after=document, actor="ann", published_at=timezone.now()
        )
        return channel

    old = await sync_to_async(as_an_earlier_version)("a/{x}")
    async with running(relay.run, client, js):
        await until(lambda: all_is_told(client))
        stored = await js.publish("a.b", b'"kept"')
        await sync_to_async(create_channel)(address="a/b", by="ann")
        await sync_to_async(create_channel)(address="{all...}", by="ann")
        await sync_to_async(delete_channel)(old, by="ann")
        again = await sync_to_async(create_channel)(address="a/{x}", by="ann")
        await until(lambda: all_is_told(client))
    assert again.subject_prefix == ""
    assert (await js.stream_info(stored.stream)).state.messages == 1
    assert (await js.publish("a.c", b"1")).stream == stored.stream
    assert (await js.publish(own_subject("a/b", "a.b"), b"1")).stream == stream_of("a/b")


async def test_a_recreated_channel_of_an_earlier_version_gets_a_prefix_where_another_has_its_subjects(link):
    client, js = link

    def as_it_was():
        wide = Channel.objects.create(address="a/{x}")
        document = {name: value for name, value in wide.recorded().items() if name != "subject_prefix"}
        Change.objects.create(kind="channel", name="a/{x}", action="created", after=document, actor="ann")
        delete_channel(wide, by="ann")
        Channel.objects.create(address="a/b")
        return create_channel(address="a/{x}", by="ann")

    assert (await sync_to_async(as_it_was)()).subject_prefix == own_subject("a/{x}", "")
    await relay.reconcile(client, js)
    assert (await js.publish("a.b", b"1")).stream == stream_of("a/b")
    assert (await js.publish(own_subject("a/{x}", "a.b"), b"1")).stream == stream_of("a/{x}")


async def test_streams_of_deleted_channels_are_found_when_reconciling(link):
    client, js = link
    await sync_to_async(some_rows)()
    await relay.reconcile(client, js)
    await sync_to_async(lambda: create_channel(address="empty", by="ann"))()
    await relay.reconcile(client, js)
    await js.publish(own_subject("trades", "trades"), b"1")
    await Channel.objects.all().adelete()
    await relay.reconcile(client, js)
    assert (await js.stream_info(stream_of("trades"))).state.messages == 1
    with pytest.raises(NotFoundError):
        await js.stream_info(stream_of("empty"))


async def test_a_stream_that_jetstream_refuses_does_not_block_other_changes(link, caplog):
    client, js = link
    await ensure_infrastructure(js)
    await js.add_stream(name="FOREIGN", subjects=[own_subject("taken/x", ">")])
    async with running(relay.run, client, js):
        await sync_to_async(create_channel)(address="taken/x", by="ann")
        await sync_to_async(create_tier)(name="after", by="ann")
        await until(lambda: all_is_told(client))
    assert "the stream of channel taken/x could not be created" in caplog.text


@pytest.mark.parametrize("seed", range(2))
async def test_a_rebuilt_bucket_has_the_bytes_that_were_relayed(link, seed):
    client, js = link
    dice = random.Random(seed)
    async with running(relay.run, client, js):
        for number in range(50):
            await sync_to_async(step)(dice, number)
        await until(lambda: all_is_told(client))
    relayed = await bucket_holds(client)
    assert relayed
    await js.delete_stream(STREAM)
    await in_thread(call_command, "rebuild", "snapshot", stdout=StringIO())
    assert await bucket_holds(client) == relayed


async def test_the_command_rebuilds_the_snapshot(link):
    client, _ = link
    await sync_to_async(some_rows)()

    def rebuild():
        out = StringIO()
        call_command("rebuild", "snapshot", stdout=out)
        return out.getvalue()

    assert await in_thread(rebuild) == "4 documents corrected.\n"
    assert await is_in_step(client)
    assert await in_thread(rebuild) == "0 documents corrected.\n"


def test_the_command_reports_a_missing_nats_url(settings):
    settings.NATS_URL = ""
    with pytest.raises(CommandError, match="NATS_URL"):
        call_command("rebuild", "snapshot")
    assert not Tier.objects.exists()
