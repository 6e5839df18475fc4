"""The topic filters of one MQTT connection: which events they match, and how those are sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from gateway.call import Call
from gateway.channels.access import channel_for, require_protocol
from gateway.channels.outbox import Outbox
from gateway.channels.reading import resolve
from gateway.concurrency.stopping import stop_soon
from gateway.handlers.mqtt.filter_rights import may_read_some
from gateway.handlers.mqtt.publishing import ORIGIN, RETAIN
from gateway.handlers.mqtt.rendering import PLAIN, left_s_of, parts_of, rendered, renewed
from gateway.identity.rights import allowed, require
from gateway.log.catch_up import Gap
from gateway.log.event import Event
from gateway.log.hub import Listener
from gateway.log.lot import Lot
from gateway.log.position import parse_position
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Channel
from gateway.snapshot.right import Right, Verb
from gateway.wire.mqtt import codec
from gateway.wire.mqtt.packets import RequestedFilter, Subscribe, Unsubscribe
from gateway.wire.mqtt.replies import ProtocolViolation, Replies
from gateway.wire.mqtt.session import QOS_GRANTED_MAX, SUBSCRIPTIONS_MAX, Parts, Renew, Session
from gateway.wire.subjects import AddressError, filters_of, meet

if TYPE_CHECKING:
    from gateway.plane import Plane

NO_SUBSCRIPTION_EXISTED = 0x11
SHARED_NOT_SUPPORTED, IDENTIFIERS_NOT_SUPPORTED = 0x9E, 0xA1
RETAINED_ALWAYS, RETAINED_NEVER = 0, 2
"""Values of Retain Handling (3.8.3.1): send retained events at every SUBSCRIBE, or never."""
NAP_S = 0.01
FILTERS_AT_ONCE = 20
"""Filters granted or refused before other connections are served."""
VERDICTS_KEPT = 10_000
POSITION = "from"
"""The user property of SUBSCRIBE that names the position to start from."""


@dataclass(slots=True, eq=False)
class TopicFilter:
    """One granted topic filter and what feeds it."""

    options: RequestedFilter
    listeners: list[Listener] = field(default_factory=list)
    gap: Gap | None = None
    """Ids that were lost; reported with the next event."""
    replaying: asyncio.Task[None] | None = None
    """Sends the events that were retained when the filter was granted."""
    seen: dict[str, int] = field(default_factory=dict)
    """The newest live id of each address during the replay; an older retained event is not sent after it."""

    def stop(self) -> None:
        """Deliver nothing more. What delivers refers to this filter, and is forgotten."""
        stop_soon(self.replaying)
        for listener in self.listeners:
            listener.stop()
        self.listeners.clear()


class Subscribing:
    """All topic filters of one connection."""

    def __init__(
        self, plane: Plane, call: Call, session: Session, outbox: Outbox[bytes], close: Callable[[Refused], None]
    ) -> None:
        self._plane = plane
        self._call = call
        self._session = session
        self._outbox = outbox
        self._close = close
        self._answers = Replies(session.connect)
        self._filters: dict[str, TopicFilter] = {}
        self._verdicts: dict[str, bool] = {}
        self._revision = -1

    @property
    def excludes_own(self) -> bool:
        """Whether some filter excludes what this connection published (No Local, 3.8.3.1)."""
        return any(topic_filter.options.no_local for topic_filter in self._filters.values())

    async def subscribe(self, packet: Subscribe) -> None:
        """Process a SUBSCRIBE and queue its SUBACK."""
        if "subscription_identifier" in packet.properties:
            raise ProtocolViolation(
                IDENTIFIERS_NOT_SUPPORTED, "subscription identifiers are not offered", cause="not-offered"
            )
        position = dict(packet.properties.get("user", ())).get(POSITION)
        outcomes: list[int | Refused] = []
        for number, options in enumerate(packet.filters):
            if number % FILTERS_AT_ONCE == 0:
                await asyncio.sleep(0)
            try:
                outcomes.append(await self._subscribe(options, position))
            except Refused as refused:
                if self._call.connection is not None:
                    self._call.connection.refused(refused)
                outcomes.append(refused.bare())
        self._outbox.put(self._answers.suback(packet.packet_id, outcomes))

    def unsubscribe(self, packet: Unsubscribe) -> None:
        """Process an UNSUBSCRIBE and queue its UNSUBACK."""
        codes = []
        for filter_ in packet.filters:
            topic_filter = self._filters.pop(filter_, None)
            codes.append(NO_SUBSCRIPTION_EXISTED if topic_filter is None else 0)
            if topic_filter is not None:
                topic_filter.stop()
        self._outbox.put(codec.unsuback(self._session.version, packet.packet_id, codes))

    def acknowledged(self, packet_id: int) -> None:
        """Process a PUBACK and send what was held until the client could receive more."""
        self._session.acknowledge(packet_id)
        while (held := self._session.next_held()) is not None:
            self._send(*held)

    def stop(self) -> None:
        """Deliver nothing more."""
        for topic_filter in self._filters.values():
            topic_filter.stop()

    # What a filter matches

    async def _subscribe(self, requested: RequestedFilter, position: str | None) -> int:
        """Grant one filter and return its QoS. Raises Refused."""
        options = replace(requested, qos=min(requested.qos, QOS_GRANTED_MAX))
        principal = self._call.principal
        subjects, channels = self._resolve(options.filter)
        present = self._filters.get(options.filter)
        if present is not None and position is None:
            # The filter keeps its feed and only changes its options, so no event is missed (3.8.4).
            present.options = options
            if options.retain_handling == RETAINED_ALWAYS:
                self._start_replay(present, subjects)
            return options.qos
        if present is None and len(self._filters) >= SUBSCRIPTIONS_MAX:
            raise Refused(
                Reason.QUOTA_EXCEEDED,
                f"A connection may have at most {SUBSCRIPTIONS_MAX} topic filters; unsubscribe from one first.",
                cause="too-many-subscriptions",
            )
        topic_filter = await self._start(options, subjects, channels, position)
        if present is not None:
            present.stop()
        if position is None and options.retain_handling != RETAINED_NEVER:
            self._start_replay(topic_filter, subjects)
        self._filters[options.filter] = topic_filter
        if principal is not self._call.principal and not self.keeps_rights():
            self._close(Refused(Reason.FORBIDDEN))  # the right was lost while the filter was being granted
        return options.qos

    async def _start(
        self, options: RequestedFilter, subjects: tuple[str, ...], channels: list[Channel], position: str | None
    ) -> TopicFilter:
        topic_filter = TopicFilter(options)
        try:
            if position is None:
                await self._follow_live(topic_filter, subjects)
            else:
                await self._follow_from(topic_filter, subjects, channels, position)
        except BaseException:
            topic_filter.stop()
            raise
        return topic_filter

    def keeps_rights(self) -> bool:
        """Return whether each filter would still be granted: whether some event that it matches may be read."""
        return all(self._may_read_any(filter_) for filter_ in self._filters)

    def _may_read_any(self, filter_: str) -> bool:
        if "+" not in filter_ and "#" not in filter_:
            return allowed(self._call.caller, Right(Verb.SUBSCRIBE, filter_))
        subjects = filters_of(filter_)
        matched = self._plane.snapshot.channels_meeting(subjects)
        return not matched or any(may_read_some(self._call.caller, channel.address, subjects) for channel in matched)

    def _resolve(self, filter_: str) -> tuple[tuple[str, ...], list[Channel]]:
        """Return the NATS subjects of a filter and the channels that it matches over MQTT. Raises Refused."""
        if filter_.startswith("$share/"):
            raise ProtocolViolation(SHARED_NOT_SUPPORTED, "shared subscriptions are not offered", cause="not-offered")
        try:
            subjects = filters_of(filter_)
        except AddressError as error:
            raise ProtocolViolation(codec.BAD_FILTER, str(error), cause="invalid-address") from None
        if "+" not in filter_ and "#" not in filter_:
            return subjects, [channel_for(self._plane.snapshot, self._call, filter_, Verb.SUBSCRIBE)[0]]
        matched = self._plane.snapshot.channels_meeting(subjects)
        if not any(may_read_some(self._call.caller, channel.address, subjects) for channel in matched):
            # Checked before whether a channel exists, so that a refusal does not reveal it.
            require(self._call.caller, Right(Verb.SUBSCRIBE, filter_))
        if not matched:
            raise Refused(Reason.NOT_FOUND, f"The filter {filter_} matches no channel.", cause="unknown-channel")
        over_mqtt = [channel for channel in matched if _is_open_to_mqtt(channel)]
        if not over_mqtt:
            require_protocol(matched[0], self._call)
        return subjects, over_mqtt

    async def _follow_live(self, topic_filter: TopicFilter, subjects: tuple[str, ...]) -> None:
        deliver, deliver_lot = self._delivery(topic_filter), self._lot_delivery(topic_filter)
        for subject in subjects:
            listener = await self._plane.hub.subscribe_confirmed(subject, deliver, deliver_lot)
            topic_filter.listeners.append(listener)

    async def _follow_from(
        self, topic_filter: TopicFilter, subjects: tuple[str, ...], channels: list[Channel], position: str
    ) -> None:
        """Start at a position of the one channel that the filter matches. Raises Refused."""
        if len(channels) != 1:
            raise Refused(
                Reason.INVALID_REQUEST,
                f"{topic_filter.options.filter} matches {len(channels)} channels; a position belongs to one channel.",
                cause="invalid-position",
            )
        channel = channels[0]
        start = await resolve(self._plane.log, channel, parse_position(position))
        deliver = self._delivery(topic_filter)

        def on_gap(gap: Gap) -> None:
            topic_filter.gap = gap

        for subject in filter(None, (meet(subject, channel.subject) for subject in subjects)):
            topic_filter.listeners.append(
                await self._plane.hub.subscribe_from(
                    channel,
                    subject,
                    start,
                    deliver,
                    deliver_lot=self._lot_delivery(topic_filter),
                    on_gap=on_gap,
                    has_room=self._has_room,
                    reader=self._call.caller.consumer,
                )
            )
        if "+" in topic_filter.options.filter or "#" in topic_filter.options.filter:
            await self._follow_others(topic_filter, subjects)

    async def _follow_others(self, topic_filter: TopicFilter, subjects: tuple[str, ...]) -> None:
        """Deliver the live events of channels that are created later and match the filter too."""
        bound = tuple(topic_filter.listeners)
        deliver = self._delivery(topic_filter)

        def deliver_others(event: Event) -> None:
            channels = (self._plane.snapshot.channel_of(listener.stream) for listener in bound)
            if all(channel is None or channel.address != event.channel for channel in channels):
                deliver(event)

        for subject in subjects:
            topic_filter.listeners.append(await self._plane.hub.subscribe_confirmed(subject, deliver_others))

    # How an event is sent

    def _delivery(self, topic_filter: TopicFilter) -> Callable[[Event], None]:
        def deliver(event: Event) -> None:
            if topic_filter.replaying is not None:
                topic_filter.seen[event.address] = event.id
            is_retained = topic_filter.options.retain_as_published and RETAIN in event.extensions
            self._deliver(topic_filter, event, is_retained=is_retained)

        return deliver

    def _lot_delivery(self, topic_filter: TopicFilter) -> Callable[[Lot], bool]:
        form, peer = PLAIN[self._session.version], self._call.peer

        def deliver_lot(lot: Lot) -> bool:
            options = topic_filter.options
            is_plain = not (options.qos or options.no_local or options.retain_as_published)
            return (
                is_plain
                and topic_filter.gap is None
                and topic_filter.replaying is None
                and all(map(self._may_read, lot.by_address.values()))
                and len(lot.joined(form)) + codec.PUBLISH_HEAD_MAX_BYTES <= self._answers.packet_max_bytes
                and self._outbox.put_lot(peer, lot, form)
            )

        return deliver_lot

    def _start_replay(self, topic_filter: TopicFilter, subjects: tuple[str, ...]) -> None:
        """Send the retained events as fast as the client reads, interleaved with live ones (3.3.1.3)."""
        stop_soon(topic_filter.replaying)
        topic_filter.replaying = asyncio.create_task(self._replay(topic_filter, subjects), name="mqtt retained")

    async def _replay(self, topic_filter: TopicFilter, subjects: tuple[str, ...]) -> None:
        try:
            for subject in subjects:
                async for event in self._plane.retained.matching(subject):
                    while not self._has_room():
                        await asyncio.sleep(NAP_S)
                    is_newest = event.id > topic_filter.seen.get(event.address, 0)
                    if is_newest and not event.has_expired(time.time()):
                        self._deliver(topic_filter, event, is_retained=True)
        except Refused as refused:
            self._close(refused)
        topic_filter.replaying = None
        topic_filter.seen.clear()

    def _deliver(self, topic_filter: TopicFilter, event: Event, *, is_retained: bool) -> None:
        if not self._may_read(event):
            return
        options, version = topic_filter.options, self._session.version
        if options.no_local and self._is_own(event):
            return
        gap, topic_filter.gap = topic_filter.gap, None
        left_s = left_s_of(event, version)
        parts = rendered(event, version, left_s) if gap is None else parts_of(event, version, left_s, gap)
        if sum(map(len, parts)) + codec.PUBLISH_HEAD_MAX_BYTES > self._answers.packet_max_bytes:
            self._count_too_large()
        elif options.qos == 0:
            self._outbox.put_event(codec.publish_of(parts, 0, retain=is_retained), len(parts[2]), event.expires_at)
        elif self._session.can_send():
            self._send(parts, is_retained)
        else:
            self._hold(parts, is_retained, partial(renewed, event, version, gap) if event.expires_at else None)

    def _send(self, parts: Parts, is_retained: bool) -> None:
        packet = codec.publish_of(parts, 1, self._session.next_id(), retain=is_retained)
        self._outbox.put_event(packet, len(parts[2]))

    def _hold(self, parts: Parts, is_retained: bool, renew: Renew | None) -> None:
        session, config = self._session, self._plane.config
        session.hold(parts, retain=is_retained, renew=renew)
        if len(session.held) > config.send_buffer_max_events or session.held_bytes > config.send_buffer_max_bytes:
            self._close(Refused(Reason.TOO_SLOW))

    def _has_room(self) -> bool:
        return self._outbox.has_room() and not self._session.held

    def _may_read(self, event: Event) -> bool:
        """Return whether the caller may read an event, cached by address for one revision of the snapshot."""
        revision = self._plane.snapshot.revision
        if revision != self._revision or len(self._verdicts) > VERDICTS_KEPT:
            self._verdicts.clear()
            self._revision = revision
        verdict = self._verdicts.get(event.address)
        if verdict is None:
            match = self._plane.snapshot.channel(event.address)
            # Other protocols publish to addresses that no MQTT packet may name (4.7.1).
            can_be_named = "+" not in event.address and "#" not in event.address
            is_open = match is not None and _is_open_to_mqtt(match[0]) and can_be_named
            verdict = is_open and allowed(self._call.caller, Right(Verb.SUBSCRIBE, event.address))
            self._verdicts[event.address] = verdict
        return verdict

    def _is_own(self, event: Event) -> bool:
        connection = self._call.connection
        return connection is not None and event.extensions.get(ORIGIN) == connection.id

    def _count_too_large(self) -> None:
        """Count an event that is dropped because it exceeds the client's Maximum Packet Size (3.1.2.11.4)."""
        if self._call.connection is not None:
            self._call.connection.refused(Refused(Reason.TOO_LARGE, cause="event-over-maximum-packet-size"))


def _is_open_to_mqtt(channel: Channel) -> bool:
    return not channel.protocols or "mqtt" in channel.protocols
