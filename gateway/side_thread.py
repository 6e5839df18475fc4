"""Work on large JSON runs on threads beside the event loop, which keeps serving: one text of a consumer at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from gateway.concurrency.turns import Turns
from gateway.refusals import Reason, Refused

T = TypeVar("T")

INLINE_MAX_BYTES = 64 * 1024
"""Work on this much takes a few milliseconds at worst, and is done at once."""
CHECKS_A_BYTE = 10
"""Checks by a schema that take as long, for each byte, as parsing it."""
THREADS = 2
WAITING_MAX, WAITING_EACH_MAX = 2000, 1000
"""Texts that may wait for a thread, in all and of one consumer; a connection has one at most."""


class SideThreads:
    """The threads of one process, and the queue for them. Consumers take turns."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="side thread")
        self._turns = Turns(each=1, in_all=THREADS)
        self._waiting: dict[str, int] = {}
        """By consumer: the work that waits or runs."""

    async def run(self, consumer: str, weight_bytes: int, work: Callable[..., T], *arguments: Any) -> T:
        """Return the result of work on a text of this size: at once if it is light, or else from a thread.

        The weight of work that takes longer than parsing is more than the size. Raises what the work raises, and
        Refused ``overloaded`` where too much waits.
        """
        if weight_bytes <= INLINE_MAX_BYTES:
            return work(*arguments)
        waiting = self._waiting.get(consumer, 0)
        if waiting >= WAITING_EACH_MAX or sum(self._waiting.values()) >= WAITING_MAX:
            raise Refused(
                Reason.OVERLOADED, "Too many large bodies wait to be parsed.", retry_after_s=1, cause="parsing-queue"
            )
        self._waiting[consumer] = waiting + 1
        try:
            async with self._turns.acquire(consumer):
                return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)
        finally:
            self._waiting[consumer] -= 1
            if not self._waiting[consumer]:
                del self._waiting[consumer]

    def stop(self) -> None:
        """Drop what waits, and let the threads end."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def weight_of(size: int, evaluations: int) -> int:
    """Return the weight of a text that is parsed, and checked by a schema of so many evaluations."""
    return size * max(1, evaluations // CHECKS_A_BYTE)
