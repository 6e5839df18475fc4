"""Publishes on a few connections, with a bounded number of events that are not acknowledged yet."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.loads.client import Counter, connect, disconnect
from benchmarks.loads.dialects import DIALECTS, PUBACK_BYTES, Dialect
from benchmarks.loads.meter import Meter
from benchmarks.sampling import WrongAnswer

CONNECTIONS, IN_FLIGHT, BATCH = 8, 32, 8
ACKNOWLEDGED_WITHIN_S = 20.0


class Publisher(Counter):
    """One connection; each acknowledgement lets the next event go."""

    def __init__(self, spoken: Dialect) -> None:
        super().__init__(spoken.idle, spoken.acknowledged)
        self._spoken, self._bytes = spoken, 0
        self.published, self.is_over = 0, False

    def begin(self) -> None:
        """Send what may be in flight."""
        self._publish(IN_FLIGHT)

    def received(self, data: bytes) -> None:
        """Count acknowledgements and publish as many more."""
        if self._spoken.acknowledged:
            super().received(data)
        else:
            self._bytes += len(data)
            self.count = self._bytes // PUBACK_BYTES
        room = IN_FLIGHT - (self.published - self.count)
        if room >= BATCH and not self.is_over:
            self._publish(room)

    def _publish(self, events: int) -> None:
        first = self.published
        self.published += events
        self.transport.write(b"".join(self._spoken.publish(first + number) for number in range(events)))


async def run(dialect: list[Any], pids: list[int], stores: list[int], seconds: float) -> dict[str, float]:
    """Publish for so long; every event must be acknowledged exactly once."""
    spoken = DIALECTS[dialect[0]](*dialect[1:])
    made = await connect(spoken.port, lambda: Publisher(spoken), CONNECTIONS)
    publishers = [one for one in made if isinstance(one, Publisher)]
    meter = Meter(pids, stores)
    for publisher in publishers:
        publisher.begin()
    await asyncio.sleep(seconds)
    for publisher in publishers:
        publisher.is_over = True
    ends_at = time.monotonic() + ACKNOWLEDGED_WITHIN_S
    while any(one.count < one.published for one in publishers) and time.monotonic() < ends_at:
        await asyncio.sleep(0.001)
    measured = meter.sample(sum(one.published for one in publishers))
    for one in publishers:
        if one.failure or one.count != one.published:
            raise WrongAnswer(one.failure or f"{one.count} of {one.published} events were acknowledged")
    await disconnect(publishers)
    return measured
