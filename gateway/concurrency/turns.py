"""Turns: how much of one thing may go on at once, for each reader and for all; who waits is served in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class _Queue:
    turn: asyncio.Semaphore
    users: int = 0


class Turns:
    """At most ``each`` at once by one name, and ``in_all`` by all: one name cannot take every turn."""

    def __init__(self, each: int, in_all: int) -> None:
        self._each = each
        self._all = asyncio.Semaphore(in_all)
        self._queues: dict[str, _Queue] = {}

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """Wait for a turn, and hold it for the block."""
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = _Queue(asyncio.Semaphore(self._each))
        queue.users += 1
        try:
            async with queue.turn, self._all:
                yield
        finally:
            queue.users -= 1
            if not queue.users:
                del self._queues[name]
