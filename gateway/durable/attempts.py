"""Delivery attempts of webhooks: a log for inspection, and the state of events whose attempts have failed so far."""

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

from gateway.durable.readers import Delivery
from gateway.durable.webhook import WebhookResponse
from gateway.link.nats import (
    ATTEMPTS_STREAM,
    ATTEMPTS_SUBJECT,
    RETRIES_STREAM,
    RETRIES_SUBJECT,
    read_all,
    read_batch,
)
from gateway.log.event import rfc3339

SIGNATURE = "webhook-signature"
HEADERS_MAX, HEADER_MAX_CHARS = 50, 300


@dataclass(frozen=True, slots=True)
class Retry:
    """An event whose attempts have failed so far."""

    id: int
    key: str
    tries: int
    first_at: float
    next_at: float


def describe_attempt(
    delivery: Delivery,
    number: int,
    outcome: str,
    *,
    url: str,
    headers: dict[str, str],
    response: WebhookResponse | None,
    error: str | None,
    at: float,
    duration_s: float,
) -> dict[str, Any]:
    """Return one attempt as both APIs show it: the request without its signature, the response, and the duration."""
    return {
        "event": str(delivery.event.id),
        "channel": delivery.event.address,
        "attempt": number,
        "outcome": outcome,
        "at": rfc3339(datetime.fromtimestamp(at, UTC)),
        "duration_s": round(duration_s, 3),
        "request": {"method": "POST", "url": url, "headers": {**headers, SIGNATURE: "v1,…"}},
        "answer": None if response is None else _describe_response(response),
        "error": error,
    }


class Attempts:
    """Writes attempts and reads retries. Raises the errors of nats-py where the log is unavailable."""

    def __init__(self, client: Client, js: JetStreamContext) -> None:
        self._client = client
        self._js = js

    async def record(self, subscription_id: str, attempt: dict[str, Any]) -> None:
        """Store an attempt for inspection. Best effort: a failure to store it is ignored."""
        with contextlib.suppress(NatsError, APIError, TimeoutError, OSError):
            await self._client.publish(f"{ATTEMPTS_SUBJECT}.{subscription_id}", orjson.dumps(attempt))

    async def clear_records(self, subscription_id: str) -> None:
        """Delete the stored attempts of a subscription."""
        await self._js.purge_stream(ATTEMPTS_STREAM, subject=f"{ATTEMPTS_SUBJECT}.{subscription_id}")

    async def save_retry(self, subscription_id: str, retry: Retry) -> None:
        """Store how often an event was tried, so that a restarted process continues the count."""
        subject = f"{RETRIES_SUBJECT}.{subscription_id}.{retry.id}"
        await self._js.publish(subject, orjson.dumps(asdict(retry)))

    async def forget_retries(self, subscription_id: str, event_id: int | str = "*") -> None:
        """Delete the retry of an event, or of all events of a subscription."""
        await self._js.purge_stream(RETRIES_STREAM, subject=f"{RETRIES_SUBJECT}.{subscription_id}.{event_id}")

    async def retries(self, subscription_id: str) -> list[Retry]:
        """Return the events of a subscription whose attempts have failed so far."""
        messages = await read_all(self._client, RETRIES_STREAM, f"{RETRIES_SUBJECT}.{subscription_id}.*")
        return [Retry(**orjson.loads(message.data)) for message in messages]


async def read_attempts(client: Client, subscription_id: str) -> list[dict[str, Any]]:
    """Return the stored attempts of a subscription, newest first. Raises TimeoutError."""
    messages = await read_batch(client, ATTEMPTS_STREAM, f"{ATTEMPTS_SUBJECT}.{subscription_id}", 1, 1000)
    return [orjson.loads(message.data) for message in reversed(messages)]


def _describe_response(response: WebhookResponse) -> dict[str, Any]:
    headers = {name: value[:HEADER_MAX_CHARS] for name, value in list(response.headers.items())[:HEADERS_MAX]}
    return {"status": response.status, "headers": headers, "body": response.body.decode(errors="replace")}
