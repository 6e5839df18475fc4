"""Telling the data plane something from synchronous code: rare words of operators, one connection each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from asgiref.sync import async_to_sync
from django.conf import settings
from nats.aio.client import Client
from nats.errors import Error as NatsError

T = TypeVar("T")

TIMEOUT_S = 2
"""In all, whatever was tried."""


class Away(ConnectionError):
    """NATS did not answer in time; nothing is known to have been said or stored."""


def publish(subject: str, data: bytes) -> None:
    """Say something to every process that listens now. Raises Away."""
    asked(lambda client: _publish(client, subject, data))


def store(subject: str, data: bytes, headers: Mapping[str, str]) -> None:
    """Store an event in the stream of its subject. Raises Away when it could not be stored."""
    asked(lambda client: client.jetstream(timeout=TIMEOUT_S).publish(subject, data, headers=dict(headers)))


def store_all(messages: Sequence[tuple[str, bytes, Mapping[str, str]]]) -> None:
    """Store events, in their order. Raises Away where one could not be stored: those before it may be."""
    if messages:
        asked(lambda client: _store_all(client, messages))


async def _store_all(client: Client, messages: Sequence[tuple[str, bytes, Mapping[str, str]]]) -> None:
    js = client.jetstream(timeout=TIMEOUT_S)
    for subject, data, headers in messages:
        await js.publish(subject, data, headers=dict(headers))


def asked(question: Callable[[Client], Awaitable[T]]) -> T:
    """Give what NATS answers to a question, over a connection of its own. Raises Away."""
    return async_to_sync(_asked)(question)


async def _publish(client: Client, subject: str, data: bytes) -> None:
    await client.publish(subject, data)
    await client.flush()


async def _asked(question: Callable[[Client], Awaitable[T]]) -> T:
    if not settings.NATS_URL:
        raise Away("NATS is not known here: set NATS_URL, or DATA_DIR of a running `manage.py up`.")
    client = Client()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await client.connect(settings.NATS_URL, connect_timeout=TIMEOUT_S, allow_reconnect=False)
            return await question(client)
    except (OSError, TimeoutError, NatsError) as error:
        raise Away(f"NATS does not answer: {str(error) or type(error).__name__}.") from error
    finally:
        # Also where connecting was given up half-way, which leaves a socket open.
        await client.close()
