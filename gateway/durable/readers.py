"""The position of each durable subscription: one durable JetStream consumer each, on the stream of its channel.

JetStream keeps which events are unacknowledged, across restarts of every gateway process. Any process may fetch and
acknowledge: what it needs to know is in the event's sequence in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy
from nats.js.errors import APIError, NotFoundError

from gateway.log.event import Event, from_headers
from gateway.log.event_log import DEADLINE_S, EventLog
from gateway.log.streams import ensure_stream, redriven_subject
from gateway.log.unavailable import log_unavailable
from gateway.refusals import Refused
from gateway.snapshot.picture import Channel, Snapshot
from gateway.snapshot.subscriptions import Subscription, window
from gateway.wire.subjects import reading_filter, subject_of

T = TypeVar("T")

PROMPT_S = 0.1
"""How long JetStream may take to send the events that are pending.

JetStream holds a ``no_wait`` request for this long where fewer events fit into the ack window than were requested.
"""
BATCH_MAX = 500
SETTLES_S = 5.0
"""How long a channel that owned the addresses of a subscription is looked at after it has no more: a process that does
not know yet may still store there."""
OVERDUE_S = 0.1
"""How late an answer is before the log is asked whether it replies at all."""
RECONNECT_CHECK_S = 1.0
"""How often a waiting fetch checks whether the connection was lost."""
REDELIVER_MAX = 5000
"""Ids that are requested again when another process takes over the delivery."""
SUBJECT_HEADER, DEAD_ID_HEADER = "apimgmt-subject", "apimgmt-dead-id"
"""Headers of an event redriven from the dead letters: the subject of its address, and the id it had."""
_ADDRESS_HEADER = "apimgmt-address"
"""The header of earlier versions: the address itself, which may hold what no header may."""
_NO_RESPONDERS = "503"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of an event to a subscriber, which has not acknowledged it yet."""

    event: Event
    attempt: int
    """How often the event was delivered, this delivery included."""
    ack_subject: str
    consumer_sequence: int
    redriven_from: str = ""
    """The id that the event had when it became a dead letter; empty where it was not redriven."""
    key: str = ""
    """Order is kept among events of one key: the publisher's ``partitionkey``, or else the address."""

    @property
    def id(self) -> str:
        """Return an id that no other delivery has, not even one of the same event."""
        return f"{self.event.id}.{self.consumer_sequence}.{self.attempt}"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a subscription has come, as JetStream reports it."""

    acked_id: int
    """All events up to this id are acknowledged."""
    delivered_id: int
    """The highest id that was delivered."""
    pending: int
    """Events that were never delivered."""
    in_flight: int
    """Events that were delivered and are not acknowledged."""
    redelivered: int
    """Events in flight that were delivered more than once."""
    consumer_sequence: int

    @property
    def lag(self) -> int:
        """Return the number of events that are not acknowledged."""
        return self.pending + self.in_flight


class Readers:
    """Fetches and acknowledges events. Every call ends in time and raises Refused where the log is unavailable."""

    def __init__(self, client: Client, js: JetStreamContext, log: EventLog | None = None) -> None:
        self._client = client
        self._js = js
        self._log = log
        self._empty_since: dict[tuple[str, str], float] = {}
        """Since when a subscription has had nothing left in a stream of an earlier channel."""
        self._ensured: dict[str, tuple[str, int, float]] = {}

    async def channel_of(self, snapshot: Snapshot, subscription: Subscription) -> Channel | None:
        """Return the channel to deliver from: the one that owns the addresses, or an earlier one until it has no more.

        The events of a channel that owned them before stay in its log. None where no channel exists.
        """
        channels = snapshot.channels_covering(reading_filter(subscription.channel))
        if not channels:
            return None
        self._empty_since.pop((subscription.id, channels[0].stream), None)
        for channel in channels[1:]:
            if await self._has_more(subscription, channel):
                return channel
        return channels[0]

    async def _has_more(self, subscription: Subscription, channel: Channel) -> bool:
        place = (subscription.id, channel.stream)
        now = time.monotonic()
        if now - self._empty_since.get(place, now) > SETTLES_S:
            return False
        try:
            info = await _in_time(self._js.consumer_info(channel.stream, subscription.id))
        except NotFoundError:
            self._empty_since[place] = float("-inf")
            return False
        if read_progress(info).lag:
            self._empty_since.pop(place, None)
            return True
        self._empty_since.setdefault(place, now)
        return False

    async def ensure(self, subscription: Subscription, channel: Channel, ack_wait_s: float) -> None:
        """Create the subscription's JetStream consumer, or update it where its settings have changed."""
        settings = (channel.stream, window(subscription), ack_wait_s)
        if self._ensured.get(subscription.id) == settings:
            return
        await _in_time(self._add_consumer(subscription, channel, ack_wait_s))
        self._ensured[subscription.id] = settings

    async def fetch(self, subscription: Subscription, channel: Channel, most: int, wait_s: float) -> list[Delivery]:
        """Fetch up to ``most`` events, each once, oldest first. Where none is pending, wait for the first to arrive.

        A wait is for one event only: others that were sent before it ended would use up their ack wait here.
        Raises LookupError where the JetStream consumer is missing: :meth:`ensure` creates it.
        """
        batch = min(most, window(subscription), BATCH_MAX)
        prompt = {"batch": batch, "no_wait": True, "expires": int(PROMPT_S * 1e9)}
        deliveries = await self._request_next(subscription, channel, prompt, PROMPT_S)
        if not deliveries and wait_s > 0:
            first = {"batch": 1, "expires": int(wait_s * 1e9)}
            deliveries = await self._request_next(subscription, channel, first, wait_s)
        # An event that another caller rejects meanwhile is delivered to this inbox once more.
        latest = {delivery.event.id: delivery for delivery in deliveries}
        return [latest[event_id] for event_id in sorted(latest)]

    async def _request_next(
        self, subscription: Subscription, channel: Channel, request: dict[str, int], expires_s: float
    ) -> list[Delivery]:
        """Send one request for events, and return the deliveries in the order of their arrival."""
        inbox = self._client.new_inbox()
        answers = await self._client.subscribe(inbox)
        deliveries: list[Delivery] = []
        try:
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{channel.stream}.{subscription.id}"
            await self._client.publish(subject, orjson.dumps(request), reply=inbox)
            while len(deliveries) < request["batch"]:
                message = await self._next(answers, expires_s)
                status = (message.headers or {}).get("Status")
                if status == _NO_RESPONDERS:
                    self._ensured.pop(subscription.id, None)
                    raise LookupError(subscription.id)
                if status is not None:
                    break
                deliveries.append(read_delivery(channel, message))
        except (NatsError, TimeoutError, Refused) as error:
            if not deliveries:
                raise log_unavailable() from error
        finally:
            with contextlib.suppress(NatsError):
                await answers.unsubscribe()
        return deliveries

    async def _next(self, answers: NatsSubscription, expires_s: float) -> Msg:
        """Return the next answer to a request that expires after a time.

        Raises TimeoutError, at once after a reconnect: the request was lost with it; and Refused where the answer is
        overdue and the log replies to nothing else either.
        """
        reconnects = self._client.stats["reconnects"]
        expires_at = time.monotonic() + expires_s
        checks = [expires_at + OVERDUE_S] if self._log is not None else []
        while True:
            until = checks[0] if checks else expires_at + DEADLINE_S
            left_s = until - time.monotonic()
            try:
                return await answers.next_msg(timeout=max(min(left_s, RECONNECT_CHECK_S), 0.001))
            except (TimeoutError, NatsTimeoutError):
                if self._client.stats["reconnects"] != reconnects or (left_s <= RECONNECT_CHECK_S and not checks):
                    raise
            if checks and left_s <= RECONNECT_CHECK_S and self._log is not None:
                checks.clear()
                await self._log.require_reply()

    async def _attend(self, answer: Awaitable[T]) -> T:
        """Await an answer of the log, once it is overdue only if the log replies to anything. Raises Refused."""
        answering = asyncio.ensure_future(_in_time(answer))
        try:
            await asyncio.wait([answering], timeout=OVERDUE_S)
            if not answering.done() and self._log is not None:
                await self._log.require_reply()
            return await answering
        finally:
            answering.cancel()

    async def redeliver(self, subscription: Subscription, channel: Channel, excluded: Container[int]) -> None:
        """Redeliver events in flight at once and in order: the process that had fetched them is gone.

        Covers the last :data:`REDELIVER_MAX` ids. Others, and ``excluded``, are redelivered after their ack wait.
        """
        progress = await self.progress(subscription, channel)
        if progress.in_flight:
            first = max(progress.acked_id, progress.delivered_id - REDELIVER_MAX) + 1
            ids = [id_ for id_ in range(first, progress.delivered_id + 1) if id_ not in excluded]
            await self._answer_each(subscription, channel, progress, ids, b"-NAK")

    async def ack(self, delivery: Delivery) -> None:
        """Acknowledge an event; returns once the log has confirmed it."""
        await self._answer(delivery.ack_subject, b"+ACK")

    async def nak(self, delivery: Delivery, delay_s: float) -> None:
        """Have an event redelivered after a delay."""
        await self._answer(delivery.ack_subject, _nak(delay_s))

    async def extend(self, deliveries: Iterable[Delivery]) -> None:
        """Restart the ack wait of these events; not confirmed by the log."""
        for delivery in deliveries:
            await self._client.publish(delivery.ack_subject, b"+WPI")

    async def ack_ids(self, subscription: Subscription, channel: Channel, ids: Iterable[int]) -> list[int]:
        """Acknowledge events by id. Returns the ids that cannot be in flight: acknowledged, or never delivered."""
        return await self._answer_ids(subscription, channel, ids, b"+ACK")

    async def nak_ids(
        self, subscription: Subscription, channel: Channel, ids: Iterable[int], delay_s: float
    ) -> list[int]:
        """Have events redelivered after a delay, no sooner. Returns the ids that cannot be in flight."""
        return await self._answer_ids(subscription, channel, ids, _nak(delay_s))

    async def progress(self, subscription: Subscription, channel: Channel) -> Progress:
        """Return how far the subscription has come. Raises LookupError where the JetStream consumer is missing."""
        try:
            return read_progress(await self._attend(self._js.consumer_info(channel.stream, subscription.id)))
        except NotFoundError:
            self._ensured.pop(subscription.id, None)
            raise LookupError(subscription.id) from None

    async def remove(self, stream: str, subscription_id: str) -> None:
        """Delete the JetStream consumer of a subscription; does nothing where it is missing."""
        self._ensured.pop(subscription_id, None)
        self._empty_since.pop((subscription_id, stream), None)
        with contextlib.suppress(NotFoundError):
            await _in_time(self._js.delete_consumer(stream, subscription_id))

    async def _add_consumer(self, subscription: Subscription, channel: Channel, ack_wait_s: float) -> None:
        config = consumer_config(subscription, channel, ack_wait_s)
        try:
            config = await self._reachable(subscription, channel, config)
            await self._js.add_consumer(channel.stream, config)
        except NotFoundError:
            await ensure_stream(self._js, channel.document())
            await self._js.add_consumer(channel.stream, config)

    async def _reachable(self, subscription: Subscription, channel: Channel, config: ConsumerConfig) -> ConsumerConfig:
        """Return the configuration, with a time as its start if the position is of another channel's log.

        A position that this stream has not reached is of the channel that owned the addresses at that time.
        """
        info = await self._js.stream_info(channel.stream)
        last = max(info.state.last_seq, (info.config.first_seq or 1) - 1)
        if config.opt_start_seq is None or config.opt_start_seq <= last + 1:
            return config
        try:
            present = (await self._js.consumer_info(channel.stream, str(config.durable_name))).config
            policy, id_, time_ = present.deliver_policy, present.opt_start_seq, present.opt_start_time
        except NotFoundError:
            policy, id_, time_ = DeliverPolicy.BY_START_TIME, None, datetime.fromtimestamp(subscription.created_at, UTC)
        return replace(config, deliver_policy=policy, opt_start_seq=id_, opt_start_time=time_)

    async def _answer_ids(
        self, subscription: Subscription, channel: Channel, ids: Iterable[int], payload: bytes
    ) -> list[int]:
        progress = await self.progress(subscription, channel)
        requested = sorted(set(ids))
        in_flight = [id_ for id_ in requested if progress.acked_id < id_ <= progress.delivered_id]
        await self._answer_each(subscription, channel, progress, in_flight, payload)
        return [id_ for id_ in requested if id_ not in in_flight]

    async def _answer_each(
        self, subscription: Subscription, channel: Channel, progress: Progress, ids: Sequence[int], payload: bytes
    ) -> None:
        """Send an acknowledgement for each id; JetStream ignores the ids that are not in flight."""
        prefix = f"$JS.ACK.{channel.stream}.{subscription.id}.1"
        subjects = [f"{prefix}.{id_}.{progress.consumer_sequence}.0.0" for id_ in ids]
        for subject in subjects[:-1]:
            await self._client.publish(subject, payload)
        if subjects:
            # JetStream handles them in order: its reply to the last one confirms them all.
            await self._answer(subjects[-1], payload)

    async def _answer(self, subject: str, payload: bytes) -> None:
        await _in_time(self._client.request(subject, payload, timeout=DEADLINE_S))


