"""Counts what the event loop's thread does for one unit of work; clients and upstreams run in other threads."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any, NamedTuple

WRITES = frozenset({"send", "sendmsg", "sendto"})
KINDS = {
    asyncio.BaseEventLoop.create_task.__code__: "tasks",
    asyncio.BaseEventLoop.create_future.__code__: "futures",
    asyncio.BaseEventLoop.call_at.__code__: "timers",
}


class Counts(NamedTuple):
    """What one unit of work takes, or may take at most."""

    calls: float
    """Calls of functions, in Python and C."""
    blocks: float
    """Blocks of memory beyond those that lived before, at most, seen at each write to a socket."""
    kept: float
    """Blocks of memory that are still there afterwards."""
    tasks: float = 0
    futures: float = 0
    timers: float = 0
    writes: float = 0
    """Writes to sockets."""
    collections: float = 0
    """Runs of the garbage collector."""

    def beyond(self, bound: Counts) -> list[str]:
        """Return what grew beyond its bound, from what to what."""
        pairs = zip(self._fields, bound, self, strict=True)
        return [f"{name} grew from {most:g} to {count:g}" for name, most, count in pairs if count > most]


async def count(work: Callable[[], Awaitable[Any]], units: int) -> Counts:
    """Run ``work`` twice, to fill caches and then to count; it does so many units of work each time.

    Counts are rounded to a tenth of a unit: a timer that fires meanwhile, by the clock, is left out.
    """
    await work()
    counter = _Counter()
    gc.collect()
    gc.callbacks.append(counter.collected)
    counter.before = before = sys.getallocatedblocks()
    sys.setprofile(counter)
    try:
        await work()
    finally:
        sys.setprofile(None)
        gc.callbacks.remove(counter.collected)
    gc.collect()
    kept = sys.getallocatedblocks() - before
    found = {name: round(counter.found[name] / units, 1) for name in Counts._fields if name not in ("blocks", "kept")}
    return Counts(blocks=counter.most, kept=round(kept / units, 1), **found)


class _Counter:
    """A profiler of one thread, and a listener to the collector."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self.most = 0
        self.before = 0
        self._thread = threading.get_ident()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Count one event of ``sys.setprofile``."""
        if event == "call":
            self.found["calls"] += 1
            if kind := KINDS.get(frame.f_code):
                self.found[kind] += 1
        elif event == "c_call":
            self.found["calls"] += 1
            if argument.__name__ in WRITES and isinstance(getattr(argument, "__self__", None), socket.socket):
                self.found["writes"] += 1
                self.most = max(self.most, sys.getallocatedblocks() - self.before)

    def collected(self, phase: str, info: dict[str, int]) -> None:
        """Count one collection of the event loop's thread."""
        self.found["collections"] += phase == "start" and threading.get_ident() == self._thread
