"""The relay: publishes changes to the snapshot in NATS KV, in order, and heals a bucket that differs from the rows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from asgiref.sync import sync_to_async
from django.db import close_old_connections
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import APIError, BadRequestError, KeyWrongLastSequenceError, NotFoundError, ServiceUnavailableError
from nats.js.kv import KeyValue

from audit import services
from audit.models import Change
from audit.snapshot_documents import KINDS, all_documents, snapshot_document
from gateway.link.nats import SNAPSHOT_BUCKET, ensure_infrastructure, read_batch
from gateway.log.streams import ensure_stream, retire_stream, retire_streams_except
from gateway.snapshot.bucket import PREFIX, STREAM, kv_key

logger = logging.getLogger(__name__)

LOOK_S = 0.03
LOOK_AT_BUCKET_S = 3.0
BATCH = 500
WRONG_LAST_SEQUENCE = 10071
RIVALS_MAX = 10


@dataclass(frozen=True, slots=True)
class Entry:
    """What lies under one key of the bucket: its revision, and its bytes; None once it was deleted."""

    revision: int
    data: bytes | None


async def run(nc: Client, js: JetStreamContext, stop: asyncio.Event) -> None:
    """Relay until told to stop. Raises when NATS or the database fails; starting again is safe."""
    await sync_to_async(close_old_connections)()
    link: tuple[int, str] = (-1, "")
    looked_at = float("-inf")
    while not stop.is_set():
        if nc.stats["reconnects"] != link[0] or time.monotonic() - looked_at > LOOK_AT_BUCKET_S:
            # Behind a new link may be an emptied NATS, and somebody may have deleted the bucket.
            found = (nc.stats["reconnects"], await _made_at(js))
            looked_at = time.monotonic()
            if found != link:
                await reconcile(nc, js)
                link = (found[0], await _made_at(js))
        while changes := await sync_to_async(_unpublished)():
            await _relay_all(js, changes)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK_S)


async def reconcile(nc: Client, js: JetStreamContext) -> int:
    """Make the bucket equal to the rows: put what is missing or differs, delete what is too much. Says how many.

    Safe beside a running relay: what somebody else wrote meanwhile is not overwritten, but compared again.
    """
    await ensure_infrastructure(js)
    for _ in range(RIVALS_MAX):
        try:
            return await _reconcile(nc, js)
        except BadRequestError as error:
            # The client names this fault where it updates, and gives the server's own where it deletes.
            if not isinstance(error, KeyWrongLastSequenceError) and error.err_code != WRONG_LAST_SEQUENCE:
                raise
    raise RuntimeError("The snapshot changes faster than it can be compared with the rows.")


async def _reconcile(nc: Client, js: JetStreamContext) -> int:
    bucket = await js.key_value(SNAPSHOT_BUCKET)
    # The bucket is read before the rows: whatever changes after that raises the revision that is expected here.
    present = await _present(nc)
    wanted = await sync_to_async(all_documents)()
    channels = [document for (kind, _), document in wanted.items() if kind == "channel"]
    await retire_streams_except(js, {document["stream"] for document in channels})
    for document in channels:
        await _ensure_stream(js, document)
    mended = 0
    for (kind, name), document in wanted.items():
        key, data = kv_key(kind, name), written(document)
        entry = present.pop(key, Entry(0, None))
        if entry.data != data:
            await bucket.update(key, data, last=entry.revision)
            mended += 1
    for key, entry in present.items():
        if entry.data is not None:
            await bucket.delete(key, last=entry.revision)
            mended += 1
    if mended:
        logger.info("snapshot: %d documents mended", mended)
    return mended


async def _relay_all(js: JetStreamContext, changes: list[Change]) -> None:
    """Publish changes in their order, and mark those that were; the rest is tried again."""
    bucket = await js.key_value(SNAPSHOT_BUCKET)
    told: list[int] = []
    try:
        for change in changes:
            if change.kind in KINDS:
                await _relay(js, bucket, change)
            told.append(change.pk)
    finally:
        if told:
            await sync_to_async(services.published)(told)


async def _relay(js: JetStreamContext, bucket: KeyValue, change: Change) -> None:
    key = kv_key(change.kind, change.name)
    if change.after is None:
        await bucket.delete(key)
        if change.kind == "channel" and change.before is not None:
            await retire_stream(js, change.before["stream"])
        return
    document = snapshot_document(change.kind, change.after)
    if change.kind == "channel":
        # Before the data plane hears of the channel: what it publishes there must find its stream.
        await _ensure_stream(js, document)
    await bucket.put(key, written(document))


async def _ensure_stream(js: JetStreamContext, document: Mapping[str, Any]) -> None:
    try:
        await ensure_stream(js, document)
    except (NotFoundError, ServiceUnavailableError):
        raise
    except APIError:
        # One stream that JetStream refuses must not hold up the changes behind it.
        logger.exception("the stream of channel %s could not be made", document["address"])


async def _made_at(js: JetStreamContext) -> str:
    try:
        return str((await js.stream_info(STREAM)).created)
    except NotFoundError:
        return ""


async def _present(nc: Client) -> dict[str, Entry]:
    present: dict[str, Entry] = {}
    position = 1
    while True:
        messages = await read_batch(nc, STREAM, f"{PREFIX}>", position, BATCH)
        for message in messages:
            headers = message.headers or {}
            revision = int(headers["Nats-Sequence"])
            position = revision + 1
            is_deleted = headers.get("KV-Operation") is not None
            key = headers["Nats-Subject"].removeprefix(PREFIX)
            present[key] = Entry(revision, None if is_deleted else message.data)
        if len(messages) < BATCH:
            return present


def written(document: Mapping[str, Any]) -> bytes:
    """Give the bytes of a snapshot document: the same document is always the same bytes."""
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def _unpublished() -> list[Change]:
    return list(Change.objects.unpublished()[:BATCH])
