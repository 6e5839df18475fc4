"""Serves one MQTT connection's subscriptions: which events its filters bring, and how they are sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import orjson

from gateway.call import Call
from gateway.channels.access import channel_for, require_protocol
from gateway.channels.outbox import Outbox
from gateway.channels.reading import position_of, resolve
from gateway.concurrency.stopping import stop_soon
from gateway.handlers.mqtt.publishing import ORIGIN, RETAIN
from gateway.identity.rights import allowed, require
from gateway.log.catch_up import Gap
from gateway.log.event import EVENT_TYPE, Event
from gateway.log.hub import Listening
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Channel
from gateway.snapshot.principal import Principal
from gateway.snapshot.right import Right, Verb
from gateway.wire.mqtt import codec
from gateway.wire.mqtt.answers import Answers, Broken
from gateway.wire.mqtt.packets import V5, Publish, Subscribe, Unsubscribe, Wanted
from gateway.wire.mqtt.session import QOS_GRANTED_MAX, SUBSCRIPTIONS_MAX, Parts, Session
from gateway.wire.subjects import AddressError, filters_of, matches, meet

if TYPE_CHECKING:
    from gateway.plane import Plane

NO_SUBSCRIPTION_EXISTED = 0x11
SHARED_NOT_SUPPORTED, IDENTIFIERS_NOT_SUPPORTED = 0x9E, 0xA1
GIVE_ALWAYS, GIVE_NEVER = 0, 2
"""Retain handling (3.8.3.1)."""
NAP_S = 0.01
VERDICTS_KEPT = 10_000
RENDERED_KEPT = 16
"""Events reach all their readers at once: so few are ever wanted again."""
POSITION = "from"
"""The user property of SUBSCRIBE that says from which position events are wanted."""


@dataclass(slots=True, eq=False)
class Subscription:
    """One topic filter, as it was granted."""

    wanted: Wanted
    listenings: list[Listening] = field(default_factory=list)
    gap: Gap | None = None
    """Ids that were lost; said with the next event."""
    giving: asyncio.Task[None] | None = None
    """Gives the events that were retained when it began."""
    seen: dict[str, int] = field(default_factory=dict)
    """The newest id of each address that came meanwhile: an older one is not given after it."""

    def stop(self) -> None:
        """Hear nothing more."""
        stop_soon(self.giving)
        for listening in self.listenings:
            listening.stop()


class Subscribing:
    """One connection's subscriptions."""

    def __init__(
        self, plane: Plane, call: Call, session: Session, outbox: Outbox[bytes], close: Callable[[Refused], None]
    ) -> None:
        self._plane = plane
        self._call = call
        self._session = session
        self._outbox = outbox
        self._close = close
        self._answers = Answers(session.connect)
        self._subscriptions: dict[str, Subscription] = {}
        self._verdicts: dict[str, bool] = {}
        self._revision = -1

    @property
    def excludes_own(self) -> bool:
        """Some filter is not to bring what this connection published."""
        return any(subscription.wanted.no_local for subscription in self._subscriptions.values())

    async def subscribe(self, packet: Subscribe) -> None:
        """Take a SUBSCRIBE and answer it."""
        if "subscription_identifier" in packet.properties:
            raise Broken(IDENTIFIERS_NOT_SUPPORTED, "subscription identifiers are not offered", cause="not-offered")
        position = dict(packet.properties.get("user", ())).get(POSITION)
        outcomes: list[int | Refused] = []
        for wanted in packet.wanted:
            try:
                outcomes.append(await self._subscribe(wanted, position))
            except Refused as refused:
                if self._call.connection is not None:
                    self._call.connection.refused(refused)
                outcomes.append(refused)
        self._outbox.put(self._answers.suback(packet.packet_id, outcomes))

    def unsubscribe(self, packet: Unsubscribe) -> None:
        """Take an UNSUBSCRIBE and answer it."""
        codes = []
        for filter_ in packet.filters:
            found = self._subscriptions.pop(filter_, None)
            codes.append(NO_SUBSCRIPTION_EXISTED if found is None else 0)
            if found is not None:
                found.stop()
        self._outbox.put(codec.unsuback(self._session.version, packet.packet_id, codes))

    def acknowledged(self, packet_id: int) -> None:
        """The client has an event of QoS 1: send what was held back for it."""
        self._session.acknowledged(packet_id)
        while (held := self._session.next_held()) is not None:
            self._send(*held)

    def stop(self) -> None:
        """Hear nothing more."""
        for subscription in self._subscriptions.values():
            subscription.stop()

    # What a filter brings

    async def _subscribe(self, wanted: Wanted, position: str | None) -> int:
        """Subscribe to one filter; gives the QoS granted. Raises Refused."""
        granted = replace(wanted, qos=min(wanted.qos, QOS_GRANTED_MAX))
        principal = self._call.principal
        subjects, channels = self._find(wanted.filter)
        present = self._subscriptions.get(wanted.filter)
        if present is not None and position is None:
            # What comes meanwhile is not missed: it goes on as it was, with other options (3.8.4).
            present.wanted = granted
            if wanted.retain_handling == GIVE_ALWAYS:
                self._give_retained(present, subjects)
            return granted.qos
        if present is None and len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            raise Refused(
                Reason.QUOTA_EXCEEDED,
                f"A connection holds at most {SUBSCRIPTIONS_MAX} subscriptions.",
                cause="too-many-subscriptions",
            )
        subscription = await self._begun(granted, subjects, channels, position)
        if present is not None:
            present.stop()
        if position is None and wanted.retain_handling != GIVE_NEVER:
            self._give_retained(subscription, subjects)
        self._subscriptions[wanted.filter] = subscription
        if principal is not self._call.principal and not self.keeps_rights():
            self._close(Refused(Reason.FORBIDDEN))  # the right went while it was being granted
        return granted.qos

    async def _begun(
        self, granted: Wanted, subjects: tuple[str, ...], channels: list[Channel], position: str | None
    ) -> Subscription:
        subscription = Subscription(granted)
        try:
            if position is None:
                await self._hear(subscription, subjects)
            else:
                await self._follow(subscription, subjects, channels, position)
        except BaseException:
            subscription.stop()
            raise
        return subscription

    def keeps_rights(self) -> bool:
        """Say whether each filter would still be granted: whether something that it brings may be read."""
        return all(self._may_read_any(filter_) for filter_ in self._subscriptions)

    def _may_read_any(self, filter_: str) -> bool:
        if "+" not in filter_ and "#" not in filter_:
            return allowed(self._call.caller, Right(Verb.SUBSCRIBE, filter_))
        subjects = filters_of(filter_)
        met = self._met_by(subjects)
        return not met or any(_may_read_some(self._call.caller, channel.address, subjects) for channel in met)

    def _met_by(self, subjects: tuple[str, ...]) -> list[Channel]:
        return [
            channel
            for channel in self._plane.snapshot.channels()
            if any(meet(subject, channel.subject) for subject in subjects)
        ]

    def _find(self, filter_: str) -> tuple[tuple[str, ...], list[Channel]]:
        """Give a filter's subjects, and the channels that it meets and that may be read. Raises Refused."""
        if filter_.startswith("$share/"):
            raise Broken(SHARED_NOT_SUPPORTED, "shared subscriptions are not offered", cause="not-offered")
        try:
            subjects = filters_of(filter_)
        except AddressError as error:
            raise Broken(codec.BAD_FILTER, str(error), cause="invalid-address") from None
        if "+" not in filter_ and "#" not in filter_:
            return subjects, [channel_for(self._plane.snapshot, self._call, filter_, Verb.SUBSCRIBE)[0]]
        met = self._met_by(subjects)
        if not any(_may_read_some(self._call.caller, channel.address, subjects) for channel in met):
            # A stranger does not learn which channels there are.
            require(self._call.caller, Right(Verb.SUBSCRIBE, filter_))
        if not met:
            raise Refused(Reason.NOT_FOUND, f"There is no channel that {filter_} meets.", cause="unknown-channel")
        is_open = [channel for channel in met if not channel.protocols or "mqtt" in channel.protocols]
        if not is_open:
            require_protocol(met[0], self._call)
        return subjects, is_open

    async def _hear(self, subscription: Subscription, subjects: tuple[str, ...]) -> None:
        deliver = self._delivery(subscription)
        for subject in subjects:
            subscription.listenings.append(await self._plane.hub.subscribe_confirmed(subject, deliver))

    async def _follow(
        self, subscription: Subscription, subjects: tuple[str, ...], channels: list[Channel], position: str
    ) -> None:
        """Begin at a position of the one channel that the filter meets. Raises Refused."""
        if len(channels) != 1:
            raise Refused(
                Reason.INVALID_REQUEST,
                f"{subscription.wanted.filter} meets several channels; a position is of one.",
                cause="invalid-position",
            )
        channel = channels[0]
        start = await resolve(self._plane.log, channel, position_of(position))
        deliver = self._delivery(subscription)

        def on_gap(gap: Gap) -> None:
            subscription.gap = gap

        for subject in filter(None, (meet(subject, channel.subject) for subject in subjects)):
            subscription.listenings.append(
                await self._plane.hub.subscribe_from(
                    channel,
                    subject,
                    start,
                    deliver,
                    on_gap=on_gap,
                    has_room=self._has_room,
                    reader=self._call.caller.consumer,
                )
            )

    # How an event is sent

    def _delivery(self, subscription: Subscription) -> Callable[[Event], None]:
        def deliver(event: Event) -> None:
            if subscription.giving is not None:
                subscription.seen[event.address] = event.id
            is_retained = subscription.wanted.retain_as_published and RETAIN in event.extensions
            self._deliver(subscription, event, is_retained=is_retained)

        return deliver

    def _give_retained(self, subscription: Subscription, subjects: tuple[str, ...]) -> None:
        """Give what was retained, as fast as the client reads, while what is new comes too (3.3.1.3)."""
        stop_soon(subscription.giving)
        subscription.giving = asyncio.create_task(self._give(subscription, subjects), name="mqtt retained")

    async def _give(self, subscription: Subscription, subjects: tuple[str, ...]) -> None:
        try:
            for subject in subjects:
                async for event in self._plane.retained.matching(subject):
                    while not self._has_room():
                        await asyncio.sleep(NAP_S)
                    if event.id > subscription.seen.get(event.address, 0):
                        self._deliver(subscription, event, is_retained=True)
        except Refused as refused:
            self._close(refused)
        subscription.giving = None
        subscription.seen.clear()

    def _deliver(self, subscription: Subscription, event: Event, *, is_retained: bool) -> None:
        if not self._may_read(event):
            return
        wanted, version = subscription.wanted, self._session.version
        if wanted.no_local and self._is_own(event):
            return
        if subscription.gap is not None:
            parts = _parts(event, version, subscription.gap)
            subscription.gap = None
        else:
            parts = _rendered(event, version)
        if sum(map(len, parts)) + codec.PUBLISH_HEAD_MAX_BYTES > self._answers.packet_max_bytes:
            self._too_large_for_the_client()
        elif wanted.qos == 0:
            self._outbox.put_event(codec.publish_of(parts, 0, retain=is_retained), len(parts[2]))
        elif self._session.can_send():
            self._send(parts, is_retained)
        else:
            self._hold(parts, is_retained)

    def _send(self, parts: Parts, is_retained: bool) -> None:
        packet = codec.publish_of(parts, 1, self._session.next_id(), retain=is_retained)
        self._outbox.put_event(packet, len(parts[2]))

    def _hold(self, parts: Parts, is_retained: bool) -> None:
        session, config = self._session, self._plane.config
        session.hold(parts, retain=is_retained)
        if len(session.held) > config.send_buffer_max_events or session.held_bytes > config.send_buffer_max_bytes:
            self._close(Refused(Reason.TOO_SLOW))

    def _has_room(self) -> bool:
        return self._outbox.has_room() and not self._session.held

    def _may_read(self, event: Event) -> bool:
        """Say whether the event may be read, as of the newest snapshot: once an address and revision."""
        revision = self._plane.snapshot.revision
        if revision != self._revision or len(self._verdicts) > VERDICTS_KEPT:
            self._verdicts.clear()
            self._revision = revision
        verdict = self._verdicts.get(event.address)
        if verdict is None:
            found = self._plane.snapshot.channel(event.address)
            is_open = found is not None and (not found[0].protocols or "mqtt" in found[0].protocols)
            verdict = is_open and allowed(self._call.caller, Right(Verb.SUBSCRIBE, event.address))
            self._verdicts[event.address] = verdict
        return verdict

    def _is_own(self, event: Event) -> bool:
        connection = self._call.connection
        return connection is not None and event.extensions.get(ORIGIN) == connection.id

    def _too_large_for_the_client(self) -> None:
        """Leave an event out, as the client asked (3.1.2.11.4), and count it."""
        if self._call.connection is not None:
            self._call.connection.refused(Refused(Reason.TOO_LARGE, cause="event-over-maximum-packet-size"))


