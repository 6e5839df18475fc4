"""Catch-up reads: where a reader of a channel begins, what it has lost for good, and how it joins the live events."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gateway.concurrency.stopping import stop_soon
from gateway.log.event import Event
from gateway.log.event_log import EventLog, Extent
from gateway.refusals import Refused
from gateway.snapshot.picture import Channel

EARLIEST = 0
"""The position before the oldest event left; reading from it reports no gap."""
BATCH_EVENTS = 250
BATCH_MAX_BYTES = 256 * 1024
BUFFERED_MAX = 256
"""Live events kept while a reader catches up; older ones are read from the log instead."""
RETRY_S = 0.25
_LONGEST_NAP_S = 0.1


@dataclass(frozen=True, slots=True)
class Gap:
    """Events that are lost to a reader: those with ids above ``from_id`` and below ``to_id``."""

    from_id: int
    to_id: int
    cause: str
    """``retention``, ``slow-reader`` or ``recreated``."""


def begin(position: int, extent: Extent) -> tuple[int, Gap | None]:
    """Return the position at which a reader begins, and the gap between the requested position and that."""
    if position == EARLIEST:
        return extent.first - 1, None
    if position > extent.last:
        # The position is of an earlier stream of that name: its ids cannot be compared with those of this one.
        return extent.last, Gap(position, extent.last + 1, "recreated")
    if position + 1 >= extent.first:
        return position, None
    cause = "recreated" if position < extent.began_at - 1 else "retention"
    return extent.first - 1, Gap(position, extent.first, cause)


class CatchUp:
    """Reads the log from a position up to the live events that have arrived meanwhile, and then delivers those."""

    def __init__(
        self,
        log: EventLog,
        channel: Channel,
        subject: str,
        *,
        deliver: Callable[[Event], None],
        done: Callable[[int], None],
        has_room: Callable[[], bool],
        patience_s: float = float("inf"),
        on_gap: Callable[[Gap], None],
        reader: str = "",
    ) -> None:
        self._log = log
        self._channel = channel
        self._subject = subject
        self._deliver = deliver
        self._done = done
        self._has_room = has_room
        self._patience_s = patience_s
        self._on_gap = on_gap
        self._reports_gaps = True
        self._reader = reader
        self._position = 0
        self._live: deque[Event] = deque()
        self._dropped_id = 0
        self._task: asyncio.Task[None] | None = None

    def offer(self, event: Event) -> None:
        """Buffer a live event, to be delivered after the events before it."""
        if len(self._live) >= BUFFERED_MAX:
            self._dropped_id = self._live.popleft().id
        self._live.append(event)

    def start(self, position: int, *, is_oldest: bool = False) -> None:
        """Start to read above a position of this stream. With ``is_oldest``, the first batch reports no gap."""
        self._position = position
        self._reports_gaps = not is_oldest
        self._task = asyncio.create_task(self._run(), name=f"catch up {self._subject}")

    def resume(self, position: int) -> None:
        """Start to read above a position that the stream may no longer hold."""
        self._position = position
        self._task = asyncio.create_task(self._resume(), name=f"catch up {self._subject}")

    def finish(self, position: int) -> None:
        """Deliver the buffered live events above the position, and end."""
        self._position = position
        for event in self._live:
            if event.id > self._position:
                self._pass_on(event)
        self._done(self._position)

    def cancel(self) -> None:
        stop_soon(self._task)

    async def _resume(self) -> None:
        while True:
            try:
                extent = await self._log.extent(self._channel)
                break
            except Refused:
                await asyncio.sleep(RETRY_S)
        self._position, gap = begin(self._position, extent)
        if gap is not None:
            self._on_gap(gap)
        await self._run()

    async def _run(self) -> None:
        while await self._read_on() or self._dropped_id > self._position:
            await self._wait_for_room()
        self.finish(self._position)

    async def _read_on(self) -> bool:
        """Deliver one batch; return whether there is more to read."""
        try:
            batch = await self._log.batch(
                self._channel, self._subject, self._position, BATCH_EVENTS, BATCH_MAX_BYTES, reader=self._reader
            )
            gap = await self._overtaken(batch.events[0].id if batch.events else None)
        except Refused:
            await asyncio.sleep(RETRY_S)
            return True
        if gap is not None:
            self._on_gap(gap)
            self._position = gap.to_id - 1
        self._reports_gaps = True
        for event in batch.events:
            self._pass_on(event)
        return batch.pending > 0

    def _pass_on(self, event: Event) -> None:
        self._position = event.id
        if not event.has_expired(time.time()):
            self._deliver(event)

    async def _overtaken(self, next_id: int | None) -> Gap | None:
        """Return the events that retention removed before they were read, if any: up to the next event at most."""
        if next_id == self._position + 1 or not self._reports_gaps:
            return None
        extent = await self._log.extent(self._channel)
        _, gap = begin(self._position, extent)
        if gap is None or gap.cause != "retention":
            return None
        return Gap(gap.from_id, gap.to_id if next_id is None else min(gap.to_id, next_id), "slow-reader")

    async def _wait_for_room(self) -> None:
        """Wait until the reader has sent what was delivered, at most ``patience_s``."""
        nap_s, waited_s = 0.0, 0.0
        while True:
            await asyncio.sleep(nap_s)
            waited_s += nap_s
            if self._has_room() or waited_s >= self._patience_s:
                return
            nap_s = min(_LONGEST_NAP_S, nap_s * 2 or 0.002)
