"""A rebuild from a stream that is shorter than the tables: what it no longer has stays, and nothing counts twice."""

from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import async_to_sync

from analytics import retention
from analytics.models import ConnectionRecord, ProjectorPosition, UsageMinute
from analytics.projector import replay
from analytics.rebuild import rebuild
from analytics.tests.test_services import OPENED, batch, send_batches, tally
from gateway.link.nats import USAGE_STREAM, connect

pytestmark = pytest.mark.django_db(transaction=True)
HOUR = timedelta(hours=1)
FIRST = datetime.now(UTC).replace(hour=6, minute=0, second=0, microsecond=0) - timedelta(days=5)


def at_hour(hours, **tallied):
    at = (FIRST + hours * HOUR).timestamp()
    opened = OPENED | {"id": f"c{hours}", "opened_at": at}
    return batch(at=at, tallies=[tally(minute=at, calls=hours + 1, **tallied)], opened=[opened])


def rows():
    usage = UsageMinute.objects.order_by("minute").values_list("minute", "span_s", "calls", "latency_ms_sum")
    return list(usage), sorted(ConnectionRecord.objects.values_list("id", flat=True))


async def cut_off(nats_url, sequence):
    """Delete what lies before a sequence of the stream, as its age does."""
    client, js = await connect(nats_url, "test")
    await js.purge_stream(USAGE_STREAM, seq=sequence)
    await client.close()


def test_a_rebuild_keeps_what_the_stream_no_longer_has(nats_url, settings):
    settings.NATS_URL = nats_url
    async_to_sync(send_batches)(nats_url, [at_hour(hours) for hours in range(72)])
    async_to_sync(replay)(nats_url)
    for keep in (retention.keep_usage, retention.keep_connections):
        list(keep(datetime.now(UTC)))
    whole = rows()
    assert {span for _, span, *_ in whole[0]} >= {3600}
    async_to_sync(cut_off)(nats_url, ProjectorPosition.objects.get().sequence - 40)
    UsageMinute.objects.filter(minute__gte=FIRST + 60 * HOUR).update(calls=0)  # what a rebuild is to correct
    assert rebuild() == 41
    assert rows() == whole
    assert rebuild() == 41
    assert rows() == whole


def test_without_any_batch_in_the_stream_nothing_is_deleted(nats_url, settings):
    settings.NATS_URL = nats_url
    async_to_sync(send_batches)(nats_url, [at_hour(1)])
    async_to_sync(replay)(nats_url)
    before = rows()
    async_to_sync(cut_off)(nats_url, None)
    assert rebuild() == 0
    assert rows() == before
