"""The usage projector: reads the stream in order and writes it into tables, exactly once."""

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

LOOK_S = 0.25
LOOK_FOR_LOST_S = 5.0
BATCH = 50
BROKEN = (KeyError, TypeError, ValueError, AttributeError, OverflowError, DataError)
"""What a batch that is not as the contract says comes to; once mended, a rebuild counts it."""
LEFT_OUT = {"process": "", "at": 0, "stopping": True}

Numbered = tuple[int, Any]
"""A batch, and its sequence in the stream."""


async def run(nc: Client, js: JetStreamContext, stop: asyncio.Event) -> None:
    """Project until told to stop. Raises when NATS or the database fails; starting again loses and doubles nothing."""
    await ensure_infrastructure(js)
    looked_at = 0.0
    jumps = ClockJumps()
    while not stop.is_set():
        read = await _step(nc, js)
        if time.monotonic() - looked_at > LOOK_FOR_LOST_S:
            looked_at = time.monotonic()
            if jumps.jumped_s():
                await sync_to_async(services.clock_was_set)(datetime.now(UTC))
            await sync_to_async(services.close_lost)(datetime.now(UTC))
        if read is not None and read < BATCH:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_S)


async def replay(nats_url: str) -> int:
    """Project all that there is. Says how many batches this took."""
    nc, js = await connect(nats_url, "rebuild analytics")
    try:
        total = 0
        while True:
            read = await _step(nc, js)
            total += read or 0
            if read is not None and read < BATCH:
                return total
    finally:
        await nc.close()


async def _step(nc: Client, js: JetStreamContext) -> int | None:
    """Project the next few batches. Says how many; None where another was faster, or the stream was made anew."""
    made_at = await _made_at(js)
    position = await sync_to_async(services.position)(made_at)
    messages = await read_batch(nc, USAGE_STREAM, f"{USAGE_SUBJECT}.>", position + 1, BATCH)
    if not messages:
        return 0
    if await _made_at(js) != made_at:
        return None  # these are of another stream than the position
    numbered = [(int((message.headers or {})["Nats-Sequence"]), message.data) for message in messages]
    batches = [(sequence, _read(data, sequence)) for sequence, data in numbered]
    return len(messages) if await sync_to_async(_project)(batches, made_at, position) else None


def _project(batches: list[Numbered], made_at: str, after: int) -> bool:
    """Project batches; those that cannot be are found by halving, and left out: one must not hold up all others."""
    try:
        return services.project(batches, made_at, after=after)
    except BROKEN:
        if len(batches) == 1:
            sequence = batches[0][0]
            logger.exception("usage: batch %d could not be projected and is left out", sequence)
            return services.project([(sequence, LEFT_OUT)], made_at, after=after)
    half = len(batches) // 2
    first, second = batches[:half], batches[half:]
    return _project(first, made_at, after) and _project(second, made_at, first[-1][0])


def _read(data: bytes, sequence: int) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        logger.error("usage: batch %d could not be read and is left out", sequence)
        return LEFT_OUT


async def _made_at(js: JetStreamContext) -> str:
    return str((await js.stream_info(USAGE_STREAM)).created)
