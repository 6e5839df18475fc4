"""The crossing down: keeps a Snapshot equal to the NATS KV bucket, through restarts and recreation of the bucket."""

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

LOOK_AGAIN_S = 5.0
"""A lost nudge is made good after this time."""
LOOK_AFTER_S = (0.02, 0.05, 0.1, 0.25, 0.5)
"""A nudge may be faster than what it tells of: NATS hands a message on while it stores it. So it is looked again."""
RETRY_S = 0.5
BATCH = 500


class SnapshotFeed:
    """Reads the bucket in the order of its sequences; a message on its subject only says that it is time to look."""

    def __init__(self, client: Client, snapshot: Snapshot) -> None:
        self._client = client
        self._snapshot = snapshot
        self._next = 1
        self._nudge = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load all there is, then follow. Raises TimeoutError when the bucket does not answer."""
        await self._client.subscribe(f"{PREFIX}>", cb=self._nudged)
        await self._read_on()
        self._task = asyncio.create_task(self._follow(), name="snapshot feed")

    async def stop(self) -> None:
        """Stop following; the snapshot stays as it is."""
        await stop_tasks(self._task)

    async def _nudged(self, message: Msg) -> None:
        self._nudge.set()

    async def _follow(self) -> None:
        link = self._client.stats["reconnects"]
        looks: Iterator[float] = iter(())
        while True:
            with contextlib.suppress(TimeoutError):
                # Not wait_for: until Python 3.12 it forgets that it was cancelled where a nudge comes at that moment.
                async with asyncio.timeout(next(looks, LOOK_AGAIN_S)):
                    await self._nudge.wait()
            if self._nudge.is_set():
                self._nudge.clear()
                looks = iter(LOOK_AFTER_S)
            try:
                if self._client.stats["reconnects"] != link:
                    # The bucket may be another one with lower sequences: compare it whole.
                    await self._reload()
                    link = self._client.stats["reconnects"]
                await self._read_on()
            except Exception as error:
                logger.warning("snapshot: not read, serving the last one: %s", str(error) or type(error).__name__)
                await asyncio.sleep(RETRY_S)
                self._nudge.set()

    async def _reload(self) -> None:
        gone = self._snapshot.names()
        self._next = 1
        read = await self._read_all()
        if not read:
            # An emptied bucket is being filled again by the relay; an empty picture would close every socket.
            logger.warning("snapshot: the bucket is empty, serving the last one until it is filled")
            return
        gone -= {(kind, name) for kind, name, document in read if document is not None}
        self._snapshot.apply([*read, *((kind, name, None) for kind, name in gone)])

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
        logger.warning("snapshot: a document in the bucket is not ours: %s", headers.get("Nats-Subject"))
        return None
