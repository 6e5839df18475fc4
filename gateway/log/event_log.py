"""The event log of every channel: stores events in JetStream and reads them back, without a JetStream consumer.

One inbox receives every reply; the last part of its subject is the number of the request. So many requests are in
flight on one subscription, and one sweep ends those that were not replied in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

import orjson
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from nats.js import JetStreamContext
from nats.js.errors import APIError

from gateway.concurrency.stopping import stop_tasks
from gateway.concurrency.turns import Turns
from gateway.link.client import NatsClient
from gateway.log.disk import Disk
from gateway.log.event import Event, from_headers, rfc3339
from gateway.log.refusal import refusal
from gateway.log.silence import Silence
from gateway.log.streams import ensure_stream
from gateway.log.unavailable import log_unavailable
from gateway.log.writer import DEADLINE_S, MESSAGE_ID, Done, LogWriter, Stored, header_block, outcome_of, when_done
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Channel

__all__ = ["DEADLINE_S", "EventLog", "Extent", "Stored", "StreamMissing", "ensure_stream", "refusal"]

logger = logging.getLogger(__name__)

READ_SILENCE_S = 0.5
"""A read is refused after this time without any reply from the log. A publish waits longer: it may have been stored."""
SWEEP_S = 0.1
BATCH_MAX = 1000
READS_EACH, READS_IN_ALL = 4, 32
"""How many batches are read at once, for one consumer and in all."""
_NO_SUCH_STREAM = 10059
_NO_RESPONDERS, _NO_MESSAGE, _END_OF_BATCH = "503", "404", "204"


@dataclass(frozen=True, slots=True)
class Extent:
    """The range of ids that a stream holds."""

    first: int
    last: int
    began_at: int
    """The first id that it ever had: a lower position is of an earlier stream of that name."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Events read by one request, and how many of the same filter follow them."""

    events: list[Event]
    pending: int


class StreamMissing(LookupError):
    """The stream does not exist, or JetStream does not serve."""


class _LinkLost(Exception):
    """The link that the request was sent on is gone: no reply will arrive."""


@dataclass(slots=True, eq=False)
class _Request:
    replied: asyncio.Future[list[Msg]]
    sent_at: float
    ends_at: float
    silence_s: float
    """It is refused after this time without any reply from the log, to this request or another."""
    link: int
    is_batch: bool
    messages: list[Msg] = field(default_factory=list)


