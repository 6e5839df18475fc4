"""The usage projector: reads the usage stream in order and writes it into tables, exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from datetime import UTC, datetime
from typing import Any

import orjson
from asgiref.sync import sync_to_async
from django.db import DataError
from nats.aio.client import Client
from nats.js import JetStreamContext

from analytics import services
from gateway.concurrency.clock_jumps import ClockJumps
from gateway.link.nats import USAGE_STREAM, USAGE_SUBJECT, connect, ensure_infrastructure, read_batch

logger = logging.getLogger(__name__)

POLL_S = 0.25
CHECK_LOST_S = 5.0
BATCH = 50
INVALID = (KeyError, TypeError, ValueError, AttributeError, OverflowError, DataError)
"""What projecting a malformed batch raises. The batch is skipped; a rebuild after a fix counts it."""
SKIPPED = {"process": "", "at": 0, "stopping": True}
"""Projected instead of a batch that is skipped."""

Numbered = tuple[int, Any]
"""A sequence in the stream, and its batch."""


async def run(nc: Client, js: JetStreamContext, stop: asyncio.Event) -> None:
    """Project until ``stop`` is set. Raises if NATS or the database fails; it can be run again at any time."""
    await ensure_infrastructure(js)
    checked_at = 0.0
    jumps = ClockJumps()
    while not stop.is_set():
        count = await _project_next(nc, js)
        if time.monotonic() - checked_at > CHECK_LOST_S:
            checked_at = time.monotonic()
            if jumps.jumped_s():
                await sync_to_async(services.restart_silence)(datetime.now(UTC))
            await sync_to_async(services.close_lost)(datetime.now(UTC))
        if count is not None and count < BATCH:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), POLL_S)


async def replay(nats_url: str) -> int:
    """Project everything in the stream and return the number of batches."""
    nc, js = await connect(nats_url, "rebuild analytics")
    try:
        total = 0
        while True:
            count = await _project_next(nc, js)
            total += count or 0
            if count is not None and count < BATCH:
                return total
    finally:
        await nc.close()


async def _project_next(nc: Client, js: JetStreamContext) -> int | None:
    """Project the next batches and return how many.

    Returns None if another projector was faster or the stream was recreated: try again.
    """
    created_at = await _stream_created_at(js)
    position = await sync_to_async(services.position)(created_at)
    messages = await read_batch(nc, USAGE_STREAM, f"{USAGE_SUBJECT}.>", position + 1, BATCH)
    if not messages:
        return 0
    if await _stream_created_at(js) != created_at:
        return None  # these messages belong to another stream than the position
    numbered = [(int((message.headers or {})["Nats-Sequence"]), message.data) for message in messages]
    batches = [(sequence, _parse(data, sequence)) for sequence, data in numbered]
    return len(messages) if await sync_to_async(_project)(batches, created_at, position) else None


def _project(batches: list[Numbered], created_at: str, after: int) -> bool:
    """Project batches; malformed ones are found by bisection and skipped, so that they do not block the others."""
    try:
        return services.project(batches, created_at, after=after)
    except INVALID:
        if len(batches) == 1:
            sequence = batches[0][0]
            logger.exception("usage: batch %d could not be projected and is skipped", sequence)
            return services.project([(sequence, SKIPPED)], created_at, after=after)
    half = len(batches) // 2
    first, second = batches[:half], batches[half:]
    return _project(first, created_at, after) and _project(second, created_at, first[-1][0])


def _parse(data: bytes, sequence: int) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        logger.error("usage: batch %d is not JSON and is skipped", sequence)
        return SKIPPED


async def _stream_created_at(js: JetStreamContext) -> str:
    return str((await js.stream_info(USAGE_STREAM)).created)
