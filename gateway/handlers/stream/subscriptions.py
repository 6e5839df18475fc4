"""What one socket on ``/v1/stream`` reads: its subscriptions, each from its own position on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gateway.channels.access import is_routed_to
from gateway.channels.frames import Frame, channel_of, conflation_of, start_of
from gateway.channels.outbox import Outbox
from gateway.channels.reading import Selection, gap_members, position_of, resolve, select
from gateway.channels.subscriber_lag import Reading, told
from gateway.identity.rights import allowed, conflated_s
from gateway.log.catch_up import Gap
from gateway.log.conflation import Conflation
from gateway.log.event import Event
from gateway.log.hub import Listening
from gateway.refusals import Reason, Refused

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.plane import Plane

SUBSCRIPTIONS_MAX = 200


class Subscription:
    """What one ``subscribe`` frame asked for, while it lasts."""

    __slots__ = ("asked_s", "conflation", "listening", "principal", "reading", "selection")

    def __init__(self, selection: Selection, principal: object, asked_s: float) -> None:
        self.selection = selection
        self.asked_s = asked_s
        """The interval of conflation that was asked for; the rights of the caller may give it less."""
        self.principal = principal
        self.conflation: Conflation | None = None
        self.listening: Listening | None = None
        self.reading = Reading(selection.address)

    def stop(self) -> None:
        """Deliver nothing more."""
        if self.listening is not None:
            self.listening.stop()
        if self.conflation is not None:
            self.conflation.stop()


class Subscriptions:
    """All of them, by the address that each was asked for by."""

    def __init__(self, plane: Plane, call: Call, outbox: Outbox[str], say: Callable[[Frame], None]) -> None:
        self._plane = plane
        self._call = call
        self._outbox = outbox
        self._say = say
        self._all: dict[str, Subscription] = {}
        self.is_cloudevents = False
        """Events are sent as CloudEvents."""

    def stop(self) -> None:
        """Deliver nothing more."""
        for subscription in self._all.values():
            subscription.stop()

    async def subscribe(self, frame: Frame, ref: str | None) -> None:
        """Serve a `subscribe` frame. Raises Refused."""
        address = channel_of(frame)
        asked = position_of(start_of(frame))
        interval_s = conflation_of(frame)
        principal = self._call.principal
        selection = select(self._plane.snapshot, self._call, address)
        if address not in self._all and len(self._all) >= SUBSCRIPTIONS_MAX:
            raise Refused(Reason.INVALID_REQUEST, f"A connection holds at most {SUBSCRIPTIONS_MAX} subscriptions.")
        position = await resolve(self._plane.log, selection.channel, asked)
        self._drop(address)
        subscription = Subscription(selection, principal, interval_s)

        def began(position: int) -> None:
            subscription.reading.begins_at = position
            said = {"type": "subscribed", "channel": address, "id": str(position)}
            self._say(said if ref is None else said | {"ref": ref})

        def on_gap(gap: Gap) -> None:
            self._say({"type": "gap"} | gap_members(self._plane.config.public_url, selection, gap))

        deliver = self._conflated(subscription, self._delivery(subscription))
        subscription.listening = await self._plane.hub.subscribe_from(
            selection.channel,
            selection.subject,
            position,
            deliver,
            began=began,
            on_gap=on_gap,
            has_room=self._outbox.has_room,
            reader=self._call.caller.consumer,
        )
        subscription.reading.listening = subscription.listening
        self._all[address] = subscription
        if principal is not self._call.principal and not self._is_still_allowed(subscription):
            raise Refused(Reason.FORBIDDEN, fatal=True)

    def _delivery(self, subscription: Subscription) -> Callable[[Event], None]:
        put_event, call, reading = self._outbox.put_event, self._call, subscription.reading
        is_cloudevents = self.is_cloudevents

        def deliver(event: Event) -> None:
            if subscription.principal is not call.principal and not self._is_still_allowed(subscription):
                return
            reading.last = event
            text = event.cloudevent() if is_cloudevents else event.frame()
            put_event(text, len(event.data))

        return deliver

    def _is_still_allowed(self, subscription: Subscription) -> bool:
        """Look at the right again: the consumer, key or tier has changed. Who lost it is closed by Connections."""
        selection = subscription.selection
        if is_routed_to(self._call, selection.address) or allowed(self._call.caller, selection.right):
            subscription.principal = self._call.principal
            listening = subscription.listening
            if listening is not None:
                listening.deliver = self._conflated(subscription, listening.deliver)
            return True
        return False

    def _conflated(self, subscription: Subscription, deliver: Callable[[Event], None]) -> Callable[[Event], None]:
        """Give what events are offered to, by what was asked for and by what the rights of the caller give now."""
        interval_s = max(subscription.asked_s, conflated_s(self._call.caller, subscription.selection.right))
        conflation = subscription.conflation
        if conflation is not None:
            conflation.change(interval_s)
        elif interval_s:
            conflation = subscription.conflation = Conflation(interval_s, deliver, self._outbox.has_room)
        return deliver if conflation is None else conflation.offer

    def readings(self) -> list[dict[str, Any]]:
        """Say how far each has come, for the ledger."""
        return told([subscription.reading for subscription in self._all.values()], self._outbox)

    def keep_rights(self) -> bool:
        """Say whether the caller may still read all of them."""
        return all(self._is_still_allowed(subscription) for subscription in self._all.values())

    async def unsubscribe(self, frame: Frame, ref: str | None) -> None:
        """Serve an `unsubscribe` frame. Raises Refused."""
        address = channel_of(frame)
        self._drop(address)
        said = {"type": "unsubscribed", "channel": address}
        self._say(said if ref is None else said | {"ref": ref})

    def _drop(self, address: str) -> None:
        subscription = self._all.pop(address, None)
        if subscription is not None:
            subscription.stop()
