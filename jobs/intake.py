"""The jobs' crossing: documents that the data plane accepted become rows, and rows' changes become documents."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import orjson
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import close_old_connections
from kombu.exceptions import OperationalError
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.kv import KeyValue
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.link.nats import JOBS_BUCKET, ensure_infrastructure, read_batch
from jobs import registry, services, tasks
from jobs.models import Job

logger = logging.getLogger(__name__)

STREAM = f"KV_{JOBS_BUCKET}"
PREFIX = f"$KV.{JOBS_BUCKET}."
TYPE_PREFIX = "type."
CANCEL_PREFIX = "cancel."
LOOK_S = 0.2
STORE_S = 0.5
"""So long the store of shared limits may take to answer."""
BATCH = 200


async def run(nc: Client, js: JetStreamContext, stop: asyncio.Event) -> None:
    """Carry jobs both ways until told to stop. Raises when NATS or the database fails; starting again is safe."""
    await sync_to_async(close_old_connections)()
    reconnects, position = -1, 1
    async with Redis.from_url(settings.REDIS_URL, socket_timeout=STORE_S, socket_connect_timeout=STORE_S) as store:
        while not stop.is_set():
            if nc.stats["reconnects"] != reconnects:
                # Behind a new link may be an emptied NATS, with sequences of its own.
                reconnects, position = nc.stats["reconnects"], 1
                bucket = await _bucket_with_types(js)
            position = await _take_in(nc, position)
            is_there = True
            for job in await sync_to_async(_changed)():
                if job.is_final and is_there:
                    # First, so that who sees the end finds the place free.
                    is_there = await _give_back(store, job)
                await bucket.put(job.id, orjson.dumps(job.document()))
                await sync_to_async(_published)(job.id, job.version)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_S)


async def _bucket_with_types(js: JetStreamContext) -> KeyValue:
    """Make the bucket where it is missing, and lay down which types of job there are."""
    await ensure_infrastructure(js)
    bucket = await js.key_value(JOBS_BUCKET)
    for type_ in registry.all_types():
        document = {"name": type_.name, "title": type_.title, "schema": type_.schema}
        await bucket.put(TYPE_PREFIX + type_.name, orjson.dumps(document))
    return bucket


async def _take_in(nc: Client, position: int) -> int:
    """Take in what lies in the bucket from a position on. Gives the next position."""
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
        # The row is kept; the sweeper queues it once Redis is back.
        logger.warning("job %s waits: the queue cannot be reached", job.id)


async def _give_back(store: Redis, job: Job) -> bool:
    """Give back the places that a job took among those open; what fails is made good when places are short.

    Says whether the store is there: one that hangs must not hold the ends of many jobs up.
    """
    try:
        async with asyncio.timeout(STORE_S):
            for key in job.places:
                await store.zrem(key, job.id)
    except (RedisError, OSError, TimeoutError):
        logger.warning("the places of job %s are not given back yet: the store is away", job.id)
        return False
    return True


def _changed() -> list[Job]:
    return list(Job.objects.unpublished()[:BATCH])


def _published(job_id: str, version: int) -> None:
    Job.objects.filter(id=job_id).update(published_version=version)