def _may_read_some(who: Principal, template: str, subjects: tuple[str, ...]) -> bool:
    """Say whether something that the subjects match may be read: by a scope for the channel, or for one address."""
    if allowed(who, Right(Verb.SUBSCRIBE, template)):
        return True
    is_bounded = who.ceiling is not None and not _names_some(who.ceiling, template, subjects)
    return not is_bounded and _names_some(who.scopes, template, subjects)


def _names_some(scopes: tuple[str, ...], template: str, subjects: tuple[str, ...]) -> bool:
    """Say whether a scope may cover an address of the channel that the subjects match; a ``*`` is not looked into."""
    prefix = f"{Verb.SUBSCRIBE}:"
    begins = template.partition("{")[0]
    for scope in scopes:
        named = scope.removeprefix(prefix)
        if scope == "*" or (scope.startswith(prefix) and "*" in named):
            scope_begins = "" if scope == "*" else named.partition("*")[0].partition("{")[0]
            if begins.startswith(scope_begins) or scope_begins.startswith(begins):
                return True
            continue
        try:
            named_subjects = filters_of(named) if scope.startswith(prefix) else ()
        except AddressError:
            continue
        if any(matches(subject, named_subject) for subject in subjects for named_subject in named_subjects):
            return True
    return False


_SAID_OTHERWISE = frozenset({ORIGIN, RETAIN, "tracestate"})
"""Extensions that are no user property with the prefix of CloudEvents."""


def _parts(event: Event, version: int, gap: Gap | None = None) -> Parts:
    if version != V5:
        return codec.shared_parts(version, Publish(event.address, event.data))
    user = [("id", str(event.id)), ("time", event.time), ("ce-source", event.source)]
    optional = {
        "ce-type": event.type if event.type != EVENT_TYPE else None,
        "ce-id": event.published_id,
        "ce-subject": event.subject,
        "traceparent": event.traceparent,
        "tracestate": event.extensions.get("tracestate"),
    }
    user += [(name, value) for name, value in optional.items() if value]
    user += [(f"ce-{name}", value) for name, value in event.extensions.items() if name not in _SAID_OTHERWISE]
    if gap is not None:
        said = {"from": str(gap.from_id), "to": str(gap.to_id), "cause": gap.cause}
        user.append(("gap", orjson.dumps(said).decode()))
    packet = Publish(event.address, event.data, properties={"content_type": event.content_type, "user": user})
    return codec.shared_parts(version, packet)


@lru_cache(maxsize=RENDERED_KEPT)
def _rendered(event: Event, version: int) -> Parts:
    """Write an event as MQTT, once for all its readers."""
    return _parts(event, version)
