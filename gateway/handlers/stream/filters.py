"""The filters of one socket on ``/v1/stream``: the addresses it reads, each from its own position."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gateway.channels.access import is_routed_to
from gateway.channels.frames import Frame, channel_of, conflation_of, start_of
from gateway.channels.outbox import Outbox
from gateway.channels.reading import Selection, gap_members, resolve, select
from gateway.channels.subscriber_lag import Reading, report
from gateway.identity.rights import allowed, conflated_s
from gateway.log.catch_up import Gap
from gateway.log.conflation import Conflation
from gateway.log.event import Event
from gateway.log.hub import Listener
from gateway.log.lot import Form, Lot
from gateway.log.position import parse_position
from gateway.refusals import Reason, Refused

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.plane import Plane

FILTERS_MAX = 200
_FORMS: dict[tuple[bool, bool], Form] = {
    (False, False): Event.frame_message,
    (False, True): Event.compressed_frame_message,
    (True, False): Event.cloudevent_message,
    (True, True): Event.compressed_cloudevent_message,
}
"""Events ready to be written, by whether they are CloudEvents and whether they are compressed."""


class StreamFilter:
    """What one ``subscribe`` frame requested, until it is unsubscribed from or replaced."""

    __slots__ = ("conflation", "interval_s", "listener", "principal", "reading", "selection")

    def __init__(self, selection: Selection, principal: object, interval_s: float) -> None:
        self.selection = selection
        self.interval_s = interval_s
        """The requested interval of conflation; the caller's rights may impose a longer one."""
        self.principal = principal
        """The principal whose right was checked last."""
        self.conflation: Conflation | None = None
        self.listener: Listener | None = None
        self.reading = Reading(selection.address)

    def stop(self) -> None:
        """Deliver nothing more. What delivers refers to this filter, and is forgotten."""
        if self.listener is not None:
            self.listener.stop()
            self.listener = self.reading.listener = None
        if self.conflation is not None:
            self.conflation.stop()
            self.conflation = None


class StreamFilters:
    """The filters of one connection, by the address in their ``subscribe`` frame."""

    __slots__ = ("_call", "_filters", "_outbox", "_plane", "_send", "is_cloudevents")

    def __init__(self, plane: Plane, call: Call, outbox: Outbox[str], send: Callable[[Frame], None]) -> None:
        self._plane = plane
        self._call = call
        self._outbox = outbox
        self._send = send
        self._filters: dict[str, StreamFilter] = {}
        self.is_cloudevents = False
        """Whether events are sent as CloudEvents."""

    def stop(self) -> None:
        """Deliver nothing more."""
        for stream_filter in self._filters.values():
            stream_filter.stop()

    async def subscribe(self, frame: Frame, ref: str | None) -> None:
        """Serve a ``subscribe`` frame; one for an address that is already read replaces its filter. Raises Refused."""
        address = channel_of(frame)
        start = parse_position(start_of(frame))
        interval_s = conflation_of(frame)
        principal = self._call.principal
        selection = select(self._plane.snapshot, self._call, address)
        if address not in self._filters and len(self._filters) >= FILTERS_MAX:
            raise Refused(
                Reason.INVALID_REQUEST,
                f"A connection may read at most {FILTERS_MAX} addresses; unsubscribe from one first.",
            )
        position = await resolve(self._plane.log, selection.channel, start)
        self._drop(address)
        stream_filter = StreamFilter(selection, principal, interval_s)

        def began(position: int) -> None:
            stream_filter.reading.begins_at = position
            answer = {"type": "subscribed", "channel": address, "id": str(position)}
            self._send(answer if ref is None else answer | {"ref": ref})

        def on_gap(gap: Gap) -> None:
            self._send({"type": "gap"} | gap_members(self._plane.config.public_url, selection, gap))

        deliver = self._conflated(stream_filter, self._delivery(stream_filter))
        stream_filter.listener = await self._plane.hub.subscribe_from(
            selection.channel,
            selection.subject,
            position,
            deliver,
            deliver_lot=self._lot_delivery(stream_filter),
            began=began,
            on_gap=on_gap,
            has_room=self._outbox.has_room,
            reader=self._call.caller.consumer,
        )
        stream_filter.reading.listener = stream_filter.listener
        self._filters[address] = stream_filter
        if principal is not self._call.principal and not self._is_still_allowed(stream_filter):
            raise Refused(Reason.FORBIDDEN, fatal=True)

    def _delivery(self, stream_filter: StreamFilter) -> Callable[[Event], None]:
        put_event, call, reading = self._outbox.put_event, self._call, stream_filter.reading
        is_cloudevents = self.is_cloudevents

        def deliver(event: Event) -> None:
            if stream_filter.principal is not call.principal and not self._is_still_allowed(stream_filter):
                return
            reading.last = event
            text = event.cloudevent() if is_cloudevents else event.frame()
            put_event(text, len(event.data), event.expires_at)

        return deliver

    def _lot_delivery(self, stream_filter: StreamFilter) -> Callable[[Lot], bool]:
        put_lot, call, reading = self._outbox.put_lot, self._call, stream_filter.reading
        form = _FORMS[self.is_cloudevents, call.peer.is_compressing]

        def deliver_lot(lot: Lot) -> bool:
            if stream_filter.principal is not call.principal and not self._is_still_allowed(stream_filter):
                return True
            if stream_filter.conflation is not None or not put_lot(call.peer, lot, form):
                return False
            reading.last = lot.last
            return True

        return deliver_lot

    def _is_still_allowed(self, stream_filter: StreamFilter) -> bool:
        """Check the right again after a change of consumer, key or tier. Connections closes a caller that lost it."""
        selection = stream_filter.selection
        if is_routed_to(self._call, selection.address) or allowed(self._call.caller, selection.right):
            stream_filter.principal = self._call.principal
            listener = stream_filter.listener
            if listener is not None:
                listener.deliver = self._conflated(stream_filter, listener.deliver)
            return True
        return False

    def _conflated(self, stream_filter: StreamFilter, deliver: Callable[[Event], None]) -> Callable[[Event], None]:
        """Return the function to pass events to, which conflates by the requested interval or that of the right."""
        interval_s = max(stream_filter.interval_s, conflated_s(self._call.caller, stream_filter.selection.right))
        conflation = stream_filter.conflation
        if conflation is not None:
            conflation.change(interval_s)
        elif interval_s:
            conflation = stream_filter.conflation = Conflation(interval_s, deliver, self._outbox.has_room)
        return deliver if conflation is None else conflation.offer

    def readings(self) -> list[dict[str, Any]]:
        """Return the read position of each filter, for the connection ledger."""
        return report([stream_filter.reading for stream_filter in self._filters.values()], self._outbox)

    def keep_rights(self) -> bool:
        """Return whether the caller may still read every filter."""
        return all(self._is_still_allowed(stream_filter) for stream_filter in self._filters.values())

    async def unsubscribe(self, frame: Frame, ref: str | None) -> None:
        """Serve an ``unsubscribe`` frame. Raises Refused."""
        address = channel_of(frame)
        self._drop(address)
        answer = {"type": "unsubscribed", "channel": address}
        self._send(answer if ref is None else answer | {"ref": ref})

    def _drop(self, address: str) -> None:
        stream_filter = self._filters.pop(address, None)
        if stream_filter is not None:
            stream_filter.stop()
