"""Writes events to the log: sent in order over the link to NATS, and acknowledged by the number in their reply subject.

An event on its way is an entry of a table with a callback: it takes no task and no future. All events of one turn of
the event loop leave in one write. Entries wait here for a link that is down or congested, until their deadline.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import orjson
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import APIError

from gateway.concurrency.stopping import stop_tasks
from gateway.link.client import NatsClient
from gateway.link.nats import NO_RESPONDERS
from gateway.log.refusal import refusal
from gateway.log.silence import Silence
from gateway.log.unavailable import log_unavailable
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Channel

logger = logging.getLogger(__name__)

MESSAGE_ID = "Nats-Msg-Id"
DEADLINE_S = 2.0
"""The longest time that an event is on its way, with its repetitions; it may have been stored when it is refused."""
LOOK_S = 0.02
"""How often entries that wait look whether the link is up again."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The place of an event in its channel's log."""

    sequence: int
    duplicate: bool = False
    """Whether it had been stored before, under the same message id."""


Done = Callable[[Stored | Refused], None]
"""Called once, perhaps before the write returns. It must not wait."""


@dataclass(slots=True, eq=False)
class Entry:
    """An event on its way to the log."""

    channel: Channel
    subject: bytes
    data: bytes
    headers: bytes
    is_repeatable: bool
    """It has a message id, so that it is sent again if the link is lost before its reply."""
    done: Done
    ends_at: float
    sent_at: float = 0.0
    has_made_stream: bool = False


class LogWriter:
    """The events of one process that are on their way to the log."""

    def __init__(self, client: NatsClient, silence: Silence, ensure: Callable[[Channel], Awaitable[None]]) -> None:
        self._client = client
        self._silence = silence
        self._ensure = ensure
        self._inbox = client.new_inbox()
        self._reply_to = self._inbox.encode()
        self._link = 0
        """The number of reconnections at which what is on its way was last looked through."""
        self._number = 0
        self._open: dict[int, Entry] = {}
        """By number: sent, in that order, and not acknowledged yet."""
        self._waiting: deque[Entry] = deque()
        """Not sent, or to be sent again, in order."""
        self._looking: asyncio.TimerHandle | None = None
        self._making: dict[str, list[Entry]] = {}
        """By stream that is being created: the entries that wait for it, in order."""
        self._makers: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Subscribe to the replies."""
        await self._client.subscribe(f"{self._inbox}.*", cb=self._take)
        self._client.expect_stored(self._inbox, self._stored)

    async def stop(self) -> None:
        """Refuse what is on its way, and stop."""
        await stop_tasks(*self._makers)
        self.expire(float("inf"))
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        self._refuse(self._waiting)
        self._waiting.clear()

    def write(
        self, channel: Channel, subject: str, data: bytes, headers: bytes, done: Done, *, is_repeatable: bool
    ) -> None:
        """Send one event; ``done`` is called with its place once it is stored durably, or with its refusal.

        Refusals are ``overloaded`` if the log does not answer in time (the event may or may not be stored),
        ``storage-full`` and ``too-large``.
        """
        if self._silence.silent_s >= DEADLINE_S:
            done(log_unavailable())
            return
        if len(data) > self._client.max_payload:
            done(Refused(Reason.TOO_LARGE, "The event is larger than the log takes."))
            return
        now = time.monotonic()
        entry = Entry(channel, subject.encode(), data, headers, is_repeatable, done, now + DEADLINE_S)
        if self._client.reconnects != self._link:
            self._recall()
        if self._making and channel.stream in self._making:
            self._making[channel.stream].append(entry)
        elif self._waiting or not self._can_send():
            self._wait((entry,))
        else:
            self._send(entry, now)

    def expire(self, now: float) -> None:
        """Refuse what is overdue, and repeat what was sent on a lost link if it may be repeated."""
        overdue = [number for number, entry in self._open.items() if entry.ends_at <= now]
        if any(self._silence.replied_at < self._open[number].sent_at for number in overdue):
            self._silence.refused_after(DEADLINE_S)
        self._refuse([self._open.pop(number) for number in overdue])
        self._recall()
        if self._waiting:
            self._look()

    # Sending

    def _can_send(self) -> bool:
        """Return whether the link is up and not congested; an event that was sent late would outlive its refusal."""
        return self._client.is_connected and not self._client.is_congested

    def _send(self, entry: Entry, now: float) -> None:
        self._number = number = self._number + 1
        self._open[number] = entry
        entry.sent_at = now
        headers, data = entry.headers, entry.data
        self._client.send_frame(
            b"HPUB %b %b.%d %d %d\r\n%b%b\r\n"
            % (entry.subject, self._reply_to, number, len(headers), len(headers) + len(data), headers, data)
        )

    def _recall(self) -> None:
        """Take back what was sent on a link that is lost: to be sent again before all others, or to be refused."""
        link = self._client.reconnects
        if link == self._link:
            return
        self._link = link
        lost, self._open = list(self._open.values()), {}
        for entry in reversed(lost):
            if entry.is_repeatable:
                self._waiting.appendleft(entry)
        self._refuse([entry for entry in lost if not entry.is_repeatable])

    def _wait(self, entries: Iterable[Entry]) -> None:
        self._waiting.extend(entries)
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """Send what waits if the link is up; refuse what has waited for too long."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        self._recall()
        now = time.monotonic()
        while self._waiting and self._can_send():
            self._send(self._waiting.popleft(), now)
        waiting, self._waiting = self._waiting, deque()
        overdue: list[Entry] = []
        for entry in waiting:
            is_overdue = entry.ends_at <= now or self._client.is_closed
            (overdue if is_overdue else self._waiting).append(entry)
        if self._waiting:
            self._wait(())
        if overdue:
            self._silence.refused_after(DEADLINE_S)
            self._refuse(overdue)

    # Replies

    def _stored(self, number: int, sequence: int, is_duplicate: bool) -> None:
        self._silence.end()
        entry = self._open.pop(number, None)
        if entry is not None:
            _finish(entry, Stored(sequence, is_duplicate))

    async def _take(self, message: Msg) -> None:
        """Take a reply that is no acknowledgement, or that the client has parsed."""
        self._silence.end()
        entry = self._open.pop(int(message.subject.rpartition(".")[2]), None)
        if entry is None:
            return
        status = message.headers.get("Status") if message.headers else None
        if status == NO_RESPONDERS:
            self._make_stream(entry)
        elif status is not None:
            logger.warning("log: unexpected status %s %s", status, message.headers)
            _finish(entry, log_unavailable())
        else:
            _finish(entry, outcome_of(message.data))

    # A stream that is missing, as in an emptied store

    def _make_stream(self, entry: Entry) -> None:
        stream = entry.channel.stream
        if entry.has_made_stream:
            _finish(entry, log_unavailable())
        elif stream in self._making:
            self._making[stream].append(entry)
        else:
            logger.warning("log: the stream of channel %s is missing; creating it", entry.channel.address)
            self._making[stream] = [entry]
            maker = asyncio.create_task(self._make(entry.channel), name="log stream")
            self._makers.add(maker)
            maker.add_done_callback(self._makers.discard)

    async def _make(self, channel: Channel) -> None:
        refused: Refused | None = log_unavailable()
        try:
            async with asyncio.timeout(DEADLINE_S / 2):
                await self._ensure(channel)
            refused = None
        except APIError as error:
            refused = refusal({"err_code": error.err_code, "description": error.description})
        except (NatsError, TimeoutError):
            logger.warning("log: the stream of channel %s could not be created", channel.address)
        finally:
            entries = self._making.pop(channel.stream)
            if refused is None:
                for entry in entries:
                    entry.has_made_stream = True
                self._wait(entries)
                self._look()
            else:
                self._refuse(entries, refused)

    def _refuse(self, entries: Iterable[Entry], refused: Refused | None = None) -> None:
        for entry in list(entries):
            _finish(entry, refused or log_unavailable())


