"""Server-sent events: one or several channels as an ``EventSource`` reads them, resumable by ``Last-Event-ID``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.call import Call, Reply
from gateway.channels.access import is_routed_to
from gateway.channels.outbox import SEND_TIMEOUT_S, Outbox
from gateway.channels.reading import Selection, gap_members, resolve
from gateway.channels.subscriber_lag import Reading, report
from gateway.concurrency.ending import Ending
from gateway.concurrency.stopping import stop_tasks
from gateway.identity.rights import allowed, conflated_s
from gateway.log.catch_up import Gap
from gateway.log.conflation import Conflation
from gateway.log.event import Event
from gateway.log.hub import Listener
from gateway.log.lot import Lot
from gateway.peer import ClientGone
from gateway.refusals import NO_PAGE, NOSNIFF, Reason, Refused
from gateway.wire.event_stream import error_event, final_event, named_event
from gateway.wire.header_fields import Headers

if TYPE_CHECKING:
    from gateway.plane import Plane

RETRY_MS = 2000
HEARTBEAT = b":\n\n"
HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    NOSNIFF,
    NO_PAGE,
]
Position = int | datetime | None


class EventStream:
    """One open event stream over one or several channels.

    An event's id is the position in each channel, in the order of the selections, joined by ``-``.
    """

    __slots__ = (
        "_call", "_conflate_s", "_conflations", "_ending", "_listeners", "_outbox", "_plane", "_positions",
        "_principal", "_readings", "_requested", "_selections",
    )  # fmt: skip

    def __init__(
        self,
        plane: Plane,
        call: Call,
        selections: Sequence[Selection],
        positions: Sequence[Position],
        *,
        conflate_s: float = 0.0,
    ) -> None:
        self._plane = plane
        self._call = call
        self._selections = selections
        self._requested = positions
        self._positions = [0] * len(selections)
        self._principal = call.principal
        self._conflate_s = conflate_s
        """Requested interval of conflation: at most one event per address and interval; 0 delivers every event."""
        self._conflations: dict[int, Conflation] = {}
        """By the number of the selection; the caller's rights may impose a longer interval than requested."""
        self._listeners: list[Listener] = []
        self._readings = [Reading(selection.address) for selection in selections]
        self._ending: Ending[Refused] = Ending()
        self._outbox: Outbox[bytes] = Outbox(plane.limiter, plane.config, call, ending=self._ending, notice=error_event)

    async def serve(self) -> Reply:
        """Answer 200 and stream until the client disconnects, the caller is refused or the process drains.

        Raises Refused before the 200 if a right is lost while positions and history are looked up.
        """
        positions = [await self._position(number) for number in range(len(self._selections))]
        self._positions = [position or 0 for position in positions]
        exchange = self._call.peer
        gone = asyncio.get_running_loop().create_future()
        exchange.watch(partial(_resolve, gone))
        writer: asyncio.Task[None] | None = None
        try:
            for number, position in enumerate(positions):
                await self._follow(number, position)
            connection = self._plane.connections.open(self._call, self._ending)
            connection.keeps_rights = self._is_still_allowed
            connection.readings = partial(report, self._readings, self._outbox)
            if not self._is_still_allowed():
                raise Refused(Reason.FORBIDDEN)
            await exchange.start(200, [*HEADERS, *self._plane.limiter.headers(self._call)])
            exchange.probe_with(HEARTBEAT)
            writer = asyncio.create_task(self._write(self._preamble(positions)), name="sse writer")
            ends: set[asyncio.Future[Any]] = {gone, writer, self._ending.future}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            return await self._end(writer)
        finally:
            self._unfollow()
            exchange.watch(None)
            await stop_tasks(writer)

    async def _position(self, number: int) -> int | None:
        """Return the position to start a channel from, or None for the next event of the only channel.

        With several channels each needs a position from the start, as the id of the first event contains all.
        """
        channel = self._selections[number].channel
        position = await resolve(self._plane.log, channel, self._requested[number])
        if position is None and len(self._selections) > 1:
            return await self._plane.log.last(channel)
        return position

    async def _follow(self, number: int, position: int | None) -> None:
        selection = self._selections[number]
        reading = self._readings[number]

        def began(begins_at: int) -> None:
            self._positions[number] = reading.begins_at = begins_at

        def deliver(event: Event) -> None:
            self._deliver(number, event)

        def on_gap(gap: Gap) -> None:
            self._positions[number] = gap.to_id - 1
            self._outbox.put(named_event("gap", gap_members(self._plane.config.public_url, selection, gap)))

        reading.listener = await self._plane.hub.subscribe_from(
            selection.channel,
            selection.subject,
            position,
            self._conflated(number, deliver),
            deliver_lot=self._deliver_lot if len(self._selections) == 1 else None,
            began=began,
            on_gap=on_gap,
            has_room=self._outbox.has_room,
            reader=self._call.caller.consumer,
        )
        self._listeners.append(reading.listener)

    def _unfollow(self) -> None:
        """Deliver nothing more. What delivers refers to this stream, and is forgotten."""
        for listener in self._listeners:
            listener.stop()
        for conflation in self._conflations.values():
            conflation.stop()
        for reading in self._readings:
            reading.listener = None
        self._listeners.clear()
        self._conflations.clear()

    def _conflated(self, number: int, deliver: Callable[[Event], None]) -> Callable[[Event], None]:
        interval_s = max(self._conflate_s, conflated_s(self._call.caller, self._selections[number].right))
        conflation = self._conflations.get(number)
        if conflation is not None:
            conflation.change(interval_s)
        elif interval_s:
            conflation = self._conflations[number] = Conflation(interval_s, deliver, self._outbox.has_room)
        return deliver if conflation is None else conflation.offer

    def _deliver(self, number: int, event: Event) -> None:
        if self._principal is not self._call.principal and not self._is_still_allowed():
            return
        self._positions[number] = event.id
        self._readings[number].last = event
        if len(self._positions) == 1:
            rendered = event.sse()
        else:
            rendered = b"id: %b\n%b" % (_id(self._positions), event.sse_data())
        self._outbox.put_event(rendered, len(event.data), event.expires_at)

    def _deliver_lot(self, lot: Lot) -> bool:
        """Deliver live events of the only channel together."""
        if self._principal is not self._call.principal and not self._is_still_allowed():
            return True
        if self._conflations or not self._outbox.put_lot(self._call.peer, lot, Event.sse):
            return False
        self._positions[0] = lot.last.id
        self._readings[0].last = lot.last
        return True

    def _is_still_allowed(self) -> bool:
        """Check the rights again after a change of consumer, key or tier, and apply the interval of conflation."""
        self._principal = self._call.principal
        for number, listener in enumerate(self._listeners):
            listener.deliver = self._conflated(number, listener.deliver)
        return all(
            is_routed_to(self._call, selection.address) or allowed(self._call.caller, selection.right)
            for selection in self._selections
        )

    def _preamble(self, positions: Sequence[int | None]) -> bytes:
        """Return the reconnection time and, for a stream of new events, an id without an event.

        The id is the position before the first event::

            retry: 2000

            id:41

        A client that is disconnected before it receives an event reconnects with it and misses nothing.
        """
        retry = b"retry: %d\n\n" % RETRY_MS
        if None not in self._requested:
            return retry
        starts = [
            reading.begins_at if position is None else position
            for reading, position in zip(self._readings, positions, strict=True)
        ]
        return retry + b"id:%b\n\n" % _id(starts)

    async def _write(self, preamble: bytes) -> None:
        await self._call.peer.send(preamble)
        loop, outbox, heartbeat_s = asyncio.get_running_loop(), self._outbox, self._plane.config.sse_heartbeat_s
        while True:
            heartbeat = loop.call_later(heartbeat_s, outbox.put, HEARTBEAT)
            try:
                await outbox.filled()
            finally:
                heartbeat.cancel()
            try:
                async with asyncio.timeout(heartbeat_s):
                    items = await outbox.take()
            except TimeoutError:
                items = [HEARTBEAT]
            except Refused as refused:
                self._ending(refused)
                return
            if not items:
                continue
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    # Not bound outside the loop: a changed route may have wrapped the peer in policies since.
                    await self._call.peer.send(b"".join(items))
            except TimeoutError:
                self._ending(Refused(Reason.TOO_SLOW))
                return

    async def _end(self, writer: asyncio.Task[None]) -> Reply:
        refused = self._ending.reason
        if writer.done() and refused is None:
            failure = writer.exception()
            if failure is not None and not isinstance(failure, ClientGone):
                raise failure
        if refused is None:
            return Reply(status=200, closed_by="client")
        await stop_tasks(writer)
        if refused.reason is not Reason.TOO_SLOW:
            # EventSource reconnects after a normal end, and receives 401 or 403 as the new response.
            try:
                async with asyncio.timeout(self._plane.config.close_timeout_s):
                    await self._call.peer.send(final_event(refused), more=False)
            except (TimeoutError, ClientGone):
                pass
        return Reply(status=200, refused=refused, error_class=refused.row.live.value, closed_by="gateway")


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _id(positions: Sequence[int]) -> bytes:
    return "-".join(map(str, positions)).encode()
