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
from nats.aio.client import Client
from nats.js import JetStreamContext

from analytics import services
from gateway.nats_link import USAGE_STREAM, USAGE_SUBJECT, connect, ensure_infrastructure, read_batch

logger = logging.getLogger(__name__)

LOOK_S = 0.25
LOOK_FOR_LOST_S = 5.0
BATCH = 50


async def run(nc: Client, js: JetStreamContext, stop: asyncio.Event) -> None:
    """Project until told to stop. Raises when NATS or the database fails; starting again loses and doubles nothing."""
    await ensure_infrastructure(js)
    looked_at = 0.0
    reconnects, made_at, position = -1, "", 0
    while not stop.is_set():
        if nc.stats["reconnects"] != reconnects:
            # The stream behind a new link may be another one.
            reconnects = nc.stats["reconnects"]
            made_at = await _made_at(js)
            position = await sync_to_async(services.position)(made_at)
        read, position = await _step(nc, position, made_at)
        if time.monotonic() - looked_at > LOOK_FOR_LOST_S:
            looked_at = time.monotonic()
            await sync_to_async(services.close_lost)(datetime.now(UTC))
        if read < BATCH:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_S)


async def replay(nats_url: str) -> int:
    """Project the whole stream once. Says how many batches it held."""
    nc, js = await connect(nats_url, "rebuild analytics")
    try:
        made_at, position, total = await _made_at(js), 0, 0
        while True:
            read, position = await _step(nc, position, made_at)
            total += read
            if read < BATCH:
                return total
    finally:
        await nc.close()


async def _step(nc: Client, position: int, made_at: str) -> tuple[int, int]:
    """Project the next few batches. Gives how many messages were read, and the new position."""
    messages = await read_batch(nc, USAGE_STREAM, f"{USAGE_SUBJECT}.>", position + 1, BATCH)
    batches: list[tuple[int, dict[str, Any]]] = []
    for message in messages:
        sequence = int((message.headers or {})["Nats-Sequence"])
        batches.append((sequence, _read(message.data, sequence)))
    if batches:
        await sync_to_async(services.project)(batches, made_at)
        position = batches[-1][0]
    return len(messages), position


def _read(data: bytes, sequence: int) -> dict[str, Any]:
    try:
        batch = orjson.loads(data)
        if isinstance(batch, dict) and {"process", "at"} <= batch.keys():
            return batch
    except orjson.JSONDecodeError:
        pass
    logger.error("usage: batch %d could not be read and is left out", sequence)
    return {"process": "unreadable", "at": time.time(), "stopping": True}


async def _made_at(js: JetStreamContext) -> str:
    return str((await js.stream_info(USAGE_STREAM)).created)