class EventLog:
    """Publishes to and reads from the streams of channels. Every call returns or raises within :data:`DEADLINE_S`."""

    def __init__(self, client: NatsClient, js: JetStreamContext, disk: Disk | None = None) -> None:
        self._client = client
        self._js = js
        self._disk = disk
        self._inbox = client.new_inbox()
        self._numbers = count(1)
        self._open: dict[str, _Request] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._silence = Silence()
        self._writer = LogWriter(client, self._silence, self.ensure)
        self._turns = Turns(READS_EACH, READS_IN_ALL)

    async def start(self) -> None:
        """Subscribe to the inbox."""
        await self._client.subscribe(f"{self._inbox}.*", cb=self._take)
        await self._writer.start()
        self._sweeper = asyncio.create_task(self._sweep(), name="event log sweep")

    async def stop(self) -> None:
        """Fail the open requests, and stop."""
        await stop_tasks(self._sweeper)
        self._expire(float("inf"))
        await self._writer.stop()

    @property
    def payload_max_bytes(self) -> int:
        """The largest event: the limit of NATS, less room for headers."""
        return int(self._client.max_payload) - 8 * 1024

    async def ensure(self, channel: Channel) -> None:
        """Create or update the channel's stream."""
        await ensure_stream(self._js, channel.document())

    def write(
        self,
        channel: Channel,
        subject: str,
        data: bytes,
        headers: bytes,
        done: Done,
        *,
        is_repeatable: bool,
    ) -> None:
        """Store one event at the subject of its address, and call ``done`` as :meth:`LogWriter.write` does.

        Events are stored in the order of these calls. One with a message id among its headers may be repeated.
        """
        if self._disk is not None and self._disk.is_full:
            done(Refused(Reason.STORAGE_FULL))
            return
        self._writer.write(channel, channel.stored(subject), data, headers, done, is_repeatable=is_repeatable)

    async def publish(
        self,
        channel: Channel,
        subject: str,
        data: bytes,
        headers: Mapping[str, str],
        message_id: str | None = None,
    ) -> Stored:
        """Store one event at the subject of its address; once this returns, the event is stored durably.

        Raises Refused ``overloaded`` when the log does not answer in time (the event may or may not be stored),
        ``storage-full`` and ``too-large``.
        """
        known = {MESSAGE_ID: message_id} if message_id else {}
        block = header_block({**headers, **known}.items())
        return await when_done(
            lambda done: self.write(channel, subject, data, block, done, is_repeatable=bool(message_id))
        )

    async def store(
        self, subject: str, data: bytes, message_id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Store an internal message, such as a dead letter, on a stream that exists; once per message id."""
        all_ = {**(headers or {}), **({MESSAGE_ID: message_id} if message_id is not None else {})}
        try:
            replies = await self._request(
                subject, data, all_ or None, is_repeatable=message_id is not None, silence_s=DEADLINE_S
            )
        except StreamMissing:
            raise log_unavailable() from None
        outcome = outcome_of(replies[0].data)
        if isinstance(outcome, Refused):
            raise outcome

    async def history(self, channel: Channel, subject: str, after: int, limit: int) -> list[Event]:
        """Read up to ``limit`` events of a subject filter with ids above ``after``, oldest first."""
        return (await self.batch(channel, subject, after, limit)).events

    async def batch(
        self, channel: Channel, subject: str, after: int, limit: int, max_bytes: int = 0, *, reader: str = ""
    ) -> Batch:
        """Read as :meth:`history` does, up to about ``max_bytes``, and count the events left.

        Consumers take turns, named by ``reader``, so that a long replay delays neither others nor live events.
        """
        request = {"seq": max(after + 1, 1), "next_by_subj": channel.stored(subject), "batch": min(limit, BATCH_MAX)}
        if max_bytes:
            request["max_bytes"] = max_bytes
        async with self._turns.acquire(reader):
            messages = await self._direct_get(channel, request)
        pending = int((messages[-1].headers or {}).get("Nats-Num-Pending", 0)) if messages else 0
        return Batch([_event(channel, message) for message in messages], pending)

    async def event(self, channel: Channel, sequence: int) -> Event | None:
        """Return one event; None if the log no longer holds it."""
        found = await self._direct_get(channel, {"seq": sequence})
        return _event(channel, found[0]) if found else None

    async def extent(self, channel: Channel) -> Extent:
        """Return the range of ids that the channel's stream holds, as of no earlier than this call."""
        replies = await self._request_making_stream(channel, lambda: self._info(channel))
        info = orjson.loads(replies[0].data)
        state = info["state"]
        began_at = int(info["config"].get("first_seq") or 1)
        # A stream without any event yet reports 0 or first_seq - 1 as its last; an empty one has no first.
        last = max(int(state["last_seq"]), began_at - 1)
        first = int(state["first_seq"]) if state["messages"] else last + 1
        return Extent(first, last, began_at)

    async def first(self, channel: Channel) -> int:
        """Return the oldest id left; one more than the last if there is none."""
        return (await self.extent(channel)).first

    async def last(self, channel: Channel) -> int:
        """Return the newest id ever assigned; one less than the first if there is none."""
        return (await self.extent(channel)).last

    async def stored_at(self, channel: Channel, subject: str, after: int) -> float | None:
        """Return when the first event after an id was stored, in Unix seconds; None if there is none."""
        found = await self._direct_get(channel, {"seq": after + 1, "next_by_subj": channel.stored(subject), "batch": 1})
        if not found:
            return None
        return datetime.fromisoformat((found[0].headers or {})["Nats-Time-Stamp"]).timestamp()

    async def sequence_at(self, channel: Channel, instant: datetime) -> int:
        """Return the id of the first event stored at or after an instant; one more than the last if there is none."""
        request = {
            "start_time": rfc3339(instant.astimezone(UTC)),
            "next_by_subj": channel.stored(channel.subject),
            "batch": 1,
        }
        # Read before: an event that is stored between the two requests must not count as one before the instant.
        last = await self.last(channel)
        found = await self._direct_get(channel, request)
        return _event(channel, found[0]).id if found else last + 1

    async def _info(self, channel: Channel) -> list[Msg]:
        replies = await self._request(f"$JS.API.STREAM.INFO.{channel.stream}", b"")
        error = orjson.loads(replies[0].data).get("error")
        if error is None:
            return replies
        if error.get("err_code") == _NO_SUCH_STREAM:
            raise StreamMissing
        raise refusal(error)

    async def _direct_get(self, channel: Channel, request: Mapping[str, Any]) -> list[Msg]:
        subject = f"$JS.API.DIRECT.GET.{channel.stream}"
        body = orjson.dumps(request)
        is_batch = "batch" in request
        return await self._request_making_stream(channel, lambda: self._request(subject, body, is_batch=is_batch))

    async def _request_making_stream(self, channel: Channel, send: Callable[[], Awaitable[list[Msg]]]) -> list[Msg]:
        """Send a request; if the channel's stream is missing, as in an emptied store, create it and repeat."""
        try:
            return await send()
        except StreamMissing:
            logger.warning("log: the stream of channel %s is missing; creating it", channel.address)
        try:
            async with asyncio.timeout(DEADLINE_S / 2):
                await self.ensure(channel)
                return await send()
        except APIError as error:
            raise refusal({"err_code": error.err_code, "description": error.description}) from error
        except (StreamMissing, NatsError, TimeoutError) as error:
            raise log_unavailable() from error

    async def _request(
        self,
        subject: str,
        data: bytes,
        headers: dict[str, str] | None = None,
        *,
        is_batch: bool = False,
        is_repeatable: bool = True,
        silence_s: float = READ_SILENCE_S,
    ) -> list[Msg]:
        """Send a request and return the reply. A repeatable one is sent again after the link was lost meanwhile."""
        self.require_available(silence_s)
        started_at = time.monotonic()
        while True:
            if not self._client.is_connected:
                await self._wait_for_link(started_at, silence_s)
            now = time.monotonic()
            replied: asyncio.Future[list[Msg]] = asyncio.get_running_loop().create_future()
            request = _Request(replied, now, started_at + DEADLINE_S, silence_s, self._link, is_batch)
            try:
                return await self._request_once(subject, data, headers, request)
            except _LinkLost:
                if not is_repeatable:
                    raise log_unavailable() from None
            except MaxPayloadError:
                raise Refused(Reason.TOO_LARGE, "The event is larger than the log takes.") from None
            except NatsError as error:
                raise log_unavailable() from error

    async def require_reply(self) -> None:
        """Return once the log replies. Raises Refused after its silence, which ends other requests, too."""
        await self._request("$JS.API.INFO", b"")

    def require_available(self, silence_s: float = READ_SILENCE_S) -> None:
        """Raise Refused while the log is known to be silent for as long as the caller would wait for it."""
        self._silence.require_available(silence_s)

    async def _request_once(
        self, subject: str, data: bytes, headers: dict[str, str] | None, request: _Request
    ) -> list[Msg]:
        number = str(next(self._numbers))
        self._open[number] = request
        try:
            await self._client.publish(subject, data, reply=f"{self._inbox}.{number}", headers=headers)
            return await request.replied
        finally:
            self._open.pop(number, None)

    @property
    def _link(self) -> int:
        return self._client.reconnects

    async def _wait_for_link(self, started_at: float, silence_s: float) -> None:
        """Wait for the link instead of buffering: an event that is sent late would be stored after its refusal."""
        while not self._client.is_connected:
            if self._client.is_closed or time.monotonic() - started_at >= silence_s:
                self._silence.refused_after(silence_s)
                raise log_unavailable()
            await asyncio.sleep(0.02)

    async def _take(self, message: Msg) -> None:
        self._silence.end()
        request = self._open.get(message.subject.rpartition(".")[2])
        if request is None or request.replied.done():
            return
        status = message.headers.get("Status") if message.headers else None
        if status is None:
            request.messages.append(message)
            if not request.is_batch:
                request.replied.set_result(request.messages)
        elif status in (_END_OF_BATCH, _NO_MESSAGE):
            request.replied.set_result(request.messages)
        elif status == _NO_RESPONDERS:
            request.replied.set_exception(StreamMissing())
        else:
            logger.warning("log: unexpected status %s %s", status, message.headers)
            request.replied.set_exception(log_unavailable())

    async def _sweep(self) -> None:
        swept_at = time.monotonic()
        while True:
            await asyncio.sleep(SWEEP_S)
            late_s = max(0.0, time.monotonic() - swept_at - 2 * SWEEP_S)
            swept_at = time.monotonic()
            # While the event loop was held up, replies may have arrived that nobody has read yet.
            if late_s:
                self._silence.replied_at = max(self._silence.replied_at, swept_at - READ_SILENCE_S / 2)
            self._expire(swept_at)
            self._writer.expire(swept_at)
            if self._silence.silent_s and self._client.is_connected:
                await self._probe()

    async def _probe(self) -> None:
        """Ask the log for a reply; any reply ends its silence."""
        with contextlib.suppress(NatsError):
            await self._client.publish("$JS.API.INFO", b"", reply=f"{self._inbox}.probe")

    def _expire(self, now: float) -> None:
        """Fail overdue requests, and those sent on a lost link."""
        link = self._link
        for request in [request for request in self._open.values() if not request.replied.done()]:
            silent_s = now - max(request.sent_at, self._silence.replied_at)
            if request.ends_at <= now or silent_s >= request.silence_s:
                if self._silence.replied_at < request.sent_at:
                    self._silence.refused_after(request.silence_s)
                request.replied.set_exception(log_unavailable())
            elif request.link != link:
                request.replied.set_exception(_LinkLost())


def _event(channel: Channel, message: Msg) -> Event:
    headers = message.headers or {}
    return from_headers(channel.address, headers["Nats-Subject"], headers, message.data)
