"""Telling the data plane something from synchronous code: rare words of operators, one connection each."""

from __future__ import annotations

from collections.abc import Mapping

import nats
from asgiref.sync import async_to_sync
from django.conf import settings

TIMEOUT_S = 2.0


def publish(subject: str, data: bytes) -> None:
    """Say something to every process that listens now. Raises OSError or a nats error when NATS is away."""
    async_to_sync(_publish)(subject, data)


def store(subject: str, data: bytes, headers: Mapping[str, str]) -> None:
    """Store an event in the stream of its subject. Raises when it could not be stored."""
    async_to_sync(_store)(subject, data, headers)


async def _publish(subject: str, data: bytes) -> None:
    client = await nats.connect(settings.NATS_URL, connect_timeout=TIMEOUT_S, allow_reconnect=False)
    try:
        await client.publish(subject, data)
        await client.flush(timeout=TIMEOUT_S)
    finally:
        await client.close()


async def _store(subject: str, data: bytes, headers: Mapping[str, str]) -> None:
    client = await nats.connect(settings.NATS_URL, connect_timeout=TIMEOUT_S, allow_reconnect=False)
    try:
        await client.jetstream(timeout=TIMEOUT_S).publish(subject, data, headers=dict(headers))
    finally:
        await client.close()
