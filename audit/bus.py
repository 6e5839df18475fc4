"""Telling the data plane something from synchronous code: rare words of operators, one connection each."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from asgiref.sync import async_to_sync
from django.conf import settings
from nats.aio.client import Client
from nats.errors import Error as NatsError

TIMEOUT_S = 2
"""In all, whatever was tried."""


class Away(ConnectionError):
    """NATS did not answer in time; nothing is known to have been said or stored."""


def publish(subject: str, data: bytes) -> None:
    """Say something to every process that listens now. Raises Away."""
    async_to_sync(_say)(subject, data, None)


def store(subject: str, data: bytes, headers: Mapping[str, str]) -> None:
    """Store an event in the stream of its subject. Raises Away when it could not be stored."""
    async_to_sync(_say)(subject, data, dict(headers))


async def _say(subject: str, data: bytes, stored_with: dict[str, str] | None) -> None:
    if not settings.NATS_URL:
        raise Away("NATS is not known here: set NATS_URL, or DATA_DIR of a running `manage.py up`.")
    client = Client()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await client.connect(settings.NATS_URL, connect_timeout=TIMEOUT_S, allow_reconnect=False)
            if stored_with is None:
                await client.publish(subject, data)
                await client.flush()
            else:
                await client.jetstream(timeout=TIMEOUT_S).publish(subject, data, headers=stored_with)
    except (OSError, TimeoutError, NatsError) as error:
        raise Away(f"NATS does not answer: {str(error) or type(error).__name__}.") from error
    finally:
        # Also where connecting was given up half-way, which leaves a socket open.
        await client.close()
