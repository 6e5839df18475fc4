"""Retained events of MQTT: the event of each address that a new subscriber receives at once.

The event itself lies in its channel's log, under that channel's retention; only its id and stream are kept here, one
of each address: ``<id> <stream>``. Earlier versions kept the id alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from gateway.link.nats import RETAINED_STREAM, RETAINED_SUBJECT, read_batch
from gateway.log.event import Event
from gateway.log.event_log import EventLog
from gateway.log.unavailable import log_unavailable
from gateway.snapshot.picture import Channel, Snapshot
from gateway.wire.digest import digest_of
from gateway.wire.subjects import address_of

PAGE = 200


class RetainedEvents:
    """The ids of retained events, in a stream of their own."""

    def __init__(self, client: Client, log: EventLog, snapshot: Snapshot) -> None:
        self._client = client
        self._log = log
        self._snapshot = snapshot

    async def retain(self, subject: str, channel: Channel, sequence: int, once: str | None = None) -> None:
        """Make an event the retained one of its address's subject. Raises Refused while NATS is unavailable.

        What is sent again with the same ``once`` within two minutes changes nothing: a later event may be retained.
        """
        await self._log.store(
            f"{RETAINED_SUBJECT}.{subject}", b"%d %b" % (sequence, channel.stream.encode()), _id(subject, once)
        )

    async def clear(self, subject: str, once: str | None = None) -> None:
        """Leave an address's subject without a retained event, as :meth:`retain` does."""
        await self._log.store(f"{RETAINED_SUBJECT}.{subject}", b"", _id(subject, once))

    async def matching(self, subject_filter: str) -> AsyncIterator[Event]:
        """Yield the retained events that a subject filter matches, that the log still holds and that have not expired.

        Raises Refused.
        """
        first = 1
        while True:
            subject = f"{RETAINED_SUBJECT}.{subject_filter}"
            try:
                page = await read_batch(self._client, RETAINED_STREAM, subject, first, PAGE)
            except (TimeoutError, NatsError) as error:
                raise log_unavailable() from error
            for event in await asyncio.gather(*(self._event(message) for message in page)):
                if event is not None:
                    yield event
            if len(page) < PAGE:
                return
            first = int((page[-1].headers or {})["Nats-Sequence"]) + 1

    async def _event(self, message: Msg) -> Event | None:
        """Return the event that a record points to, if its channel still exists and still holds it."""
        address = address_of((message.headers or {})["Nats-Subject"].removeprefix(f"{RETAINED_SUBJECT}."))
        id_, _, stream = message.data.decode().partition(" ")
        channel = self._channel(address, stream)
        if channel is None or not id_:
            return None
        event = await self._log.event(channel, int(id_))
        is_current = event is not None and event.address == address and not event.has_expired(time.time())
        return event if is_current else None

    def _channel(self, address: str, stream: str) -> Channel | None:
        """Return the channel whose stream it is: not always the one that owns the address by now."""
        if stream:
            return self._snapshot.channel_of(stream)
        found = self._snapshot.channel(address)
        return found[0] if found is not None else None


def _id(subject: str, once: str | None) -> str | None:
    return None if once is None else digest_of((subject.encode(), once.encode()))
