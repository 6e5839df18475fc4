"""NATS from synchronous code, for rare requests of operators: each call opens a connection and closes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from asgiref.sync import async_to_sync
from django.conf import settings
from nats.errors import Error as NatsError

from gateway.link.client import NatsClient

T = TypeVar("T")

TIMEOUT_S = 2
"""For a whole call, from connecting to the answer."""


class Unavailable(ConnectionError):
    """NATS did not answer in time; whether anything was published or stored is unknown."""


def publish(subject: str, data: bytes) -> None:
    """Publish a message to the processes that subscribe now. Raises Unavailable."""
    query(lambda client: _publish(client, subject, data))


def store(subject: str, data: bytes, headers: Mapping[str, str]) -> None:
    """Store an event in the stream of its subject. Raises Unavailable when it could not be stored."""
    query(lambda client: client.jetstream(timeout=TIMEOUT_S).publish(subject, data, headers=dict(headers)))


def store_all(messages: Sequence[tuple[str, bytes, Mapping[str, str]]]) -> None:
    """Store events in order. Raises Unavailable when one could not be stored; those before it may be stored."""
    if messages:
        query(lambda client: _store_all(client, messages))


async def _store_all(client: NatsClient, messages: Sequence[tuple[str, bytes, Mapping[str, str]]]) -> None:
    js = client.jetstream(timeout=TIMEOUT_S)
    for subject, data, headers in messages:
        await js.publish(subject, data, headers=dict(headers))


def query(use: Callable[[NatsClient], Awaitable[T]]) -> T:
    """Return what a coroutine reads from NATS with a connected client. Raises Unavailable."""
    return async_to_sync(_query)(use)


async def _publish(client: NatsClient, subject: str, data: bytes) -> None:
    await client.publish(subject, data)
    await client.flush()


async def _query(use: Callable[[NatsClient], Awaitable[T]]) -> T:
    if not settings.NATS_URL:
        raise Unavailable("The URL of NATS is unknown: set NATS_URL, or DATA_DIR to that of a running `manage.py up`.")
    client = NatsClient()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await client.connect(settings.NATS_URL, connect_timeout=TIMEOUT_S, allow_reconnect=False)
            return await use(client)
    except (OSError, TimeoutError, NatsError) as error:
        raise Unavailable(f"NATS does not answer: {str(error) or type(error).__name__}.") from error
    finally:
        # Also after a failed attempt to connect, which leaves a socket open.
        await client.close()
