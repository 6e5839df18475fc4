"""Ended jobs go by age, number and bytes, with their files and documents; others and what has not ended stay."""

import os
import time
from dataclasses import replace
from datetime import timedelta

import orjson
import pytest
from asgiref.sync import sync_to_async
from django.conf import settings as project
from django.utils import timezone
from nats.js.errors import KeyNotFoundError

from audit.tests.conftest import in_thread
from gateway.link.nats import JOBS_BUCKET, ensure_infrastructure
from jobs.models import Job, State
from jobs.retention import keep_jobs

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _no_nats(settings):
    settings.NATS_URL = ""


@pytest.fixture
def bounds(settings):
    def change(**values):
        settings.RETENTION = replace(project.RETENTION, **values)

    return change


def ended(number, data_dir, *, file_bytes=0, days=0.0, **fields):
    now = timezone.now()
    row = {
        "id": f"j{number:05}", "type": "work", "consumer": "acme", "key": "k", "input": {}, "body_hash": "0",
        "state": State.COMPLETED, "submitted_at": now, "ended_at": now - timedelta(days=days, seconds=-number),
        "file_bytes": file_bytes, "file_name": "r.csv" if file_bytes else "", "published_version": 1,
    } | fields  # fmt: skip
    if file_bytes:
        folder = data_dir / "results" / row["id"]
        folder.mkdir(parents=True)
        (folder / "r.csv").write_bytes(b"x")
    return Job(**row)


def left():
    return sorted(Job.objects.values_list("id", flat=True))


def swept(**options):
    return list(keep_jobs(timezone.now(), **options))


def test_old_jobs_go_with_their_files_and_folders(data_dir, bounds):
    bounds(jobs_days=7)
    Job.objects.bulk_create(
        [
            ended(1, data_dir, days=8, file_bytes=5),
            ended(2, data_dir, days=6, file_bytes=5),
            ended(3, data_dir, days=80, state=State.QUEUED, ended_at=None),
            ended(4, data_dir, days=80, version=2),  # clients do not see its end yet
        ]
    )
    assert swept() == [1]
    assert left() == ["j00002", "j00003", "j00004"]
    assert os.listdir(data_dir / "results") == ["j00002"]


def test_too_many_jobs_and_too_large_files_go_the_oldest_first(data_dir, bounds):
    bounds(jobs_rows=250, jobs_bytes=1000)
    Job.objects.bulk_create([ended(number, data_dir) for number in range(500)])
    assert swept() == [100, 100, 50]
    assert left()[0] == "j00250"
    Job.objects.all().delete()
    Job.objects.bulk_create([ended(number, data_dir, file_bytes=300) for number in range(10)])
    assert swept() == [7]
    assert left() == ["j00007", "j00008", "j00009"]
    assert swept() == []


def test_a_folder_without_a_job_goes_after_a_day(data_dir):
    Job.objects.bulk_create([ended(1, data_dir, file_bytes=1)])
    for name in ("job-old", "job-new"):
        (data_dir / "results" / name).mkdir()
    day_ago = time.time() - 25 * 3600
    for name in ("job-old", "j00001"):
        os.utime(data_dir / "results" / name, (day_ago, day_ago))
    assert swept() == [1]
    assert sorted(os.listdir(data_dir / "results")) == ["j00001", "job-new"]


async def holds(bucket, key):
    try:
        return await bucket.get(key)
    except KeyNotFoundError:
        return None


async def test_documents_go_with_their_jobs_and_make_room_when_the_bucket_is_nearly_full(
    link, data_dir, bounds, settings, nats_server
):
    settings.NATS_URL = nats_server.url
    bounds(job_documents_bytes=200_000)
    client, js = link
    await ensure_infrastructure(js)
    bucket = await js.key_value(JOBS_BUCKET)
    rows = [ended(number, data_dir) for number in range(300)]
    await sync_to_async(Job.objects.bulk_create)(rows)
    for row in rows:
        await bucket.put(row.id, orjson.dumps({"id": row.id, "state": "completed", "result": "x" * 1000}))
    assert await in_thread(swept) == [100, 100]
    assert (await in_thread(left))[0] == "j00200"
    assert [row.id for row in rows if await holds(bucket, row.id)] == [f"j{number:05}" for number in range(200, 300)]
    assert client.is_connected
