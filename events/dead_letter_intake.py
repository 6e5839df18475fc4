"""Reads the stream of dead letters, on which the data plane stores them, into rows, each exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping

from asgiref.sync import sync_to_async
from django.db import close_old_connections
from nats.aio.client import Client
from nats.js import JetStreamContext

from events import letters
from gateway.durable.dead_letter import read_letter
from gateway.link.nats import DEAD_STREAM, DEAD_SUBJECT, ensure_infrastructure, read_batch

logger = logging.getLogger(__name__)

POLL_S = 0.3
BATCH = 100


async def run(nc: Client, js: JetStreamContext, stop: asyncio.Event) -> None:
    """Read the stream until ``stop`` is set. Raises if NATS or the database fails; it can be run again at any time."""
    await sync_to_async(close_old_connections)()
    reconnects, made_at, position = -1, "", 0
    while not stop.is_set():
        if nc.stats["reconnects"] != reconnects:
            # After a reconnect the stream may be another one, with other sequences.
            reconnects = nc.stats["reconnects"]
            await ensure_infrastructure(js)
            made_at = str((await js.stream_info(DEAD_STREAM)).created)
            position = await sync_to_async(letters.position)(made_at)
        messages = await read_batch(nc, DEAD_STREAM, f"{DEAD_SUBJECT}.>", position + 1, BATCH)
        if messages:
            numbered = [_numbered(message.headers or {}, message.data) for message in messages]
            await sync_to_async(letters.record_dead_letters)(numbered, made_at)
            position = numbered[-1][0]
        if len(messages) < BATCH:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), POLL_S)


def _numbered(headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
    """Return the sequence and the document of a letter; an unreadable one is passed on to be reported."""
    try:
        document = read_letter(headers, body)
    except (KeyError, TypeError, ValueError):
        document = body
    return int(headers["Nats-Sequence"]), document
