"""The relay: publishes changes to the snapshot in NATS KV in order, and repairs a bucket that differs from the rows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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

POLL_S = 0.03
CHECK_BUCKET_S = 3.0
BATCH = 500
IN_FLIGHT = 256
"""Keys that are written at the same time."""
WRONG_LAST_SEQUENCE = 10071
RIVALS_MAX = 10


@dataclass(frozen=True, slots=True)
class Entry:
    """The value of one key of the bucket, with its revision; ``data`` is None once the key was deleted."""

    revision: int
    data: bytes | None


async def run(nc: Client, js: JetStreamContext, stop: asyncio.Event) -> None:
    """Relay until ``stop`` is set. Raises when NATS or the database fails; it can be started again at any time."""
    await sync_to_async(close_old_connections)()
    link: tuple[int, str] = (-1, "")
    checked_at = float("-inf")
    while not stop.is_set():
        if nc.stats["reconnects"] != link[0] or time.monotonic() - checked_at > CHECK_BUCKET_S:
            # After a reconnect NATS may be empty, and the bucket may have been deleted.
            current = (nc.stats["reconnects"], await _created_at(js))
            checked_at = time.monotonic()
            if current != link:
                await reconcile(nc, js)
                link = (current[0], await _created_at(js))
        while changes := await sync_to_async(_unpublished)():
            await _relay_all(js, changes)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), POLL_S)


async def reconcile(nc: Client, js: JetStreamContext) -> int:
    """Make the bucket equal to the rows and return how many keys were put or deleted.

    Safe beside a running relay: a key that is written meanwhile is not overwritten, but compared again.
    """
    await ensure_infrastructure(js)
    for _ in range(RIVALS_MAX):
        try:
            return await _reconcile(nc, js)
        except BadRequestError as error:
            # The client has an exception class for this error on update, and raises the server's error on delete.
            if not isinstance(error, KeyWrongLastSequenceError) and error.err_code != WRONG_LAST_SEQUENCE:
                raise
    raise RuntimeError("the snapshot changes faster than it can be compared with the rows")


async def _reconcile(nc: Client, js: JetStreamContext) -> int:
    bucket = await js.key_value(SNAPSHOT_BUCKET)
    # The bucket is read before the rows: a later change makes the revision differ from the expected one.
    present = await _present(nc)
    documents = await sync_to_async(all_documents)()
    channels = [document for (kind, _), document in documents.items() if kind == "channel"]
    await retire_streams_except(js, {document["stream"] for document in channels})
    for document in channels:
        await _ensure_stream(js, document)
    corrections: list[Callable[[], Awaitable[object]]] = []
    for (kind, name), document in documents.items():
        key, data = kv_key(kind, name), encode(document)
        entry = present.pop(key, Entry(0, None))
        if entry.data != data:
            corrections.append(partial(bucket.update, key, data, last=entry.revision))
    for key, entry in present.items():
        if entry.data is not None:
            corrections.append(partial(bucket.delete, key, last=entry.revision))
    await _write_all(corrections)
    if corrections:
        logger.info("snapshot: %d documents corrected", len(corrections))
    return len(corrections)


async def _write_all(corrections: Sequence[Callable[[], Awaitable[object]]]) -> None:
    """Write many keys at a time: they differ, so that their order does not matter. Raises the first error."""
    for first in range(0, len(corrections), IN_FLIGHT):
        writes = (correct() for correct in corrections[first : first + IN_FLIGHT])
        # All of them end before an error is raised: none may still be on its way when the keys are compared again.
        for result in await asyncio.gather(*writes, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result


async def _relay_all(js: JetStreamContext, changes: list[Change]) -> None:
    """Publish changes in order and mark them as published; after an error the rest is tried again."""
    bucket = await js.key_value(SNAPSHOT_BUCKET)
    published: list[int] = []
    try:
        for change in changes:
            if change.kind in KINDS:
                await _relay(js, bucket, change)
            published.append(change.pk)
    finally:
        if published:
            await sync_to_async(services.mark_published)(published)


async def _relay(js: JetStreamContext, bucket: KeyValue, change: Change) -> None:
    key = kv_key(change.kind, change.name)
    if change.after is None:
        await bucket.delete(key)
        if change.kind == "channel" and change.before is not None:
            await retire_stream(js, change.before["stream"])
        return
    document = snapshot_document(change.kind, change.after)
    if change.kind == "channel":
        # Before the channel is published: once the data plane knows it, its stream must exist.
        await _ensure_stream(js, document)
    await bucket.put(key, encode(document))


async def _ensure_stream(js: JetStreamContext, document: Mapping[str, Any]) -> None:
    try:
        await ensure_stream(js, document)
    except (NotFoundError, ServiceUnavailableError):
        raise
    except APIError:
        # A stream that JetStream refuses must not block the changes after it.
        logger.exception("the stream of channel %s could not be created", document["address"])


async def _created_at(js: JetStreamContext) -> str:
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


def encode(document: Mapping[str, Any]) -> bytes:
    """Encode a snapshot document: the same bytes whether it comes from the audit log or from the tables.

    Its fields are sorted, as an earlier version may have recorded them in another order. Their values are as they are
    stored: the documents at ``/v1`` show schemas in the order of their members.
    """
    return orjson.dumps(dict(sorted(document.items())))


def _unpublished() -> list[Change]:
    return list(Change.objects.unpublished()[:BATCH])
