"""WebSocket handshakes: connections are opened, answered and closed, a few at once."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.loads.client import Client
from benchmarks.loads.dialects import DIALECTS, frame
from benchmarks.loads.meter import Meter

AT_ONCE = 32
CLOSE = frame(b"\x03\xe8", opcode=8)
CLOSED_WITHIN_S = 10.0


class Handshake(Client):
    """One connection; it is done once the server has answered our close."""

    def __init__(self, steps: Any) -> None:
        super().__init__(steps)
        self.is_closed = asyncio.get_running_loop().create_future()

    def received(self, data: bytes) -> None:
        """Disconnect at the server's close frame; what it says before is not ours to judge."""
        if b"\x88\x02\x03\xe8" in data:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Be closed."""
        super().connection_lost(error)
        if not self.is_closed.done():
            self.is_closed.set_result(None)


async def run(dialect: list[Any], pids: list[int], seconds: float) -> dict[str, float]:
    """Open and close connections for so long. Raises where one is refused or not closed."""
    spoken = DIALECTS[dialect[0]](*dialect[1:])
    loop, done = asyncio.get_running_loop(), 0
    meter, ends_at = Meter(pids), time.monotonic() + seconds

    async def caller() -> None:
        nonlocal done
        while time.monotonic() < ends_at:
            async with asyncio.timeout(CLOSED_WITHIN_S):
                _, client = await loop.create_connection(lambda: Handshake(spoken.idle), "127.0.0.1", spoken.port)
                await client.is_open
                client.transport.write(CLOSE)
                await client.is_closed
            done += 1

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return meter.sample(done)
