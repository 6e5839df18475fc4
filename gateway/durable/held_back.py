"""Events that limits kept from who pulls: the log gave them, the caller never had them, so no try is used up.

The log counts each time that it gives an event. How many of these were in vain is kept beside, in the stream of tries,
until the subscription has settled the event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import APIError

from gateway.durable.readers import Given
from gateway.link.nats import RETRIES_STREAM, RETRIES_SUBJECT, read_batch
from gateway.refusals import Reason, Refused

KEPT_MAX = 100
"""Beyond so many, those of events that are settled are looked for and forgotten."""
_FAULTS = (NatsError, APIError, TimeoutError, OSError)


class HeldBack:
    """Counts them. Raises Refused where the log is away."""

    def __init__(self, client: Client, js: JetStreamContext) -> None:
        self._client = client
        self._js = js

    async def without(self, subscription_id: str, given: list[Given]) -> list[Given]:
        """Give these with the number of times that the caller has had them, this one included."""
        if all(one.attempt == 1 for one in given):
            return given
        held = await self.counts(subscription_id)
        return [replace(one, attempt=max(1, one.attempt - held.get(one.event.id, 0))) for one in given]

    async def counts(self, subscription_id: str) -> dict[int, int]:
        """Give how often each event was held back."""
        found: dict[int, int] = {}
        position = 1
        try:
            while True:
                messages = await read_batch(self._client, RETRIES_STREAM, _subject(subscription_id, "*"), position)
                for message in messages:
                    headers = message.headers or {}
                    position = int(headers["Nats-Sequence"]) + 1
                    found[int(headers["Nats-Subject"].rpartition(".")[2])] = int(message.data)
                if len(messages) < 500:
                    return found
        except _FAULTS as error:
            raise _away() from error

    async def add(self, subscription_id: str, held: Iterable[Given]) -> int:
        """Count these once more. Says of how many events something is kept."""
        known = await self.counts(subscription_id)
        try:
            await asyncio.gather(*(self._keep(subscription_id, one.event.id, known) for one in held))
        except _FAULTS as error:
            raise _away() from error
        return len(known)

    async def forget(self, subscription_id: str, settled: int) -> None:
        """Forget what was counted of events up to this one: they are settled."""
        for event_id in await self.counts(subscription_id):
            if event_id <= settled:
                await self._js.purge_stream(RETRIES_STREAM, subject=_subject(subscription_id, event_id))

    async def _keep(self, subscription_id: str, event_id: int, known: Mapping[int, int]) -> None:
        count = known.get(event_id, 0) + 1
        await self._js.publish(_subject(subscription_id, event_id), str(count).encode())


def _subject(subscription_id: str, event_id: int | str) -> str:
    return f"{RETRIES_SUBJECT}.{subscription_id}.{event_id}"


def _away() -> Refused:
    return Refused(Reason.OVERLOADED, "The event log does not answer.", retry_after_s=1.0, cause="log-away")
