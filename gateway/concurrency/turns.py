"""Limits concurrent work for each name and in total; waiting callers are served in order."""

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
    """At most ``each`` concurrent turns for one name and ``in_all`` in total, so no name can occupy them all."""

    def __init__(self, each: int, in_all: int) -> None:
        self._each = each
        self._all = asyncio.Semaphore(in_all)
        self._queues: dict[str, _Queue] = {}

    @asynccontextmanager
    async def acquire(self, name: str) -> AsyncIterator[None]:
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
