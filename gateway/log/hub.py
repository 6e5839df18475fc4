"""Live events in, each decoded once, fanned out to who listens here; what was missed is read back from the log.

One subscription of NATS a subject filter, however many listen. A reader that begins at a position subscribes first
and then reads the log up to the first live event: no hole and no double. After a reconnect, or when the subscription
had to drop, the feed itself catches up the same way, so listeners see one unbroken order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from gateway.concurrency.stopping import stop_tasks
from gateway.log.catch_up import EARLIEST, CatchUp, Gap, begin
from gateway.log.event import Event, from_headers
from gateway.log.event_log import EventLog
from gateway.log.unavailable import log_unavailable
from gateway.snapshot.picture import Channel, Snapshot
from gateway.wire.subjects import LIVE_PREFIX, live

__all__ = ["EARLIEST", "Gap", "Hub", "Listening"]

logger = logging.getLogger(__name__)

Deliver = Callable[[Event], None]
OnGap = Callable[[Gap], None]

PENDING_MAX_MESSAGES = 65_536
PENDING_MAX_BYTES = 64 * 1024 * 1024
LOOK_S = 0.5
PATIENCE_S = 1.0
"""How long a feed that catches up waits for its slowest listener, a batch."""


def _always() -> bool:
    return True


def _ignore(gap: Gap) -> None:
    """Nobody asked to be told."""


class Listening:
    """One listener on one subject filter. Events of a channel arrive in the order of their ids, each once."""

    __slots__ = ("catching_up", "deliver", "feed", "has_room", "on_gap", "position")

    def __init__(self, deliver: Deliver, on_gap: OnGap = _ignore, has_room: Callable[[], bool] = _always) -> None:
        self.deliver = deliver
        self.on_gap = on_gap
        self.has_room = has_room
        self.position = 0
        """Events up to here are not for it; 0 where it listens across channels, whose ids cannot be compared."""
        self.feed: Feed | None = None
        self.catching_up: CatchUp | None = None

    def stop(self) -> None:
        """Hear nothing more, at once."""
        if self.catching_up is not None:
            self.catching_up.cancel()
        if self.feed is not None:
            self.feed.leave(self)
            self.feed = None

    @property
    def head(self) -> int:
        """The newest id that is known here of what it listens to; 0 where none is."""
        return self.feed.head if self.feed is not None else 0

    def offer(self, event: Event) -> None:
        """Take a live event: deliver it, or keep it until the log has been read."""
        if self.catching_up is not None:
            self.catching_up.offer(event)
        elif event.id > self.position:
            self.deliver(event)

    def went_live(self, position: int) -> None:
        """All that was stored has been delivered, up to here; what comes is delivered as it comes."""
        self.catching_up = None
        self.position = position


class Feed:
    """What one subject filter's live subscription brings, for all who listen to it here."""

    def __init__(self, hub: Hub, subject: str) -> None:
        self.subject = subject
        self._hub = hub
        self._listeners: dict[Listening, None] = {}
        self._positions: dict[str, int] = {}
        """The last id delivered, by stream."""
        self._baselines: dict[str, int] = {}
        """Where a stream stood when someone began to listen: a hole right after it would else go unseen."""
        self._recovering: dict[str, CatchUp] = {}
        self._subscription: Subscription | None = None
        self._handled = 0
        self._dropped = 0
        self._link = hub.link
        self._opening: asyncio.Task[None] | None = None

    def join(self, listening: Listening) -> None:
        """Deliver to one more."""
        self._listeners[listening] = None
        listening.feed = self

    def leave(self, listening: Listening) -> None:
        """Deliver to one less; the last one closes the subscription."""
        self._listeners.pop(listening, None)
        if not self._listeners:
            self._hub.forget(self)

    @property
    def head(self) -> int:
        """The newest id that came, or was there when someone began to listen."""
        return max([*self._baselines.values(), *self._positions.values()], default=0)

    async def open(self) -> None:
        """Subscribe, once for all; returns when NATS has been told."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._subscribe(), name=f"subscribe {self.subject}")
        await asyncio.shield(self._opening)

    async def close(self) -> None:
        """Unsubscribe and stop recovering."""
        for catching_up in self._recovering.values():
            catching_up.cancel()
        if self._opening is not None:
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._subscription is not None:
            try:
                await self._subscription.unsubscribe()
            except NatsError as error:
                logger.debug("hub: not unsubscribed: %s", error)

    def look(self) -> None:
        """Catch up where the link was lost or NATS had to drop: nobody else would notice until the next event."""
        dropped = self._drops()
        if self._link == self._hub.link and dropped <= self._dropped:
            return
        logger.info("hub: catching up on %s", self.subject)
        self._link, self._dropped = self._hub.link, dropped
        for stream, position in {**self._baselines, **self._positions}.items():
            self._recover(stream, position)

    def stood_at(self, stream: str, last: int) -> None:
        """Remember where a stream stood when someone began to listen."""
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
        if channel is None:
            return
        event = from_headers(channel.address, message.subject[len(LIVE_PREFIX) :], headers, message.data)
        if self._link != self._hub.link:
            self.look()
        recovering = self._recovering.get(stream)
        if recovering is not None:
            recovering.offer(event)
            return
        position = self._positions.get(stream)
        if position is not None and event.id <= position:
            return
        known = self._baselines.get(stream) if position is None else position
        if known is not None and event.previous > known:
            self._recover(stream, known)
            self._recovering[stream].offer(event)
            return
        self._deliver(stream, event)

    def _deliver(self, stream: str, event: Event) -> None:
        self._positions[stream] = event.id
        for listening in tuple(self._listeners):
            listening.offer(event)

    def _recover(self, stream: str, position: int) -> None:
        channel = self._hub.channel_of(stream)
        if channel is None or stream in self._recovering:
            return

        def deliver(event: Event) -> None:
            self._deliver(stream, event)

        def done(position: int) -> None:
            self._recovering.pop(stream, None)

        catching_up = CatchUp(
            self._hub.log,
            channel,
            # A filter across channels asks each for its own.
            channel.subject if ">" in self.subject else self.subject,
            deliver=deliver,
            done=done,
            has_room=self._has_room,
            patience_s=PATIENCE_S,
            on_gap=self._gap,
        )
        self._recovering[stream] = catching_up
        catching_up.resume(position)

    def _gap(self, gap: Gap) -> None:
        for listening in tuple(self._listeners):
            listening.on_gap(gap)

    def _has_room(self) -> bool:
        return all(listening.has_room() for listening in self._listeners)


class Hub:
    """All live feeds of this process."""

    def __init__(self, client: Client, log: EventLog, snapshot: Snapshot) -> None:
        self.client = client
        self.log = log
        self._snapshot = snapshot
        self._feeds: dict[str, Feed] = {}
        self._streams: dict[str, Channel] | None = None
        self._at_work: set[asyncio.Task[Any]] = set()
        self._looker: asyncio.Task[None] | None = None
        snapshot.on_change(self._refresh)

    @property
    def link(self) -> int:
        """How often the link to NATS was made anew: what was live between two links is in the log alone."""
        return int(self.client.stats["reconnects"])

    async def start(self) -> None:
        """Begin to look after lost links."""
        self._looker = asyncio.create_task(self._look(), name="hub look")

    async def stop(self) -> None:
        """Close every feed."""
        if self._looker is not None:
            await stop_tasks(self._looker)
        for feed in list(self._feeds.values()):
            self.forget(feed)
        await asyncio.gather(*self._at_work, return_exceptions=True)

    def subscribe_live(self, subject: str, deliver: Deliver) -> Listening:
        """Hear live events of a subject filter, which may span channels, from now on. ``deliver`` returns at once."""
        listening = Listening(deliver)
        self._in_background(self._join(subject, listening).open())
        return listening

    async def subscribe_confirmed(self, subject: str, deliver: Deliver) -> Listening:
        """Listen, and return once NATS knows of it: nothing that is published from then on is missed.

        Raises Refused where NATS is away.
        """
        listening = Listening(deliver)
        try:
            await self._join(subject, listening).open()
        except NatsError as error:
            listening.stop()
            raise log_unavailable() from error
        return listening

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
    ) -> Listening:
        """Hear every event of a channel's subject filter above a position: first what is stored, then what comes.

        ``position`` None begins with what comes next. ``began`` is told the position really begun at before anything is
        delivered. A position whose successors are gone calls ``on_gap`` and begins at the oldest left; one from the
        future, or from another stream of that name, calls it and begins with what comes next. Stored events are read
        only while ``has_room()``, and in ``reader``'s turn. Raises Refused where the log is away.
        """
        listening = Listening(deliver, on_gap, has_room)
        catching_up = CatchUp(
            self.log,
            channel,
            subject,
            deliver=deliver,
            done=listening.went_live,
            has_room=has_room,
            on_gap=on_gap,
            reader=reader,
        )
        listening.catching_up = catching_up
        feed = self._join(subject, listening)
        try:
            await feed.open()
            extent = await self.log.extent(channel)
        except NatsError as error:
            listening.stop()
            raise log_unavailable() from error
        except BaseException:
            listening.stop()
            raise
        feed.stood_at(channel.stream, extent.last)
        begins_at, gap = (extent.last, None) if position is None else begin(position, extent)
        listening.position = begins_at
        if began is not None:
            began(begins_at)
        if gap is not None:
            on_gap(gap)
        if begins_at >= extent.last:
            catching_up.finish(begins_at)
        else:
            catching_up.start(begins_at, is_oldest=position == EARLIEST)
        return listening

    def channel_of(self, stream: str) -> Channel | None:
        """Give the channel whose log a stream is."""
        if self._streams is None:
            self._streams = {channel.stream: channel for channel in self._snapshot.channels()}
        return self._streams.get(stream)

    def forget(self, feed: Feed) -> None:
        """Close a feed that nobody listens to."""
        if self._feeds.get(feed.subject) is feed:
            del self._feeds[feed.subject]
            self._in_background(feed.close())

    def _join(self, subject: str, listening: Listening) -> Feed:
        feed = self._feeds.get(subject)
        if feed is None:
            feed = self._feeds[subject] = Feed(self, subject)
        feed.join(listening)
        return feed

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)

    def _refresh(self, kinds: frozenset[str]) -> None:
        if "channel" in kinds:
            self._streams = None

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for feed in list(self._feeds.values()):
                feed.look()
