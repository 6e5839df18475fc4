"""How far each subscription has come: one durable consumer of JetStream each, on its channel's stream.

The log keeps which events are out and which are settled, through restarts of every process of ours. Any process may
give events out and settle them: what it needs to know is in the event's place in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Container, Iterable, Sequence
from dataclasses import dataclass
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

from gateway.durable.standing import subject_filter
from gateway.log.event import Event, from_headers
from gateway.log.event_log import DEADLINE_S
from gateway.log.streams import ensure_stream, redriven_subject
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Channel
from gateway.snapshot.subscriptions import Subscription
from gateway.wire.subjects import LIVE_PREFIX, subject_of

T = TypeVar("T")

SHORTEST_WAIT_S = 0.1
"""How long a full window is waited for where the caller does not wait."""
BATCH_MAX = 500
LOOK_S = 1.0
"""So often who waits for events looks whether the line was lost."""
AGAIN_MAX = 5000
"""Ids that are asked for again where somebody else begins to deliver."""
ADDRESS_HEADER, DEAD_ID_HEADER = "apimgmt-address", "apimgmt-dead-id"
"""Of an event put back from the dead letters: where it was published, and which id it had."""
_NO_RESPONDERS = "503"


@dataclass(frozen=True, slots=True)
class Given:
    """An event that is out: given to a subscriber and not settled yet."""

    event: Event
    attempt: int
    """How often it was given, this time included."""
    settle_subject: str
    reader_sequence: int
    redriven_from: str = ""
    """The id that it had when it died; empty where it was not put back from the dead letters."""
    key: str = ""
    """What it keeps its order within: the publisher's ``partitionkey``, else the address."""

    @property
    def id(self) -> str:
        """Name this delivery: it and no other of the same event."""
        return f"{self.event.id}.{self.reader_sequence}.{self.attempt}"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a subscription has come, as of the log's answer."""

    settled: int
    """The id up to which all is settled."""
    given: int
    """The highest id that was given."""
    waiting: int
    """Events that were not given yet."""
    out: int
    """Events that are given and not settled."""
    given_again: int
    """Of those, how many were given more than once."""
    reader_sequence: int

    @property
    def behind(self) -> int:
        """Events that are not settled."""
        return self.waiting + self.out


class Readers:
    """Gives events out and settles them. Every call ends in time; where the log is away it raises Refused."""

    def __init__(self, client: Client, js: JetStreamContext) -> None:
        self._client = client
        self._js = js
        self._made: dict[str, tuple[str, int, float]] = {}

    async def ensure(self, subscription: Subscription, channel: Channel, ack_wait_s: float, window: int) -> None:
        """Make the subscription's reader, or change its window where the subscription has changed."""
        marks = (channel.stream, window, ack_wait_s)
        if self._made.get(subscription.id) == marks:
            return
        await _in_time(self._make(subscription, channel, ack_wait_s, window))
        self._made[subscription.id] = marks

    async def fetch(self, subscription: Subscription, channel: Channel, most: int, wait_s: float) -> list[Given]:
        """Give up to so many events out, oldest first: those that are there, else the first to come in that time.

        Raises LookupError where the reader is missing: :meth:`ensure` makes it.
        """
        inbox = self._client.new_inbox()
        answers = await self._client.subscribe(inbox)
        wait_s = max(wait_s, SHORTEST_WAIT_S)
        found: list[Given] = []
        try:
            ask = {"batch": min(most, BATCH_MAX), "no_wait": True, "expires": int(wait_s * 1e9)}
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{channel.stream}.{subscription.id}"
            await self._client.publish(subject, orjson.dumps(ask), reply=inbox)
            while len(found) < ask["batch"]:
                message = await self._next(answers, wait_s + DEADLINE_S)
                status = (message.headers or {}).get("Status")
                if status == _NO_RESPONDERS:
                    self._made.pop(subscription.id, None)
                    raise LookupError(subscription.id)
                if status is not None:
                    break
                found.append(given(channel, message))
        except (NatsError, TimeoutError) as error:
            if not found:
                raise _away() from error
        finally:
            with contextlib.suppress(NatsError):
                await answers.unsubscribe()
        return sorted(found, key=lambda one: one.event.id)

    async def _next(self, answers: NatsSubscription, wait_s: float) -> Msg:
        """Wait for an answer. Raises TimeoutError, at once where the line was lost: the question was, too."""
        connected = self._client.stats["reconnects"]
        ends_at = time.monotonic() + wait_s
        while True:
            left_s = ends_at - time.monotonic()
            try:
                return await answers.next_msg(timeout=max(min(left_s, LOOK_S), 0.001))
            except (TimeoutError, NatsTimeoutError):
                if left_s <= LOOK_S or self._client.stats["reconnects"] != connected:
                    raise

    async def give_again(self, subscription: Subscription, channel: Channel, but: Container[int]) -> None:
        """Have events that are out given again at once, in their order: whoever had them in hand is gone.

        Of the last :data:`AGAIN_MAX` ids; others, and those in ``but``, are given again when their time is over.
        """
        known = await self.progress(subscription, channel)
        if known.out:
            first = max(known.settled, known.given - AGAIN_MAX) + 1
            again = [id_ for id_ in range(first, known.given + 1) if id_ not in but]
            await self._say_each(subscription, channel, known, again, b"-NAK")

    async def settle(self, given: Given) -> None:
        """Say that an event is done with; returns once the log knows."""
        await self._say(given.settle_subject, b"+ACK")

    async def put_off(self, given: Given, seconds: float) -> None:
        """Have an event given again after a while."""
        await self._say(given.settle_subject, _later(seconds))

    async def hold(self, given: Iterable[Given]) -> None:
        """Begin the time anew after which these are given again; nothing is said back."""
        for one in given:
            await self._client.publish(one.settle_subject, b"+WPI")

    async def settle_ids(self, subscription: Subscription, channel: Channel, ids: Iterable[int]) -> list[int]:
        """Settle events by their ids. Gives those that cannot be out: settled before, or never given."""
        return await self._say_of(subscription, channel, ids, b"+ACK")

    async def put_off_ids(
        self, subscription: Subscription, channel: Channel, ids: Iterable[int], seconds: float
    ) -> list[int]:
        """Have events given again after a while, no sooner. Gives those that cannot be out."""
        return await self._say_of(subscription, channel, ids, _later(seconds))

    async def progress(self, subscription: Subscription, channel: Channel) -> Progress:
        """Say how far it has come. Raises LookupError where the reader is missing."""
        try:
            return progress(await _in_time(self._js.consumer_info(channel.stream, subscription.id)))
        except NotFoundError:
            self._made.pop(subscription.id, None)
            raise LookupError(subscription.id) from None

    async def remove(self, stream: str, subscription_id: str) -> None:
        """Forget how far a subscription has come; one that is not there is no fault."""
        self._made.pop(subscription_id, None)
        with contextlib.suppress(NotFoundError):
            await _in_time(self._js.delete_consumer(stream, subscription_id))

    async def _make(self, subscription: Subscription, channel: Channel, ack_wait_s: float, window: int) -> None:
        config = reader_config(subscription, channel, ack_wait_s, window)
        try:
            await self._js.add_consumer(channel.stream, config)
        except NotFoundError:
            await ensure_stream(self._js, channel.document())
            await self._js.add_consumer(channel.stream, config)

    async def _say_of(self, subscription: Subscription, channel: Channel, ids: Iterable[int], word: bytes) -> list[int]:
        known = await self.progress(subscription, channel)
        wanted = sorted(set(ids))
        out = [id_ for id_ in wanted if known.settled < id_ <= known.given]
        await self._say_each(subscription, channel, known, out, word)
        return [id_ for id_ in wanted if id_ not in out]

    async def _say_each(
        self, subscription: Subscription, channel: Channel, known: Progress, ids: Sequence[int], word: bytes
    ) -> None:
        """Say a word of each event; of one that is not out it says nothing to the log."""
        prefix = f"$JS.ACK.{channel.stream}.{subscription.id}.1"
        subjects = [f"{prefix}.{id_}.{known.reader_sequence}.0.0" for id_ in ids]
        for subject in subjects[:-1]:
            await self._client.publish(subject, word)
        if subjects:
            # The log takes them in their order: once it has answered the last, it has heard them all.
            await self._say(subjects[-1], word)

    async def _say(self, subject: str, word: bytes) -> None:
        await _in_time(self._client.request(subject, word, timeout=DEADLINE_S))


