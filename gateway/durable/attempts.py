"""What became of each try of a webhook: kept for who looks, and of tries that failed, until their event is settled."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import APIError

from gateway.durable.readers import Given
from gateway.durable.webhook import Answer
from gateway.link.nats import ATTEMPTS_STREAM, ATTEMPTS_SUBJECT, RETRIES_STREAM, RETRIES_SUBJECT, read_batch
from gateway.log.event import rfc3339

SIGNATURE = "webhook-signature"
HEADERS_MAX, HEADER_MAX_CHARS = 50, 300


@dataclass(frozen=True, slots=True)
class Retry:
    """An event whose tries have failed so far."""

    id: int
    key: str
    tries: int
    first_at: float
    next_at: float


def attempt(
    given: Given,
    number: int,
    outcome: str,
    *,
    url: str,
    headers: dict[str, str],
    answer: Answer | None,
    error: str | None,
    at: float,
    duration_s: float,
) -> dict[str, Any]:
    """Say what became of a try: what was sent (its signature is left out), what was answered, how long it took."""
    return {
        "event": str(given.event.id),
        "channel": given.event.address,
        "attempt": number,
        "outcome": outcome,
        "at": rfc3339(datetime.fromtimestamp(at, UTC)),
        "duration_s": round(duration_s, 3),
        "request": {"method": "POST", "url": url, "headers": {**headers, SIGNATURE: "v1,…"}},
        "answer": None if answer is None else _answer(answer),
        "error": error,
    }


class Attempts:
    """Writes and reads them. Raises nats' errors where the log is away."""

    def __init__(self, client: Client, js: JetStreamContext) -> None:
        self._client = client
        self._js = js

    async def note(self, subscription_id: str, said: dict[str, Any]) -> None:
        """Keep a try to be looked at; one that cannot be kept is no fault."""
        with contextlib.suppress(NatsError, APIError, TimeoutError, OSError):
            await self._client.publish(f"{ATTEMPTS_SUBJECT}.{subscription_id}", orjson.dumps(said))

    async def failed(self, subscription_id: str, retry: Retry) -> None:
        """Keep how often an event was tried, in case this process ends."""
        subject = f"{RETRIES_SUBJECT}.{subscription_id}.{retry.id}"
        await self._js.publish(subject, orjson.dumps(asdict(retry)))

    async def settled(self, subscription_id: str, event_id: int | str = "*") -> None:
        """Forget the tries of an event, or of all events of a subscription."""
        await self._js.purge_stream(RETRIES_STREAM, subject=f"{RETRIES_SUBJECT}.{subscription_id}.{event_id}")

    async def retries(self, subscription_id: str) -> list[Retry]:
        """Give the events whose tries have failed so far."""
        found: list[Retry] = []
        position = 1
        while True:
            messages = await read_batch(
                self._client, RETRIES_STREAM, f"{RETRIES_SUBJECT}.{subscription_id}.*", position
            )
            for message in messages:
                position = int((message.headers or {})["Nats-Sequence"]) + 1
                found.append(Retry(**orjson.loads(message.data)))
            if len(messages) < 500:
                return found


async def read_attempts(client: Client, subscription_id: str) -> list[dict[str, Any]]:
    """Give the tries of a subscription that are kept, the newest first. Raises TimeoutError."""
    messages = await read_batch(client, ATTEMPTS_STREAM, f"{ATTEMPTS_SUBJECT}.{subscription_id}", 1, 1000)
    return [orjson.loads(message.data) for message in reversed(messages)]


def _answer(answer: Answer) -> dict[str, Any]:
    headers = {name: value[:HEADER_MAX_CHARS] for name, value in list(answer.headers.items())[:HEADERS_MAX]}
    return {"status": answer.status, "headers": headers, "body": answer.body.decode(errors="replace")}
