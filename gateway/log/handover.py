"""Moves readers of one channel to another, when that has come to own the addresses that they read.

A channel that is created may be more specific than the one that owned an address until then, and one that is deleted
leaves its addresses to a less specific one. Stored events stay where they are; a reader goes on with the new ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol

from gateway.concurrency.stopping import stop_tasks
from gateway.log.catch_up import RETRY_S, CatchUp
from gateway.log.event_log import EventLog
from gateway.refusals import Refused
from gateway.snapshot.picture import Channel, Snapshot

OVERLAP = timedelta(seconds=5)
"""Events of the new owner are read from this long before the change was noticed: clocks differ, and news takes time."""
POLL_S = 0.05


class Feed(Protocol):
    """The live events of a subject filter."""

    @property
    def subject(self) -> str: ...

    @property
    def listeners(self) -> tuple[Listener, ...]: ...

    def set_baseline(self, stream: str, last: int) -> None: ...


class Listener(Protocol):
    """A reader of a feed, which is None once it has stopped."""

    @property
    def stream(self) -> str: ...

    @property
    def feed(self) -> Feed | None: ...

    @property
    def catching_up(self) -> CatchUp | None: ...

    @property
    def left_at(self) -> Mapping[str, int]: ...

    def catch_up(self, log: EventLog, channel: Channel, subject: str) -> CatchUp: ...


class Handover:
    """Compares readers with the snapshot after each change of channels."""

    def __init__(self, log: EventLog, snapshot: Snapshot) -> None:
        self._log = log
        self._snapshot = snapshot
        self._moving: dict[Listener, asyncio.Task[None]] = {}

    def refresh(self, feeds: Iterable[Feed]) -> None:
        """Start to move each reader whose addresses belong to another channel now."""
        since = datetime.now(UTC) - OVERLAP
        for feed in feeds:
            bound = [listener for listener in feed.listeners if listener.stream and listener not in self._moving]
            owner = self._snapshot.channel_covering(feed.subject) if bound else None
            for listener in bound:
                if owner is not None and owner.stream != listener.stream:
                    self._moving[listener] = asyncio.create_task(self._move(feed, listener, since), name="handover")

    async def stop(self) -> None:
        await stop_tasks(*self._moving.values())

    async def _move(self, feed: Feed, listener: Listener, since: datetime) -> None:
        try:
            while listener.feed is feed:
                owner = self._snapshot.channel_covering(feed.subject)
                if owner is None or owner.stream == listener.stream:
                    return
                if listener.catching_up is None:
                    await self._read_from(feed, listener, owner, since)
                else:
                    # It reads what is left of the channel that it was with.
                    await asyncio.sleep(POLL_S)
        finally:
            del self._moving[listener]

    async def _read_from(self, feed: Feed, listener: Listener, owner: Channel, since: datetime) -> None:
        catching_up = listener.catch_up(self._log, owner, feed.subject)
        while listener.feed is feed:
            try:
                position = max(await self._log.sequence_at(owner, since) - 1, listener.left_at.get(owner.stream, 0))
            except Refused:
                await asyncio.sleep(RETRY_S)
                continue
            feed.set_baseline(owner.stream, position)
            catching_up.start(position, is_oldest=True)
            return