def reader_config(subscription: Subscription, channel: Channel, ack_wait_s: float, window: int) -> ConsumerConfig:
    """Say how the reader of a subscription is to be; where it begins is decided when it is made."""
    begins_at = subscription.position + 1
    return ConsumerConfig(
        durable_name=subscription.id,
        description=subscription.channel[:200],
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE if begins_at > 1 else DeliverPolicy.ALL,
        opt_start_seq=begins_at if begins_at > 1 else None,
        filter_subjects=[subject_filter(subscription.channel), redriven_subject(channel.stream, subscription.id)],
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ack_wait_s,
        max_ack_pending=window,
        max_deliver=-1,
    )


def given(channel: Channel, message: Msg) -> Given:
    """Read an event as its reader gives it."""
    place = message.metadata
    headers = message.headers or {}
    address = headers.get(ADDRESS_HEADER)
    at = datetime.fromtimestamp(place.timestamp.timestamp(), UTC).isoformat().replace("+00:00", "Z")
    headers = {**headers, "Nats-Sequence": str(place.sequence.stream), "Nats-Time-Stamp": at}
    subject = subject_of(address) if address else message.subject.removeprefix(LIVE_PREFIX)
    event = from_headers(channel.address, subject, headers, message.data)
    return Given(
        event=event,
        attempt=place.num_delivered,
        settle_subject=message.reply,
        reader_sequence=place.sequence.consumer,
        redriven_from=headers.get(DEAD_ID_HEADER, ""),
        key=event.extensions.get("partitionkey") or event.address,
    )


def progress(info: ConsumerInfo) -> Progress:
    """Read what JetStream says of a consumer."""
    assert info.ack_floor is not None, "said of every consumer"
    assert info.delivered is not None, "said of every consumer"
    return Progress(
        settled=info.ack_floor.stream_seq,
        given=info.delivered.stream_seq,
        waiting=info.num_pending or 0,
        out=info.num_ack_pending or 0,
        given_again=info.num_redelivered or 0,
        reader_sequence=info.delivered.consumer_seq,
    )


def _later(seconds: float) -> bytes:
    return b'-NAK {"delay": %d}' % int(seconds * 1e9) if seconds > 0 else b"-NAK"


async def _in_time(answer: Awaitable[T]) -> T:
    """Await the log; its absence costs the caller a clear answer. Raises Refused and NotFoundError."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await answer
    except NotFoundError:
        raise
    except (TimeoutError, OSError, APIError, NatsError) as error:
        raise _away() from error


def _away() -> Refused:
    return Refused(Reason.OVERLOADED, "The event log does not answer.", retry_after_s=1.0, cause="log-away")
