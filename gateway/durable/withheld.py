"""Deliveries that a limit withheld from a pulling consumer: they do not count as attempts of their events.

JetStream counts every delivery. How many of an event's deliveries were withheld is stored in a stream of its own, until
the subscription has acknowledged the event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import APIError

from gateway.durable.readers import Delivery
from gateway.link.nats import WITHHELD_STREAM, WITHHELD_SUBJECT, read_all
from gateway.log.unavailable import log_unavailable

COUNTS_MAX = 100
"""Above this number of stored counts, those of acknowledged events are deleted."""
_FAULTS = (NatsError, APIError, TimeoutError, OSError)


class Withheld:
    """Counts withheld deliveries by event. Raises Refused where the log is unavailable."""

    def __init__(self, client: Client, js: JetStreamContext) -> None:
        self._client = client
        self._js = js

    async def discount(self, subscription_id: str, deliveries: list[Delivery]) -> list[Delivery]:
        """Return the deliveries with ``attempt`` reduced by the number of deliveries that were withheld."""
        if all(delivery.attempt == 1 for delivery in deliveries):
            return deliveries
        counts = await self.counts(subscription_id)
        return [
            replace(delivery, attempt=max(1, delivery.attempt - counts.get(delivery.event.id, 0)))
            for delivery in deliveries
        ]

    async def counts(self, subscription_id: str) -> dict[int, int]:
        """Return the number of withheld deliveries by event id."""
        try:
            messages = await read_all(self._client, WITHHELD_STREAM, _subject(subscription_id, "*"))
        except _FAULTS as error:
            raise log_unavailable() from error
        return {
            int((message.headers or {})["Nats-Subject"].rpartition(".")[2]): int(message.data) for message in messages
        }

    async def add(self, subscription_id: str, deliveries: Iterable[Delivery]) -> int:
        """Count these deliveries as withheld. Returns the number of events that had a count before."""
        counts = await self.counts(subscription_id)
        try:
            await asyncio.gather(*(self._store(subscription_id, one.event.id, counts) for one in deliveries))
        except _FAULTS as error:
            raise log_unavailable() from error
        return len(counts)

    async def forget(self, subscription_id: str, acked_id: int) -> None:
        """Delete the counts of events up to ``acked_id``, which are acknowledged."""
        for event_id in await self.counts(subscription_id):
            if event_id <= acked_id:
                await self._js.purge_stream(WITHHELD_STREAM, subject=_subject(subscription_id, event_id))

    async def forget_all(self, subscription_id: str) -> None:
        """Delete the counts of a subscription. Raises the errors of nats-py."""
        await self._js.purge_stream(WITHHELD_STREAM, subject=_subject(subscription_id, "*"))

    async def _store(self, subscription_id: str, event_id: int, counts: Mapping[int, int]) -> None:
        count = counts.get(event_id, 0) + 1
        await self._js.publish(_subject(subscription_id, event_id), str(count).encode())


def _subject(subscription_id: str, event_id: int | str) -> str:
    return f"{WITHHELD_SUBJECT}.{subscription_id}.{event_id}"
