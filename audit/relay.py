"""The relay: publishes changes to the snapshot in NATS KV, in order, and heals a bucket that differs from the rows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import orjson
from asgiref.sync import sync_to_async
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import APIError, NotFoundError
from nats.js.kv import KeyValue

from audit import services
from audit.documents import all_documents
from audit.models import Change
from gateway.nats_link import SNAPSHOT_BUCKET, ensure_infrastructure, read_batch
from gateway.snapshot_feed import PREFIX, STREAM, kv_key
from gateway.streams import ensure_stream

logger = logging.getLogger(__name__)

LOOK_S = 0.2
BATCH = 500
KINDS = ("tier", "consumer", "key", "route", "channel")


async def run(nc: Client, js: JetStreamContext, stop: asyncio.Event) -> None:
    """Relay until told to stop. Raises when NATS or the database fails; starting again is safe."""
    reconnects = -1
    while not stop.is_set():
        if nc.stats["reconnects"] != reconnects:
            reconnects = nc.stats["reconnects"]
            await reconcile(nc, js)
        while changes := await sync_to_async(_unpublished)():
            bucket = await js.key_value(SNAPSHOT_BUCKET)
            for change in changes:
                await _relay(js, bucket, change.kind, change.name, change.after)
            await sync_to_async(services.published)([change.pk for change in changes])
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK_S)


async def reconcile(nc: Client, js: JetStreamContext) -> int:
    """Make the bucket equal to the rows: put what is missing or differs, delete what is too much. Says how many."""
    await ensure_infrastructure(js)
    bucket = await js.key_value(SNAPSHOT_BUCKET)
    wanted = await sync_to_async(all_documents)()
    present = await _present(nc)
    mended = 0
    for (kind, name), document in wanted.items():
        if kind == "channel":
            await _ensure_stream(js, document)
        if present.pop(kv_key(kind, name), None) != orjson.dumps(document, option=orjson.OPT_SORT_KEYS):
            await _put(bucket, kind, name, document)
            mended += 1
    for key in present:
        await bucket.delete(key)
        mended += 1
    if mended:
        logger.info("snapshot: %d documents mended", mended)
    return mended


async def _relay(js: JetStreamContext, bucket: KeyValue, kind: str, name: str, after: dict[str, Any] | None) -> None:
    if kind not in KINDS:
        return
    if after is None:
        await bucket.delete(kv_key(kind, name))
        return
    if kind == "channel":
        # Before the data plane hears of the channel: what it publishes there must find its stream.
        await _ensure_stream(js, after)
    await _put(bucket, kind, name, after)


async def _put(bucket: KeyValue, kind: str, name: str, document: dict[str, Any]) -> None:
    await bucket.put(kv_key(kind, name), orjson.dumps(document, option=orjson.OPT_SORT_KEYS))


async def _ensure_stream(js: JetStreamContext, document: dict[str, Any]) -> None:
    try:
        await ensure_stream(js, document)
    except NotFoundError:
        raise
    except APIError:
        # One stream that JetStream refuses must not hold up the changes behind it.
        logger.exception("the stream of channel %s could not be made", document["address"])


async def _present(nc: Client) -> dict[str, bytes]:
    present: dict[str, bytes] = {}
    position = 1
    while True:
        messages = await read_batch(nc, STREAM, f"{PREFIX}>", position, BATCH)
        for message in messages:
            headers = message.headers or {}
            position = int(headers["Nats-Sequence"]) + 1
            key = headers["Nats-Subject"].removeprefix(PREFIX)
            if headers.get("KV-Operation") is None:
                present[key] = message.data
            else:
                present.pop(key, None)
        if len(messages) < BATCH:
            return present


def _unpublished() -> list[Change]:
    return list(Change.objects.unpublished()[:BATCH])
