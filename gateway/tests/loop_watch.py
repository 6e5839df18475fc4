"""Measures for how long an event loop is held, in processor time: other processes of the machine change nothing."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.concurrency.stopping import stop_tasks

TICK_S = 0.001


class LoopWatch:
    """Wakes up every millisecond, and notes how much the process computed since: in callbacks, and in threads that did
    not let the loop's thread run."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._last = 0.0

    def begin(self) -> None:
        """Forget what was measured."""
        self.longest_s, self._last = 0.0, time.process_time()

    async def run(self) -> None:
        """Measure until cancelled."""
        self.begin()
        while True:
            await asyncio.sleep(TICK_S)
            now = time.process_time()
            self.longest_s = max(self.longest_s, now - self._last)
            self._last = now


@asynccontextmanager
async def watched_loop() -> AsyncIterator[LoopWatch]:
    """Watch the running loop; as in the product, what was made before is left out of garbage collections."""
    gc.collect()
    gc.freeze()
    watch = LoopWatch()
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        await stop_tasks(task)
        gc.unfreeze()
