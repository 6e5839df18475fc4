"""Checks that each engine answers within half a second."""

from __future__ import annotations

import asyncio

import nats
import redis.asyncio as redis
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection

TIMEOUT_S = 0.5


async def check_database() -> None:
    """Raise if the database does not answer."""

    def ask() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.close()

    async with asyncio.timeout(TIMEOUT_S):
        await sync_to_async(ask)()


async def check_redis() -> None:
    """Raise if Redis does not answer."""
    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await client.ping()
    finally:
        await client.aclose()


async def check_nats() -> None:
    """Raise if NATS does not answer."""
    async with asyncio.timeout(TIMEOUT_S):
        client = await nats.connect(settings.NATS_URL, connect_timeout=1, allow_reconnect=False, error_cb=_ignore)
        try:
            await client.flush(timeout=1)
        finally:
            await client.close()


async def _ignore(error: Exception) -> None:
    """Ignore an error: the check itself reports that NATS is unavailable."""