def _finish(entry: Entry, outcome: Stored | Refused) -> None:
    try:
        entry.done(outcome)
    except Exception:
        logger.exception("log: the outcome of a publish to %s was not taken", entry.channel.address)


def with_header(block: bytes, name: str, value: str) -> bytes:
    """Return a block of :func:`header_block` with one more header, whose value holds no line end."""
    return b"%b%b: %b\r\n\r\n" % (block[:-2], name.encode(), value.encode())


async def when_done(begin: Callable[[Done], None]) -> Stored:
    """Begin to write, and return what it reports. Raises Refused."""
    outcome: asyncio.Future[Stored | Refused] = asyncio.get_running_loop().create_future()
    begin(lambda value: None if outcome.done() else outcome.set_result(value))
    result = await outcome
    if isinstance(result, Refused):
        raise result
    return result


def outcome_of(reply: bytes) -> Stored | Refused:
    """Return what a reply of JetStream reports of a message that was to be stored."""
    value = orjson.loads(reply)
    if "error" in value:
        return refusal(value["error"])
    return Stored(value["seq"], value.get("duplicate", False))


def header_block(fields: Iterable[tuple[str, str]]) -> bytes:
    """Return headers as NATS frames them (version line and empty line included). Raises ValueError for a line end."""
    lines = [f"{name}: {value}" for name, value in fields]
    block = "\r\n".join(["NATS/1.0", *lines, "", ""]).encode()
    if block.count(b"\n") != len(lines) + 2 or block.count(b"\r") != len(lines) + 2:
        raise ValueError("a header of an event holds a line end")
    return block
