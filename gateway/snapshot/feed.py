"""Keeps a Snapshot equal to the NATS KV bucket, through restarts and recreation of the bucket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg

from gateway.concurrency.stopping import stop_tasks
from gateway.link.nats import read_batch
from gateway.snapshot.bucket import PREFIX, STREAM, object_of
from gateway.snapshot.picture import Snapshot

logger = logging.getLogger(__name__)

POLL_S = 5.0
"""The longest time between two reads, in case a notification is lost."""
REREAD_S = (0.02, 0.05, 0.1, 0.25, 0.5)
"""Reads after a notification: it may arrive before its message can be read, as NATS forwards and stores at once."""
RETRY_S = 0.5
BATCH = 500


class SnapshotFeed:
    """Reads the bucket in the order of its sequences. A message on its subject only triggers the next read."""

    def __init__(self, client: Client, snapshot: Snapshot) -> None:
        self._client = client
        self._snapshot = snapshot
        self._next = 1
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the whole bucket, then follow its changes. Raises TimeoutError if the bucket does not answer."""
        await self._client.subscribe(f"{PREFIX}>", cb=self._notified)
        await self._read_on()
        self._task = asyncio.create_task(self._follow(), name="snapshot feed")

    async def stop(self) -> None:
        """Stop following. The snapshot keeps its content."""
        await stop_tasks(self._task)

    async def _notified(self, message: Msg) -> None:
        self._changed.set()

    async def _follow(self) -> None:
        link = self._client.stats["reconnects"]
        rereads: Iterator[float] = iter(())
        while True:
            with contextlib.suppress(TimeoutError):
                # Not wait_for: before Python 3.12, it loses a cancellation that coincides with a notification.
                async with asyncio.timeout(next(rereads, POLL_S)):
                    await self._changed.wait()
            if self._changed.is_set():
                self._changed.clear()
                rereads = iter(REREAD_S)
            try:
                if self._client.stats["reconnects"] != link:
                    # The bucket may have been recreated, with lower sequences: compare all of it.
                    await self._reload()
                    link = self._client.stats["reconnects"]
                await self._read_on()
            except Exception as error:
                logger.warning(
                    "snapshot: the bucket could not be read, serving the last state: %s",
                    str(error) or type(error).__name__,
                )
                await asyncio.sleep(RETRY_S)
                self._changed.set()

    async def _reload(self) -> None:
        removed = self._snapshot.names()
        self._next = 1
        read = await self._read_all()
        if not read:
            # The relay fills an emptied bucket again; an empty snapshot would close every connection.
            logger.warning("snapshot: the bucket is empty, serving the last state until it is filled")
            return
        removed -= {(kind, name) for kind, name, document in read if document is not None}
        self._snapshot.apply([*read, *((kind, name, None) for kind, name in removed)])

    async def _read_on(self) -> None:
        changes = await self._read_all()
        if changes:
            self._snapshot.apply(changes)

    async def _read_all(self) -> list[tuple[str, str, dict[str, Any] | None]]:
        changes: list[tuple[str, str, dict[str, Any] | None]] = []
        while True:
            messages = await read_batch(self._client, STREAM, f"{PREFIX}>", self._next, BATCH)
            for message in messages:
                self._next = int((message.headers or {})["Nats-Sequence"]) + 1
                change = _change(message)
                if change is not None:
                    changes.append(change)
            if len(messages) < BATCH:
                return changes


def _change(message: Msg) -> tuple[str, str, dict[str, Any] | None] | None:
    headers = message.headers or {}
    try:
        kind, name = object_of(headers["Nats-Subject"].removeprefix(PREFIX))
        if headers.get("KV-Operation") in ("DEL", "PURGE") or not message.data:
            return kind, name, None
        return kind, name, orjson.loads(message.data)
    except ValueError:
        logger.warning("snapshot: ignored a message of another format in the bucket: %s", headers.get("Nats-Subject"))
        return None
