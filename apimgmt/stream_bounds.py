"""Keeps the streams of NATS to the bounds of the settings, also those that were created with others before."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import APIError, NotFoundError

from apimgmt.kept import Retention
from gateway.link.nats import (
    ATTEMPTS_STREAM,
    DEAD_STREAM,
    HEALTH_BUCKET,
    JOBS_BUCKET,
    SNAPSHOT_BUCKET,
    USAGE_STREAM,
    read_batch,
)

logger = logging.getLogger(__name__)

CHECK_S = 60.0
MARKERS_EVERY_S = 3600.0
MARKERS_KEPT = timedelta(days=1)
"""A process reads a deleted object's marker within seconds, or compares the whole bucket when it connects again."""
BATCH = 500
DAY_S = 86_400.0
DEAD_STREAM_BYTES = 2 * 1024**3
DEAD_STREAM_DAYS = 35
"""Where dead letters have no bound of age: the stream only carries them to the table."""


def stream_bounds(kept: Retention) -> dict[str, tuple[float, int]]:
    """Return the seconds and bytes that each stream keeps; 0 is no bound."""
    dead_days = kept.dead_letters_days or DEAD_STREAM_DAYS
    jobs_s = (kept.jobs_days + 1) * DAY_S if kept.jobs_days else 0.0
    return {
        USAGE_STREAM: (kept.usage_log_days * DAY_S, kept.usage_log_bytes),
        DEAD_STREAM: (dead_days * DAY_S, DEAD_STREAM_BYTES),
        ATTEMPTS_STREAM: (kept.attempts_days * DAY_S, kept.attempts_bytes),
        f"KV_{JOBS_BUCKET}": (jobs_s, kept.job_documents_bytes),
    }


class StreamBounds:
    """Keeps to the bounds of streams, as a part of the projector."""

    def __init__(self, kept: Retention) -> None:
        self._bounds = stream_bounds(kept)

    async def run(self, client: Client, js: JetStreamContext, stop: asyncio.Event) -> None:
        """Check every minute until ``stop`` is set; a stream may have been recreated with its defaults."""
        markers_at = time.monotonic() + CHECK_S
        while not stop.is_set():
            for name, (seconds, most_bytes) in self._bounds.items():
                await set_bounds(js, name, seconds, most_bytes)
            if time.monotonic() >= markers_at:
                markers_at = time.monotonic() + MARKERS_EVERY_S
                for bucket in (SNAPSHOT_BUCKET, HEALTH_BUCKET):
                    await _delete_old_markers(client, js, bucket)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), CHECK_S)


async def set_bounds(js: JetStreamContext, name: str, seconds: float, most_bytes: int) -> None:
    """Set the age and size of a stream if they differ; an operator's NATS may refuse a larger reservation."""
    try:
        config = (await js.stream_info(name)).config
        wanted = replace(config, max_age=seconds, max_bytes=most_bytes or -1)
        if (config.max_age, config.max_bytes) != (wanted.max_age, wanted.max_bytes):
            await js.update_stream(wanted)
            logger.info("stream %s keeps %.0f s and %d bytes (0 and -1: no bound)", name, seconds, most_bytes or -1)
    except NotFoundError:
        return  # created when it is first needed
    except APIError as error:
        logger.warning("stream %s keeps its bounds, as NATS refuses new ones: %s", name, error.description)


async def _delete_old_markers(client: Client, js: JetStreamContext, bucket: str) -> None:
    try:
        await delete_markers(client, js, bucket, datetime.now(UTC) - MARKERS_KEPT)
    except TimeoutError as error:
        logger.warning("the markers of bucket %s are deleted later: %s", bucket, error)


async def delete_markers(client: Client, js: JetStreamContext, bucket: str, before: datetime) -> int:
    """Delete the markers that deleted objects left behind in a bucket, and return how many."""
    stream, position, deleted = f"KV_{bucket}", 1, 0
    while True:
        messages = await read_batch(client, stream, f"$KV.{bucket}.>", position, BATCH)
        for message in messages:
            headers = message.headers or {}
            sequence = int(headers["Nats-Sequence"])
            position = sequence + 1
            if headers.get("KV-Operation") and datetime.fromisoformat(headers["Nats-Time-Stamp"]) < before:
                # Up to this sequence: an object that was created again meanwhile stays.
                await js.purge_stream(stream, seq=position, subject=headers["Nats-Subject"])
                deleted += 1
        if len(messages) < BATCH:
            return deleted
