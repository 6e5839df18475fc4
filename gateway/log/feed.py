"""A feed: the live subscription of one subject filter, and its listeners in this process.

After a reconnect, or after NATS dropped messages, the feed itself catches up from the log, so that its listeners see
one unbroken order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from gateway.log.catch_up import CatchUp, Gap
from gateway.log.event import Event, from_headers
from gateway.log.event_log import EventLog
from gateway.log.lot import HandingOut, Lot
from gateway.snapshot.picture import Channel
from gateway.wire.subjects import LIVE_PREFIX, live, meet

logger = logging.getLogger(__name__)

Deliver = Callable[[Event], None]
DeliverLot = Callable[[Lot], bool]
"""Delivers all events of a lot; False if each has to be delivered by itself, and none was."""
OnGap = Callable[[Gap], None]

NO_EVENTS = f"{LIVE_PREFIX}_apimgmt."
"""What the subjects begin with of other messages in a stream, such as redriven dead letters."""
PENDING_MAX_MESSAGES = 65_536
PENDING_MAX_BYTES = 64 * 1024 * 1024
PATIENCE_S = 1.0
"""How long a feed that catches up waits for its slowest listener, per batch."""


class Source(Protocol):
    """What a feed is fed from."""

    @property
    def client(self) -> Client: ...

    @property
    def log(self) -> EventLog: ...

    @property
    def link(self) -> int: ...

    def channel_of(self, stream: str) -> Channel | None: ...

    def forget(self, feed: Feed) -> None: ...


def always() -> bool:
    return True


def ignore(gap: Gap) -> None:
    pass


class Listener:
    """One listener on a subject filter. It gets the events of a channel in the order of their ids, each once."""

    __slots__ = (
        "catching_up",
        "deliver",
        "deliver_lot",
        "feed",
        "has_room",
        "left_at",
        "on_gap",
        "position",
        "reader",
        "stream",
    )

    def __init__(
        self,
        deliver: Deliver,
        on_gap: OnGap = ignore,
        has_room: Callable[[], bool] = always,
        *,
        deliver_lot: DeliverLot | None = None,
        reader: str = "",
    ) -> None:
        self.stream = ""
        """The stream of the one channel that it reads; empty for a filter across channels."""
        self.left_at: dict[str, int] = {}
        """The last id of each stream that it read before."""
        self.reader = reader
        """Whose turn it is when it reads stored events."""
        self.deliver = deliver
        self.deliver_lot = deliver_lot
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

    def offer_lot(self, lot: Lot) -> None:
        """Deliver live events: together where nothing but plain delivery is asked, else each by itself."""
        # Written out, not called: this is done for each listener.
        if self.feed is None or (self.stream and self.stream != lot.stream):
            return
        if (
            self.deliver_lot is not None
            and self.catching_up is None
            and lot.first_id > self.position
            and not lot.expires
            and self.deliver_lot(lot)
        ):
            return
        for event in lot.events:
            self.offer(event)

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
        if self.feed is not None:
            self.feed.hand_out()
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

    def __init__(self, source: Source, subject: str) -> None:
        self.subject = subject
        self._source = source
        self._listeners: dict[Listener, None] = {}
        self._positions: dict[str, int] = {}
        """The last id delivered, by stream."""
        self._baselines: dict[str, int] = {}
        """The last id of a stream when a reader began: without it, a hole right after it would not be noticed."""
        self._recovering: dict[str, CatchUp] = {}
        self._subscription: Subscription | None = None
        self._handing_out = HandingOut()
        self._handled = 0
        self._dropped = 0
        self._link = source.link
        self._opening: asyncio.Task[None] | None = None

    def join(self, listener: Listener) -> None:
        """Add a listener. It is offered what arrives from now on."""
        self._handing_out.close_lot()
        self._listeners[listener] = None
        listener.feed = self

    def leave(self, listener: Listener) -> None:
        """Remove a listener; the last one closes the subscription."""
        self._listeners.pop(listener, None)
        if not self._listeners:
            self._source.forget(self)

    @property
    def listeners(self) -> tuple[Listener, ...]:
        return tuple(self._listeners)

    def hand_out(self) -> None:
        """Offer all that has arrived to the listeners, now."""
        self._handing_out.finish()

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
        if self._link == self._source.link and dropped <= self._dropped:
            return
        logger.info("hub: catching up on %s", self.subject)
        self._link, self._dropped = self._source.link, dropped
        for stream, position in {**self._baselines, **self._positions}.items():
            self._recover(stream, position)

    def set_baseline(self, stream: str, last: int) -> None:
        """Record the last id of a stream when a reader began; the first one counts."""
        self._baselines.setdefault(stream, last)

    async def _subscribe(self) -> None:
        self._subscription = await self._source.client.subscribe(
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
        channel = self._source.channel_of(stream)
        if channel is None or message.subject.startswith(NO_EVENTS):
            return
        event = from_headers(channel.address, message.subject, headers, message.data)
        if self._link != self._source.link:
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
        if self._handing_out.is_full:
            await self._handing_out.room()

    def _deliver(self, stream: str, event: Event) -> None:
        self._positions[stream] = event.id
        if not event.has_expired(time.time()):
            self._handing_out.add(stream, event, self._listeners)

    def _recover(self, stream: str, position: int) -> None:
        channel = self._source.channel_of(stream)
        subject = meet(self.subject, channel.subject) if channel is not None else None
        if channel is None or subject is None or stream in self._recovering:
            return

        def done(position: int) -> None:
            self._recovering.pop(stream, None)
            self._positions[stream] = position

        def report(gap: Gap) -> None:
            self.hand_out()
            for listener in tuple(self._listeners):
                if listener.reads(stream):
                    listener.on_gap(gap)

        catching_up = CatchUp(
            self._source.log,
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
        return not self._handing_out.is_full and all(listener.has_room() for listener in self._listeners)
