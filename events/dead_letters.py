"""Turns what the data plane laid on the stream of dead letters into rows, each exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import orjson
from asgiref.sync import sync_to_async
from django.db.models import Max
from nats.aio.client import Client
from nats.js import JetStreamContext

from events.models import DeadLetter
from events.services import record_dead_letter
from gateway.nats_link import DEAD_STREAM, DEAD_SUBJECT, ensure_infrastructure, read_batch

logger = logging.getLogger(__name__)

LOOK_S = 0.3
BATCH = 100


async def run(nc: Client, js: JetStreamContext, stop: asyncio.Event) -> None:
    """Follow the stream until told to stop. Raises when NATS or the database fails; starting again is safe."""
    await ensure_infrastructure(js)
    position = await sync_to_async(_next_sequence)()
    last = (await js.stream_info(DEAD_STREAM)).state.last_seq
    if position > last + 1:
        logger.warning("the stream of dead letters was made anew; reading it from its start")
        position = 1
    while not stop.is_set():
        messages = await read_batch(nc, DEAD_STREAM, f"{DEAD_SUBJECT}.>", position, BATCH)
        for message in messages:
            sequence = int((message.headers or {})["Nats-Sequence"])
            await _keep(sequence, message.data)
            position = sequence + 1
        if len(messages) < BATCH:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_S)


async def _keep(sequence: int, data: bytes) -> None:
    try:
        document = orjson.loads(data)
        await sync_to_async(record_dead_letter)(sequence, document)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        # It must not hold up those behind it.
        logger.exception("dead letter %d could not be read", sequence)


def _next_sequence() -> int:
    highest: int | None = DeadLetter.objects.aggregate(highest=Max("sequence"))["highest"]
    return (highest or 0) + 1
