"""The exchange of jobs with the data plane: accepted documents become rows, and changed rows become documents."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

import orjson
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import close_old_connections
from kombu.exceptions import OperationalError
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import APIError
from nats.js.kv import KeyValue
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.concurrency.log_throttle import LogThrottle
from gateway.link.nats import JOBS_BUCKET, ensure_infrastructure, read_batch
from jobs import registry, services, tasks
from jobs.models import Job

logger = logging.getLogger(__name__)

STREAM = f"KV_{JOBS_BUCKET}"
PREFIX = f"$KV.{JOBS_BUCKET}."
TYPE_PREFIX = "type."
CANCEL_PREFIX = "cancel."
POLL_S = 0.2
STORE_TIMEOUT_S = 0.5
"""Timeout of the store of shared limits."""
BATCH = 200
TYPES_AGAIN_S = 3600.0
BUCKET_FULL = 10077
"""Error code of JetStream: maximum bytes exceeded."""
_throttle = LogThrottle()


async def run(nc: Client, js: JetStreamContext, stop: asyncio.Event) -> None:
    """Exchange jobs in both directions until ``stop`` is set. Raises when an engine fails; it is safe to restart."""
    await sync_to_async(close_old_connections)()
    reconnects, position = -1, 1
    async with Redis.from_url(
        settings.REDIS_URL, socket_timeout=STORE_TIMEOUT_S, socket_connect_timeout=STORE_TIMEOUT_S
    ) as store:
        while not stop.is_set():
            if nc.stats["reconnects"] != reconnects:
                # A new connection may lead to an emptied NATS, whose sequences start again.
                reconnects, position = nc.stats["reconnects"], 1
                bucket, types_at = await _bucket_with_types(js), time.monotonic()
            if time.monotonic() - types_at > TYPES_AGAIN_S:
                await _put_types(bucket)
                types_at = time.monotonic()
            position = await _accept_new(nc, position)
            is_store_available = True
            for job in await sync_to_async(_changed)():
                if job.is_final and is_store_available:
                    # Before the document, so that a client that sees the end can submit the next job.
                    is_store_available = await _release_places(store, job)
                if await _put(bucket, job):
                    await sync_to_async(_published)(job.id, job.version)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), POLL_S)


async def _bucket_with_types(js: JetStreamContext) -> KeyValue:
    """Create the bucket if it is missing, and store the job types in it."""
    await ensure_infrastructure(js)
    bucket = await js.key_value(JOBS_BUCKET)
    await _put_types(bucket)
    return bucket


async def _put_types(bucket: KeyValue) -> None:
    """Store the job types, which expire like every document of the bucket."""
    for type_ in registry.all_types():
        document = {"name": type_.name, "title": type_.title, "schema": type_.schema}
        await bucket.put(TYPE_PREFIX + type_.name, orjson.dumps(document))


async def _put(bucket: KeyValue, job: Job) -> bool:
    """Store the document of a job; return False if the bucket is full, until the oldest jobs are deleted."""
    try:
        await bucket.put(job.id, orjson.dumps(job.document()))
    except APIError as error:
        if error.err_code != BUCKET_FULL:
            raise
        if (suffix := _throttle.suffix(BUCKET_FULL)) is not None:
            logger.error("the bucket of jobs is full (RETENTION_JOB_DOCUMENTS_BYTES): states are late%s", suffix)
        return False
    return True


async def _accept_new(nc: Client, position: int) -> int:
    """Accept jobs and cancellations from a position of the bucket on. Returns the next position."""
    while True:
        messages = await read_batch(nc, STREAM, f"{PREFIX}>", position, BATCH)
        for message in messages:
            headers = message.headers or {}
            position = int(headers["Nats-Sequence"]) + 1
            name = headers["Nats-Subject"].removeprefix(PREFIX)
            if name.startswith(CANCEL_PREFIX):
                await sync_to_async(services.cancel)(name.removeprefix(CANCEL_PREFIX))
            elif message.data and not name.startswith(TYPE_PREFIX):
                await _accept(orjson.loads(message.data))
        if len(messages) < BATCH:
            return position


async def _accept(document: dict[str, Any]) -> None:
    if document["state"] != "queued":
        return
    job = await sync_to_async(services.accept)(document)
    if job is None:
        return
    try:
        await sync_to_async(tasks.run.delay)(job.id)
    except OperationalError:
        # The sweeper queues the job once Redis is available again.
        logger.warning("job %s waits: the task queue is unavailable", job.id)


async def _release_places(store: Redis, job: Job) -> bool:
    """Release the places of a job among the open jobs; a place that is not released here is found when needed.

    Returns whether the store is available, so that a store that hangs delays one job only.
    """
    try:
        async with asyncio.timeout(STORE_TIMEOUT_S):
            for key in job.places:
                await store.zrem(key, job.id)
    except (RedisError, OSError, TimeoutError):
        logger.warning("the places of job %s are not released yet: the store is unavailable", job.id)
        return False
    return True


def _changed() -> list[Job]:
    return list(Job.objects.unpublished()[:BATCH])


def _published(job_id: str, version: int) -> None:
    Job.objects.filter(id=job_id).update(published_version=version)
