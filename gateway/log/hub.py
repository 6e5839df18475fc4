"""Fans live events out to this process's listeners, each decoded once, and reads missed events back from the log.

There is one NATS subscription per subject filter. A reader that begins at a position subscribes first and then reads
the log up to the first live event: it gets every event once. After a reconnect, or after NATS dropped messages, the
feed itself catches up the same way, so that its listeners see one unbroken order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from gateway.concurrency.stopping import stop_tasks
from gateway.log.catch_up import EARLIEST, CatchUp, Gap, begin
from gateway.log.event import Event, from_headers
from gateway.log.event_log import EventLog
from gateway.log.handover import Handover
from gateway.log.unavailable import log_unavailable
from gateway.snapshot.picture import Channel, Snapshot
from gateway.wire.subjects import LIVE_PREFIX, live, meet

__all__ = ["EARLIEST", "Gap", "Hub", "Listener"]

logger = logging.getLogger(__name__)

Deliver = Callable[[Event], None]
OnGap = Callable[[Gap], None]

NO_EVENTS = f"{LIVE_PREFIX}_apimgmt."
"""What the subjects begin with of other messages in a stream, such as redriven dead letters."""
PENDING_MAX_MESSAGES = 65_536
PENDING_MAX_BYTES = 64 * 1024 * 1024
CHECK_S = 0.5
"""How often feeds are checked for lost links and dropped messages."""
PATIENCE_S = 1.0
"""How long a feed that catches up waits for its slowest listener, per batch."""


def _always() -> bool:
    return True


def _ignore(gap: Gap) -> None:
    pass


class Listener:
    """One listener on a subject filter. It gets the events of a channel in the order of their ids, each once."""

    __slots__ = ("catching_up", "deliver", "feed", "has_room", "left_at", "on_gap", "position", "reader", "stream")

    def __init__(
        self,
        deliver: Deliver,
        on_gap: OnGap = _ignore,
        has_room: Callable[[], bool] = _always,
        *,
        reader: str = "",
    ) -> None:
        self.stream = ""
        """The stream of the one channel that it reads; empty for a filter across channels."""
        self.left_at: dict[str, int] = {}
        """The last id of each stream that it read before."""
        self.reader = reader
        """Whose turn it is when it reads stored events."""
        self.deliver = deliver
        self.on_gap = on_gap
        self.has_room = has_room
        self.position = 0
        """Events up to this id are not delivered; 0 for a filter across channels, whose ids cannot be compared."""
        self.feed: Feed | None = None
        self.catching_up: CatchUp | None = None

    def stop(self) -> None:
        """Deliver nothing more, from now on."""
        if self.catching_up is not None:
            self.catching_up.cancel()
            self.catching_up = None
        if self.feed is not None:
            self.feed.leave(self)
            self.feed = None

    @property
    def head(self) -> int:
        """The newest id of its filter that this process knows; 0 if none."""
        return self.feed.head(self.stream) if self.feed is not None else 0

    def reads(self, stream: str) -> bool:
        """Return whether it gets the events of a stream."""
        return self.stream in ("", stream)

    def offer(self, event: Event) -> None:
        """Deliver a live event, or buffer it until the log has been read up to it."""
        if self.catching_up is not None:
            self.catching_up.offer(event)
        elif event.id > self.position:
            self.deliver(event)

    def went_live(self, position: int) -> None:
        """Deliver live events directly from now on: stored ones have been delivered up to this position."""
        self.catching_up = None
        self.position = position

    def catch_up(self, log: EventLog, channel: Channel, subject: str) -> CatchUp:
        """Buffer live events from now on, until what is returned has read the log up to them."""
        if self.stream:
            self.left_at[self.stream] = self.head
        self.stream = channel.stream
        self.catching_up = CatchUp(
            log,
            channel,
            subject,
            deliver=self.deliver,
            done=self.went_live,
            has_room=self.has_room,
            on_gap=self.on_gap,
            reader=self.reader,
        )
        return self.catching_up


class Feed:
    """The live subscription of one subject filter, shared by its listeners in this process."""

    def __init__(self, hub: Hub, subject: str) -> None:
        self.subject = subject
        self._hub = hub
        self._listeners: dict[Listener, None] = {}
        self._positions: dict[str, int] = {}
        """The last id delivered, by stream."""
        self._baselines: dict[str, int] = {}
        """The last id of a stream when a reader began: without it, a hole right after it would not be noticed."""
        self._recovering: dict[str, CatchUp] = {}
        self._subscription: Subscription | None = None
        self._handled = 0
        self._dropped = 0
        self._link = hub.link
        self._opening: asyncio.Task[None] | None = None

    def join(self, listener: Listener) -> None:
        """Add a listener."""
        self._listeners[listener] = None
        listener.feed = self

    def leave(self, listener: Listener) -> None:
        """Remove a listener; the last one closes the subscription."""
        self._listeners.pop(listener, None)
        if not self._listeners:
            self._hub.forget(self)

    @property
    def listeners(self) -> tuple[Listener, ...]:
        return tuple(self._listeners)

    def head(self, stream: str) -> int:
        """Return the newest id that has arrived, or was stored when a reader began: of a stream, or of any."""
        ids = [*self._baselines.items(), *self._positions.items()]
        return max((id_ for name, id_ in ids if stream in ("", name)), default=0)

    async def open(self) -> None:
        """Subscribe, once for all listeners. Returns when the request was sent to NATS."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._subscribe(), name=f"subscribe {self.subject}")
        await asyncio.shield(self._opening)

    async def close(self) -> None:
        """Unsubscribe and stop catching up."""
        for catching_up in self._recovering.values():
            catching_up.cancel()
        if self._opening is not None:
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._subscription is not None:
            try:
                await self._subscription.unsubscribe()
            except NatsError as error:
                logger.debug("hub: not unsubscribed: %s", error)
            self._subscription = None  # it refers to this feed: a cycle

    def check(self) -> None:
        """Catch up if the link was lost or messages were dropped: without that, the next event would show it."""
        dropped = self._drops()
        if self._link == self._hub.link and dropped <= self._dropped:
            return
        logger.info("hub: catching up on %s", self.subject)
        self._link, self._dropped = self._hub.link, dropped
        for stream, position in {**self._baselines, **self._positions}.items():
            self._recover(stream, position)

    def set_baseline(self, stream: str, last: int) -> None:
        """Record the last id of a stream when a reader began; the first one counts."""
        self._baselines.setdefault(stream, last)

    async def _subscribe(self) -> None:
        self._subscription = await self._hub.client.subscribe(
            live(self.subject),
            cb=self._take,
            pending_msgs_limit=PENDING_MAX_MESSAGES,
            pending_bytes_limit=PENDING_MAX_BYTES,
        )

    def _drops(self) -> int:
        if self._subscription is None:
            return 0
        return int(self._subscription.delivered) - self._handled - int(self._subscription.pending_msgs)

    async def _take(self, message: Msg) -> None:
        self._handled += 1
        headers = message.headers or {}
        stream = headers.get("Nats-Stream", "")
        channel = self._hub.channel_of(stream)
        if channel is None or message.subject.startswith(NO_EVENTS):
            return
        event = from_headers(channel.address, message.subject, headers, message.data)
        if self._link != self._hub.link:
            self.check()
        recovering = self._recovering.get(stream)
        if recovering is not None:
            recovering.offer(event)
            return
        position = self._positions.get(stream)
        if position is not None and event.id <= position:
            return
        last = self._baselines.get(stream) if position is None else position
        if last is not None and event.previous > last:
            self._recover(stream, last)
            self._recovering[stream].offer(event)
            return
        self._deliver(stream, event)

    def _deliver(self, stream: str, event: Event) -> None:
        self._positions[stream] = event.id
        for listener in () if event.has_expired(time.time()) else tuple(self._listeners):
            if listener.reads(stream):
                listener.offer(event)

    def _recover(self, stream: str, position: int) -> None:
        channel = self._hub.channel_of(stream)
        subject = meet(self.subject, channel.subject) if channel is not None else None
        if channel is None or subject is None or stream in self._recovering:
            return

        def done(position: int) -> None:
            self._recovering.pop(stream, None)
            self._positions[stream] = position

        def report(gap: Gap) -> None:
            for listener in tuple(self._listeners):
                if listener.reads(stream):
                    listener.on_gap(gap)

        catching_up = CatchUp(
            self._hub.log,
            channel,
            subject,
            deliver=partial(self._deliver, stream),
            done=done,
            has_room=self._has_room,
            patience_s=PATIENCE_S,
            on_gap=report,
        )
        self._recovering[stream] = catching_up
        catching_up.resume(position)

    def _has_room(self) -> bool:
        return all(listener.has_room() for listener in self._listeners)


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

    async def subscribe_confirmed(self, subject: str, deliver: Deliver) -> Listener:
        """Deliver the live events of a subject filter, and return once NATS has the subscription.

        Nothing that is published afterwards is missed. Raises Refused where NATS is unavailable.
        """
        listener = Listener(deliver)
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
        began: Callable[[int], None] | None = None,
        on_gap: OnGap = _ignore,
        has_room: Callable[[], bool] = _always,
        reader: str = "",
    ) -> Listener:
        """Deliver every event of a channel's subject filter above a position: the stored ones, then the live ones.

        ``position`` None begins with the next live event. ``began`` gets the actual position before the first event.
        ``on_gap`` gets what the log no longer holds: reading then begins at the oldest event left, or with the next
        live event if the position is of an earlier stream of that name. Stored events are read only while
        ``has_room()``, and in turn with other readers than ``reader``. Raises Refused where the log is unavailable.
        """
        listener = Listener(deliver, on_gap, has_room, reader=reader)
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
