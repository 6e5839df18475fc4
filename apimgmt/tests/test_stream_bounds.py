"""Streams keep the bounds of the settings, also those that exist already, and buckets lose their old markers."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from apimgmt.kept import Retention
from apimgmt.stream_bounds import delete_markers, set_bounds, stream_bounds
from audit.tests.conftest import link, nats_server
from gateway.link.nats import JOBS_BUCKET, SNAPSHOT_BUCKET, ensure_infrastructure

__all__ = ["link", "nats_server"]
DAY_S = 86_400


async def test_what_exists_already_is_bounded_too(link):
    _, js = link
    await ensure_infrastructure(js)
    kept = replace(Retention(), usage_log_days=3, usage_log_bytes=0, jobs_days=1, dead_letters_days=0)
    for name, bounds in stream_bounds(kept).items():
        await set_bounds(js, name, *bounds)
    usage = (await js.stream_info("USAGE")).config
    assert (usage.max_age, usage.max_bytes) == (3 * DAY_S, -1)
    jobs = (await js.stream_info(f"KV_{JOBS_BUCKET}")).config
    assert (jobs.max_age, jobs.max_bytes) == (2 * DAY_S, kept.job_documents_bytes)
    assert (await js.stream_info("DEAD")).config.max_age == 35 * DAY_S
    await set_bounds(js, "MISSING", 1, 1)


@pytest.mark.parametrize("kept", [Retention()])
def test_by_default_streams_have_an_age_and_a_size(kept):
    assert all(seconds > 0 and most > 0 for seconds, most in stream_bounds(kept).values())


async def test_old_markers_of_deleted_objects_go_and_what_was_created_again_stays(link):
    client, js = link
    await ensure_infrastructure(js)
    bucket = await js.key_value(SNAPSHOT_BUCKET)
    for name in ("key.a", "key.b", "key.c"):
        await bucket.put(name, b"1")
        await bucket.delete(name)
    await bucket.put("key.c", b"2")
    now = datetime.now(UTC)
    assert await delete_markers(client, js, SNAPSHOT_BUCKET, now - timedelta(days=1)) == 0
    assert await delete_markers(client, js, SNAPSHOT_BUCKET, now + timedelta(minutes=1)) == 2
    assert (await js.stream_info(f"KV_{SNAPSHOT_BUCKET}")).state.messages == 1
    assert (await bucket.get("key.c")).value == b"2"