def consumer_config(subscription: Subscription, channel: Channel, ack_wait_s: float) -> ConsumerConfig:
    """Return the JetStream consumer of a subscription; its start position takes effect only at creation."""
    start_id = subscription.position + 1
    subjects = channel.stored(reading_filter(subscription.channel))
    return ConsumerConfig(
        durable_name=subscription.id,
        description=subscription.channel[:200],
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE if start_id > 1 else DeliverPolicy.ALL,
        opt_start_seq=start_id if start_id > 1 else None,
        filter_subjects=[subjects, redriven_subject(channel.stream, subscription.id)],
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ack_wait_s,
        max_ack_pending=window(subscription),
        max_deliver=-1,
    )


def read_delivery(channel: Channel, message: Msg) -> Delivery:
    """Read a message of the subscription's JetStream consumer."""
    metadata = message.metadata
    headers = message.headers or {}
    address, subject = headers.get(_ADDRESS_HEADER), headers.get(SUBJECT_HEADER, message.subject)
    stored_at = datetime.fromtimestamp(metadata.timestamp.timestamp(), UTC).isoformat().replace("+00:00", "Z")
    headers = {**headers, "Nats-Sequence": str(metadata.sequence.stream), "Nats-Time-Stamp": stored_at}
    event = from_headers(channel.address, subject_of(address) if address else subject, headers, message.data)
    return Delivery(
        event=event,
        attempt=metadata.num_delivered,
        ack_subject=message.reply,
        consumer_sequence=metadata.sequence.consumer,
        redriven_from=headers.get(DEAD_ID_HEADER, ""),
        key=event.extensions.get("partitionkey") or event.address,
    )


def read_progress(info: ConsumerInfo) -> Progress:
    """Read JetStream's description of a consumer."""
    assert info.ack_floor is not None, "part of every description"
    assert info.delivered is not None, "part of every description"
    return Progress(
        acked_id=info.ack_floor.stream_seq,
        delivered_id=info.delivered.stream_seq,
        pending=info.num_pending or 0,
        in_flight=info.num_ack_pending or 0,
        redelivered=info.num_redelivered or 0,
        consumer_sequence=info.delivered.consumer_seq,
    )


def _nak(delay_s: float) -> bytes:
    return b'-NAK {"delay": %d}' % int(delay_s * 1e9) if delay_s > 0 else b"-NAK"


async def _in_time(answer: Awaitable[T]) -> T:
    """Await an answer of the log. Raises Refused where none comes in time, and NotFoundError."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await answer
    except NotFoundError:
        raise
    except (TimeoutError, OSError, APIError, NatsError) as error:
        raise log_unavailable() from error
