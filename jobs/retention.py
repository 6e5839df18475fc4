"""Deletes ended jobs with their results and documents: by age, number and bytes, the oldest first."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db.models import QuerySet, Sum
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from audit import bus
from gateway.link.nats import JOBS_BUCKET
from jobs import services
from jobs.models import Job

BATCH = 100
ORPHAN_AFTER_S = 24 * 3600.0
"""A folder without a job is left by a worker that was killed; a new one may be of a job that is just ending."""


def keep_jobs(now: datetime) -> Iterator[int]:
    """Delete ended jobs beyond the bounds, and folders without a job; yield the number of each batch."""
    bounds = settings.RETENTION
    ended = Job.objects.ended().order_by("ended_at")
    if bounds.jobs_days:
        yield from _delete(ended.filter(ended_at__lt=now - timedelta(days=bounds.jobs_days)))
    if bounds.jobs_rows:
        yield from _delete(ended, rows=Job.objects.count() - bounds.jobs_rows)
    if bounds.jobs_bytes:
        with_files = ended.filter(file_bytes__gt=0)
        used = with_files.aggregate(used=Sum("file_bytes", default=0))["used"]
        yield from _delete(with_files, file_bytes=used - bounds.jobs_bytes)
    yield from _keep_documents()
    yield from _delete_orphans()


def _delete(jobs: QuerySet[Job], *, rows: int | None = None, file_bytes: int | None = None) -> Iterator[int]:
    """Delete the first of these jobs: all of them, or so many, or until so many bytes of files are free."""
    while (rows is None or rows > 0) and (file_bytes is None or file_bytes > 0):
        batch = list(jobs.only("id", "file_bytes")[: BATCH if rows is None else min(BATCH, rows)])
        if file_bytes is not None:
            batch = _first_of(batch, file_bytes)
            file_bytes -= sum(job.file_bytes for job in batch)
        if not batch:
            return
        _delete_jobs([job.id for job in batch])
        rows = None if rows is None else rows - len(batch)
        yield len(batch)


def _first_of(batch: list[Job], file_bytes: int) -> list[Job]:
    first: list[Job] = []
    for job in batch:
        if file_bytes <= 0:
            break
        first.append(job)
        file_bytes -= job.file_bytes
    return first


def _keep_documents() -> Iterator[int]:
    """Delete the oldest ended jobs while the documents fill more than three quarters of their bucket."""
    most = settings.RETENTION.job_documents_bytes
    while most and settings.NATS_URL and bus.query(_bytes_of_documents) > most * 3 // 4:
        oldest = list(Job.objects.ended().order_by("ended_at").values_list("id", flat=True)[:BATCH])
        if not oldest:
            return
        _delete_jobs(oldest)
        yield len(oldest)


def _delete_jobs(ids: list[str]) -> None:
    """Delete the files first: after a failure the rows are found again."""
    for job_id in ids:
        shutil.rmtree(_folder() / job_id, ignore_errors=True)
    if settings.NATS_URL:
        bus.query(lambda client: _purge_documents(client, ids))
    Job.objects.filter(id__in=ids).delete()


def _delete_orphans() -> Iterator[int]:
    """Delete folders of results whose job does not exist."""
    names: list[str] = []
    try:
        with os.scandir(_folder()) as entries:
            names = [entry.name for entry in entries if time.time() - entry.stat().st_mtime > ORPHAN_AFTER_S]
    except FileNotFoundError:
        return
    for first in range(0, len(names), 1000):
        some = names[first : first + 1000]
        orphans = set(some).difference(Job.objects.filter(id__in=some).values_list("id", flat=True))
        for name in orphans:
            shutil.rmtree(_folder() / name, ignore_errors=True)
        if orphans:
            yield len(orphans)


def _folder() -> Path:
    return Path(services.results().location)


async def _bytes_of_documents(client: Client) -> int:
    try:
        return int((await client.jetstream().stream_info(f"KV_{JOBS_BUCKET}")).state.bytes)
    except NotFoundError:
        return 0


async def _purge_documents(client: Client, ids: list[str]) -> None:
    js = client.jetstream()
    for job_id in ids:
        await js.purge_stream(f"KV_{JOBS_BUCKET}", subject=f"$KV.{JOBS_BUCKET}.{job_id}")
