"""Fan-out: one publisher, many readers, and every event must reach each of them exactly once."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

from benchmarks.loads.client import Client, Counter, connect, disconnect
from benchmarks.loads.dialects import DIALECTS, MARK, MARK_DIGITS
from benchmarks.loads.meter import Meter
from benchmarks.sampling import WrongAnswer

IN_FLIGHT = 100
"""Events that the slowest reader may be behind."""
BATCH = 10
DELIVERED_WITHIN_S = 30.0
QUIET_S = 0.1
"""How long no reader may receive anything more."""
MARKED = re.compile(MARK + rb"(\d{%d})" % MARK_DIGITS)


class Timed(Counter):
    """Keeps when the last reader received each event."""

    def __init__(self, steps: Any, last_at: dict[int, float]) -> None:
        super().__init__(steps)
        self._last_at, self._cut = last_at, b""

    def received(self, data: bytes) -> None:
        """Count, and keep the time of each event; a mark that is cut counts when it is whole."""
        now, whole = time.perf_counter(), self._cut + data
        found = None
        for found in MARKED.finditer(whole):
            self.count += 1
            self._last_at[int(found[1])] = now
        rest = whole[found.end() :] if found else whole
        self._cut = rest[-(len(MARK) + MARK_DIGITS) + 1 :]


async def run(
    reader: list[Any], writer: list[Any], pids: list[int], stores: list[int], readers: int, seconds: float
) -> dict[str, float]:
    """Publish for so long, as fast as the slowest reader reads; the cost is by delivery."""
    reads, writes = (DIALECTS[name](*rest) for name, *rest in (reader, writer))
    counters = [
        one for one in await connect(reads.port, lambda: Counter(reads.reading), readers) if isinstance(one, Counter)
    ]
    [publisher] = await connect(writes.port, lambda: Client(writes.idle), 1)
    meter, ends_at, published = Meter(pids, stores), time.monotonic() + seconds, 0
    while time.monotonic() < ends_at:
        if published - min(counter.count for counter in counters) <= IN_FLIGHT - BATCH:
            publisher.transport.write(b"".join(writes.publish(published + number) for number in range(BATCH)))
            published += BATCH
        await asyncio.sleep(0.0005)
        _check([*counters, publisher])
    await _all_delivered(counters, published)
    measured = meter.sample(published * readers)
    await asyncio.sleep(QUIET_S)
    _exactly(counters, published)
    await disconnect([*counters, publisher])
    return measured


async def latency(reader: list[Any], writer: list[Any], readers: int, each_s: int, seconds: float) -> dict[str, float]:
    """Publish so many events a second; measure from the write to when the last reader has read the event."""
    reads, writes = (DIALECTS[name](*rest) for name, *rest in (reader, writer))
    last_at: dict[int, float] = {}
    sent_at: list[float] = []
    made = await connect(reads.port, lambda: Timed(reads.reading, last_at), readers)
    counters = [one for one in made if isinstance(one, Timed)]
    [publisher] = await connect(writes.port, lambda: Client(writes.idle), 1)
    began = time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        if now - began >= len(sent_at) / each_s:
            sent_at.append(time.perf_counter())
            publisher.transport.write(writes.publish(len(sent_at) - 1))
        await asyncio.sleep(0.001)
    await _all_delivered(counters, len(sent_at))
    _exactly(counters, len(sent_at))
    await disconnect([*counters, publisher])
    took = sorted((last_at[number] - at) * 1000 for number, at in enumerate(sent_at))
    return {"p50_ms": took[len(took) // 2], "p99_ms": took[-(len(took) // 100) - 1]}


async def _all_delivered(counters: list[Any], published: int) -> None:
    ends_at = time.monotonic() + DELIVERED_WITHIN_S
    while min(counter.count for counter in counters) < published:
        _check(counters)
        if time.monotonic() > ends_at:
            lost = sum(published - counter.count for counter in counters)
            raise WrongAnswer(f"{lost} of {published * len(counters)} deliveries are missing")
        await asyncio.sleep(0.001)


def _exactly(counters: list[Any], published: int) -> None:
    if many := [counter.count for counter in counters if counter.count != published]:
        raise WrongAnswer(f"{len(many)} readers received {many[0]} of {published} events")


def _check(clients: list[Any]) -> None:
    if failed := next((client.failure for client in clients if client.failure), ""):
        raise WrongAnswer(failed)
