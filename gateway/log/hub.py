"""Fans live events out to this process's listeners, each decoded once, and reads missed events back from the log.

There is one NATS subscription per subject filter (:mod:`gateway.log.feed`). A reader that begins at a position
subscribes first and then reads the log up to the first live event: it gets every event once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError

from gateway.concurrency.stopping import stop_tasks
from gateway.log.catch_up import EARLIEST, Gap, begin
from gateway.log.event_log import EventLog
from gateway.log.feed import Deliver, DeliverLot, Feed, Listener, OnGap, always, ignore
from gateway.log.handover import Handover
from gateway.log.unavailable import log_unavailable
from gateway.snapshot.picture import Channel, Snapshot

__all__ = ["EARLIEST", "Gap", "Hub", "Listener"]

CHECK_S = 0.5
"""How often feeds are checked for lost links and dropped messages."""


class Hub:
    """The live feeds of this process."""

    def __init__(self, client: Client, log: EventLog, snapshot: Snapshot) -> None:
        self.client = client
        self.log = log
        self._snapshot = snapshot
        self._feeds: dict[str, Feed] = {}
        self._at_work: set[asyncio.Task[Any]] = set()
        self._checker: asyncio.Task[None] | None = None
        self._handover = Handover(log, snapshot)
        snapshot.on_change(self._refresh)

    @property
    def link(self) -> int:
        """The number of reconnects to NATS: what was published between two links is in the log alone."""
        return int(self.client.stats["reconnects"])

    async def start(self) -> None:
        """Start to check feeds for lost links."""
        self._checker = asyncio.create_task(self._check(), name="hub check")

    async def stop(self) -> None:
        """Close every feed."""
        await stop_tasks(self._checker)
        await self._handover.stop()
        for feed in list(self._feeds.values()):
            self.forget(feed)
        await asyncio.gather(*self._at_work, return_exceptions=True)

    def subscribe_live(self, subject: str, deliver: Deliver) -> Listener:
        """Deliver the live events of a subject filter, which may span channels. ``deliver`` must return at once."""
        listener = Listener(deliver)
        self._in_background(self._join(subject, listener).open())
        return listener

    async def subscribe_confirmed(
        self, subject: str, deliver: Deliver, deliver_lot: DeliverLot | None = None
    ) -> Listener:
        """Deliver the live events of a subject filter, and return once NATS has the subscription.

        Nothing that is published afterwards is missed. Raises Refused where NATS is unavailable.
        """
        listener = Listener(deliver, deliver_lot=deliver_lot)
        try:
            await self._join(subject, listener).open()
        except NatsError as error:
            listener.stop()
            raise log_unavailable() from error
        return listener

    async def subscribe_from(
        self,
        channel: Channel,
        subject: str,
        position: int | None,
        deliver: Deliver,
        *,
        deliver_lot: DeliverLot | None = None,
        began: Callable[[int], None] | None = None,
        on_gap: OnGap = ignore,
        has_room: Callable[[], bool] = always,
        reader: str = "",
    ) -> Listener:
        """Deliver every event of a channel's subject filter above a position: the stored ones, then the live ones.

        ``position`` None begins with the next live event. ``began`` gets the actual position before the first event.
        ``on_gap`` gets what the log no longer holds: reading then begins at the oldest event left, or with the next
        live event if the position is of an earlier stream of that name. Stored events are read only while
        ``has_room()``, and in turn with other readers than ``reader``. ``deliver_lot``, where given, may deliver live
        events together. Raises Refused where the log is unavailable.
        """
        listener = Listener(deliver, on_gap, has_room, deliver_lot=deliver_lot, reader=reader)
        catching_up = listener.catch_up(self.log, channel, subject)
        feed = self._join(subject, listener)
        try:
            await feed.open()
            extent = await self.log.extent(channel)
        except NatsError as error:
            listener.stop()
            raise log_unavailable() from error
        except BaseException:
            listener.stop()
            raise
        feed.set_baseline(channel.stream, extent.last)
        begins_at, gap = (extent.last, None) if position is None else begin(position, extent)
        listener.position = begins_at
        if began is not None:
            began(begins_at)
        if gap is not None:
            on_gap(gap)
        if begins_at >= extent.last:
            catching_up.finish(begins_at)
        else:
            catching_up.start(begins_at, is_oldest=position == EARLIEST)
        return listener

    def channel_of(self, stream: str) -> Channel | None:
        """Return the channel whose events a stream holds."""
        return self._snapshot.channel_of(stream)

    def forget(self, feed: Feed) -> None:
        """Close a feed without listeners."""
        if self._feeds.get(feed.subject) is feed:
            del self._feeds[feed.subject]
            self._in_background(feed.close())

    def _join(self, subject: str, listener: Listener) -> Feed:
        feed = self._feeds.get(subject)
        if feed is None:
            feed = self._feeds[subject] = Feed(self, subject)
        feed.join(listener)
        return feed

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)

    def _refresh(self, kinds: frozenset[str]) -> None:
        if "channel" in kinds:
            self._handover.refresh(list(self._feeds.values()))

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            for feed in list(self._feeds.values()):
                feed.check()
