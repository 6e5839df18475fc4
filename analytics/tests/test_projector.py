"""The projector on a real stream: exactly once, whoever else projects and whatever becomes of the stream."""

import asyncio
import contextlib

import orjson
import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.db.models import Sum
from nats.js.errors import NotFoundError

from analytics import projector
from analytics.models import ConnectionRecord, UsageMinute
from analytics.rebuild import rebuild
from analytics.tests.test_services import OPENED, batch, tally
from audit.tests.conftest import in_thread
from gateway.link.nats import connect, ensure_infrastructure

pytestmark = pytest.mark.django_db(transaction=True)

WITHIN_S = 30


@pytest.fixture
async def link(nats_url, settings):
    """Return a client and an empty usage stream."""
    settings.NATS_URL = nats_url
    client, js = await connect(nats_url, "test")
    with contextlib.suppress(NotFoundError):
        await js.delete_stream("USAGE")
    await ensure_infrastructure(js)
    yield client, js
    await client.close()
    await sync_to_async(connections.close_all)()


@contextlib.asynccontextmanager
async def projecting(client, js, count=1):
    """Keep projectors running until the block is left; one that misses the stream starts again, as its process does."""
    stop = asyncio.Event()

    async def keep():
        while not stop.is_set():
            with contextlib.suppress(TimeoutError, NotFoundError):
                await projector.run(client, js, stop)

    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(keep())
        try:
            yield
        finally:
            stop.set()


async def say(js, *batches):
    for sent in batches:
        body = sent if isinstance(sent, bytes) else orjson.dumps(sent)
        await js.publish("_apimgmt.usage.web-1", body)


async def until(is_so):
    """Wait until it is so; the block around it says for how long."""
    while not await sync_to_async(is_so)():
        await asyncio.sleep(0.05)


def calls():
    return UsageMinute.objects.aggregate(sum=Sum("calls"))["sum"] or 0


def marks():
    """Return which marks have been projected. A mark is published last, so everything before it has been read."""
    return set(UsageMinute.objects.filter(target__startswith="mark").values_list("target", flat=True))


def mark(name):
    return batch(tallies=[tally(target=f"mark {name}", calls=0)])


async def test_projectors_side_by_side_count_once(link):
    client, js = link
    async with projecting(client, js, count=3):
        for _ in range(8):
            await say(js, *(batch(tallies=[tally(calls=1)]) for _ in range(40)))
        await say(js, mark("end"))
        await until(lambda: marks() == {"mark end"})
    assert await sync_to_async(calls)() == 320


async def test_a_rebuild_beside_a_running_projector_counts_once(link):
    client, js = link
    async with projecting(client, js):
        await say(js, batch(opened=[OPENED]), *(batch(tallies=[tally(calls=1)]) for _ in range(120)))
        await until(lambda: calls() > 0)
        rebuilding = asyncio.create_task(in_thread(rebuild))
        for _ in range(300):
            await say(js, batch(tallies=[tally(calls=1000)]))
        await rebuilding
        await say(js, mark("end"))
        await until(lambda: marks() == {"mark end"})
    assert await sync_to_async(calls)() == 120 + 300 * 1000
    assert await sync_to_async(ConnectionRecord.objects.count)() == 1


async def test_a_stream_made_anew_under_a_running_projector_is_read_from_its_start(link):
    client, js = link
    async with projecting(client, js):
        await say(js, *(batch(tallies=[tally(calls=1)]) for _ in range(5)), mark("old"))
        await until(lambda: marks() == {"mark old"})
        await js.delete_stream("USAGE")
        await ensure_infrastructure(js)
        await say(js, *(batch(tallies=[tally(calls=1)]) for _ in range(3)), mark("new"))
        await until(lambda: marks() == {"mark old", "mark new"})
    assert await sync_to_async(calls)() == 8


@pytest.mark.parametrize(
    "broken",
    [
        b"\xff no JSON",
        b"[]",
        b'{"process": "web-1"}',
        orjson.dumps(batch(tallies=[tally(calls=1), {"minute": 1}])),
        orjson.dumps(batch(tallies=[tally(calls="many")])),
        orjson.dumps(batch(at="noon")),
        orjson.dumps(batch(closed=[{"id": "c9"}])),
        orjson.dumps(batch(tallies=7)),
    ],
)
async def test_a_batch_that_cannot_be_read_is_left_out_whole_and_the_others_are_not(link, broken, caplog):
    client, js = link
    await say(js, batch(tallies=[tally(calls=4)]), broken, batch(tallies=[tally(calls=5)]), mark("end"))
    async with projecting(client, js):
        await until(lambda: marks() == {"mark end"})
    assert await sync_to_async(calls)() == 9
    assert "skipped" in caplog.text
