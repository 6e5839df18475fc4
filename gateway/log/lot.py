"""Lots: the live events that are offered to all listeners of a feed together, and rendered once for all of them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from gateway.log.event import Event

logger = logging.getLogger(__name__)

LOT_MAX_EVENTS = 256
LOT_MAX_BYTES = 64 * 1024
LOTS_MAX = 8
"""Lots that may wait; see :attr:`HandingOut.is_full`."""
LISTENERS_PER_TURN = 500
"""Listeners that are offered a lot before anything else is served."""

Form = Callable[[Event], bytes]
"""Returns an event as the bytes that a protocol sends."""


class Lot:
    """Events of one stream that arrived while the lots before them were handed out, in the order of their ids."""

    __slots__ = ("_joined", "by_address", "count", "events", "expires", "first_id", "last", "size", "stream")

    def __init__(self, stream: str, first: Event) -> None:
        self.stream = stream
        self.events: list[Event] = []
        self.count = 0
        self.first_id = first.id
        self.last = first
        self.by_address: dict[str, Event] = {}
        """The last event of each address."""
        self.size = 0
        """The bytes of all payloads."""
        self.expires = False
        """Whether some event expires, so that each has to be checked when it is sent."""
        self._joined: dict[Form, bytes] = {}
        self.add(first)

    def add(self, event: Event) -> None:
        """Add an event that comes after all others."""
        self.events.append(event)
        self.count += 1
        self.last = event
        self.by_address[event.address] = event
        self.size += len(event.data)
        self.expires = self.expires or event.expires_at is not None

    def has_room_for(self, stream: str, size: int) -> bool:
        """Return whether an event of this stream and size may be added."""
        return stream == self.stream and self.count < LOT_MAX_EVENTS and self.size + size <= LOT_MAX_BYTES

    def joined(self, form: Form) -> bytes:
        """Return all events in one form, made once however many listeners ask for it."""
        joined = self._joined.get(form)
        if joined is None:
            joined = self._joined[form] = b"".join(map(form, self.events))
        return joined


class Listener(Protocol):
    """Whoever lots are offered to."""

    def offer_lot(self, lot: Lot) -> None: ...


class HandingOut:
    """Offers events to listeners: lot by lot, and each lot to some listeners in each turn of the event loop.

    What arrives meanwhile makes the next lot: the more there is to do, the more events share the cost of one offer.
    """

    def __init__(self) -> None:
        self._lots: deque[tuple[Lot, list[Listener]]] = deque()
        """The lots to be offered, each with the listeners to which it was not offered yet."""
        self._is_closed = False
        self._is_scheduled = False
        self._room: asyncio.Future[None] | None = None

    def add(self, stream: str, event: Event, listeners: Iterable[Listener]) -> None:
        """Offer an event, within the next turns, to those who listen now."""
        lots = self._lots
        if self._is_closed or not lots or not lots[-1][0].has_room_for(stream, len(event.data)):
            lots.append((Lot(stream, event), list(listeners)))
            self._is_closed = False
        else:
            lots[-1][0].add(event)
        self._schedule()

    def close_lot(self) -> None:
        """Add no further event to the last lot, as other listeners are to get it."""
        self._is_closed = True

    @property
    def is_full(self) -> bool:
        """Whether so many lots wait that no more events are to be taken from NATS."""
        return len(self._lots) >= LOTS_MAX

    async def room(self) -> None:
        """Wait until fewer lots are to be offered."""
        while self.is_full:
            if self._room is None:
                self._room = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._room)

    def finish(self) -> None:
        """Offer all that was added, now."""
        while self._lots:
            self._offer(len(self._lots[0][1]))

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._is_scheduled = False
        left = LISTENERS_PER_TURN
        while self._lots and left > 0:
            left -= self._offer(left)
        if self._lots:
            self._schedule()

    def _offer(self, most: int) -> int:
        """Offer the first lot to this many listeners at most; return to how many it was offered."""
        lot, listeners = self._lots[0]
        # Not added to any more: some listeners have it.
        self._is_closed = self._is_closed or len(self._lots) == 1
        now, rest = listeners[:most], listeners[most:]
        if rest:
            self._lots[0] = (lot, rest)
        else:
            self._lots.popleft()
        for listener in now:
            try:
                listener.offer_lot(lot)
            except Exception:
                logger.exception("delivering to a listener failed")
        if self._room is not None and not self.is_full:
            self._room.set_result(None)
            self._room = None
        return len(now)
