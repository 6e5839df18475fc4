"""Usage into tables: exactly once, whatever happens between."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import transaction

from analytics import projector, services
from analytics.models import ConnectionRecord, GatewayProcess, ProjectorPosition, UsageMinute
from analytics.rebuild import rebuild
from gateway.link.nats import connect, ensure_infrastructure

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 1, 31, 12, 0, 5, tzinfo=UTC)
MADE_AT = "2026-01-01"
OPENED = {
    "id": "c1", "consumer": "acme", "key": "k1", "tier": "gold", "protocol": "websocket", "route": "feed",
    "channel": "", "ip": "192.0.2.1", "opened_at": NOW.timestamp(),
}  # fmt: skip
CLOSED = OPENED | {
    "closed_at": NOW.timestamp() + 9, "closed_by": "client", "close_code": 1000, "error_class": "", "messages_in": 3,
    "messages_out": 4, "bytes_in": 30, "bytes_out": 40, "throttled": 1,
}  # fmt: skip


def tally(**more):
    return {
        "minute": 1769860800, "protocol": "http", "consumer": "acme", "key": "", "tier": "gold", "target": "quotes",
        "outcome": "ok", "error_class": "", "calls": 2, "messages_in": 0, "messages_out": 0, "bytes_in": 5,
        "bytes_out": 7, "throttled": 0, "latency_ms_sum": 3.0, "latency_ms_max": 2.0,
    } | more  # fmt: skip


def batch(**more):
    return {"process": "web-1", "kind": "web", "at": NOW.timestamp(), "tallies": [], "opened": [], "closed": []} | more


def project(batches):
    """Project what follows."""
    assert services.project(batches, MADE_AT, after=services.position(MADE_AT))


def test_tallies_of_one_label_are_one_row():
    project([(1, batch(tallies=[tally()])), (2, batch(tallies=[tally(calls=3, latency_ms_max=9.0)]))])
    project([(3, batch(tallies=[tally(), tally(outcome="rate-limited")]))])
    ok, refused = UsageMinute.objects.order_by("outcome")
    assert (ok.calls, ok.bytes_in, ok.latency_ms_sum, ok.latency_ms_max) == (7, 15, 9.0, 9.0)
    assert (refused.outcome, refused.calls) == ("rate-limited", 2)


def test_a_text_that_is_longer_than_its_column_is_cut():
    project([(1, batch(tallies=[tally(target="x" * 9000)], closed=[CLOSED | {"channel": "y" * 9000}]))])
    assert UsageMinute.objects.get().target == "x" * 255
    assert ConnectionRecord.objects.get().channel == "y" * 255


def test_rows_and_position_are_written_together_or_not_at_all():
    with pytest.raises(KeyError), transaction.atomic():
        project([(1, batch(tallies=[tally()])), (2, batch(closed=[{"id": "broken"}]))])
    assert not UsageMinute.objects.exists()
    assert services.position(MADE_AT) == 0
    project([(1, batch(tallies=[tally()]))])
    assert services.position(MADE_AT) == 1


def test_the_same_batches_are_counted_once():
    batches = [(1, batch(tallies=[tally()])), (2, batch(opened=[OPENED]))]
    assert services.project(batches, MADE_AT, after=0)
    assert not services.project(batches, MADE_AT, after=0)
    assert UsageMinute.objects.get().calls == 2
    assert services.position(MADE_AT) == 2


def test_a_stream_that_was_made_anew_is_read_from_its_start():
    project([(7, batch())])
    assert services.position("another day") == 0
    assert ProjectorPosition.objects.get().sequence == 7


def test_a_connection_is_one_row_from_its_opening_to_its_end():
    project([(1, batch(opened=[OPENED]))])
    row = ConnectionRecord.objects.get()
    assert (row.closed_at, row.opened_at) == (None, NOW)
    flowing = {"id": "c1", "messages_in": 1, "messages_out": 2, "bytes_in": 10, "bytes_out": 20, "throttled": 0}
    project([(2, batch(flowing=[flowing]))])
    row.refresh_from_db()
    assert (row.messages_in, row.bytes_out) == (1, 20)
    project([(3, batch(closed=[CLOSED]))])
    row.refresh_from_db()
    assert (row.messages_in, row.bytes_out, row.close_code, row.throttled) == (3, 40, 1000, 1)
    project([(4, batch(flowing=[flowing]))])
    row.refresh_from_db()
    assert row.messages_in == 3


def test_a_short_connection_is_opened_and_closed_by_one_batch():
    project([(1, batch(opened=[OPENED], closed=[CLOSED]))])
    assert ConnectionRecord.objects.get().closed_by == "client"
    project([(2, batch(closed=[CLOSED | {"id": "c2"}]))])
    assert ConnectionRecord.objects.count() == 2


def test_what_a_stopping_process_held_open_is_closed():
    project([(1, batch(opened=[OPENED])), (2, batch(stopping=True))])
    row = ConnectionRecord.objects.get()
    assert (row.closed_by, row.error_class) == ("gateway", "internal")
    assert not GatewayProcess.objects.exists()


def test_what_a_silent_process_held_open_is_closed_after_a_while():
    project([(1, batch(opened=[OPENED]))])
    assert services.close_lost(NOW + timedelta(seconds=14)) == 0
    assert services.close_lost(NOW + timedelta(seconds=16)) == 1
    assert ConnectionRecord.objects.get().error_class == "internal"


def test_long_names_are_cut_to_what_a_row_holds():
    project([(1, batch(tallies=[tally(target="x" * 400, outcome="y" * 90)]))])
    row = UsageMinute.objects.get()
    assert (len(row.target), len(row.outcome)) == (255, 40)


async def send_batches(nats_url, batches):
    """Publish batches as the data plane does, each after the one before is stored."""
    client, js = await connect(nats_url, "test")
    try:
        await ensure_infrastructure(js)
        await js.purge_stream("USAGE")
        for content in batches:
            await js.publish(f"_apimgmt.usage.{content['process']}", orjson.dumps(content))
    finally:
        await client.close()


def rows():
    usage = UsageMinute.objects.values_list("minute", "target", "outcome", "calls", "latency_ms_max")
    ledger = ConnectionRecord.objects.values_list("id", "opened_at", "closed_at", "close_code", "messages_out")
    return sorted(usage), sorted(ledger)


@pytest.mark.django_db(transaction=True)
def test_rebuilding_comes_to_the_same_rows(nats_url, settings):
    settings.NATS_URL = nats_url
    batches = [batch(opened=[OPENED], tallies=[tally(calls=number)]) for number in range(1, 70)]
    batches += [batch(closed=[CLOSED]), batch(tallies=[tally(outcome="rate-limited")])]
    async_to_sync(send_batches)(nats_url, batches)
    assert rebuild() == 71
    once = rows()
    assert once[0][0][3] == sum(range(1, 70))
    assert rebuild() == 71
    assert rows() == once


@pytest.mark.django_db(transaction=True)
def test_the_projector_goes_on_where_it_was_when_it_failed(nats_url, settings, monkeypatch):
    settings.NATS_URL = nats_url
    async_to_sync(send_batches)(nats_url, [batch(tallies=[tally(calls=1)]) for _ in range(120)])
    project, failed = services.project, []

    def failing(batches, made_at, *, after):
        batches = list(batches)
        if batches[-1][0] % 3 and len(failed) < 3:
            failed.append(batches[0][0])
            with transaction.atomic():
                project(batches, made_at, after=after)
                raise OSError("the database went away before the commit")
        return project(batches, made_at, after=after)

    monkeypatch.setattr(services, "project", failing)
    for _ in range(4):
        with contextlib.suppress(OSError):
            async_to_sync(project_for_a_moment)(nats_url)
    assert failed
    assert UsageMinute.objects.get().calls == 120


async def project_for_a_moment(nats_url):
    """Run the projector until it fails or has read all."""
    client, js = await connect(nats_url, "test")
    stop = asyncio.Event()
    running = asyncio.create_task(projector.run(client, js, stop))
    try:
        async with asyncio.timeout(30):
            last = (await js.stream_info("USAGE")).state.last_seq
            made_at = str((await js.stream_info("USAGE")).created)
            while not running.done() and await sync_to_async(services.position)(made_at) < last:
                await asyncio.sleep(0.05)
            stop.set()
            await running
    finally:
        await client.close()


def test_a_clock_that_was_set_loses_no_connection_and_hides_no_loss():
    project([(1, batch(opened=[OPENED]))])
    later = NOW + timedelta(hours=1)
    services.restart_silence(later)
    assert services.close_lost(later) == 0
    assert services.close_lost(later + services.LOST_AFTER + timedelta(seconds=1)) == 1
