"""Echo through a tunnel: each connection keeps so many messages in flight and counts what returns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from benchmarks.loads.client import Client, connect, disconnect
from benchmarks.loads.dialects import DIALECTS, Step, frame
from benchmarks.loads.meter import Meter
from benchmarks.sampling import WrongAnswer

CONNECTIONS = 50
MESSAGE = b'{"symbol":"ACME","price":104.2,"at":1795469806.4,"quantity":12}'
RETURNED = bytes([0x81, len(MESSAGE)]) + MESSAGE
SETTLE_S = 0.3


class Echo(Client):
    """One connection; a message that returns is sent again."""

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__(steps)
        self._sent = frame(MESSAGE)
        self._rest = b""
        self.count = 0
        self.is_wrong = False

    def received(self, data: bytes) -> None:
        """Check what returned, byte by byte, and send as many again."""
        data = self._rest + data if self._rest else data
        whole, cut = divmod(len(data), len(RETURNED))
        if data[: len(data) - cut] != RETURNED * whole:
            self.is_wrong = True
            return
        self._rest = data[len(data) - cut :]
        self.count += whole
        if whole:
            self.transport.write(self._sent * whole)


async def run(dialect: list[Any], pids: list[int], in_flight: int, seconds: float) -> dict[str, float]:
    """Echo for so long."""
    spoken = DIALECTS[dialect[0]](*dialect[1:])
    clients = [
        one for one in await connect(spoken.port, lambda: Echo(spoken.idle), CONNECTIONS) if isinstance(one, Echo)
    ]
    for client in clients:
        client.transport.write(frame(MESSAGE) * in_flight)
    await asyncio.sleep(SETTLE_S)
    before, meter = sum(client.count for client in clients), Meter(pids)
    await asyncio.sleep(seconds)
    returned = sum(client.count for client in clients) - before
    if wrong := [
        client.failure or "another message returned" for client in clients if client.is_wrong or client.failure
    ]:
        raise WrongAnswer(f"{len(wrong)} tunnels failed: {wrong[0]}")
    if idle := sum(not client.count for client in clients):
        raise WrongAnswer(f"{idle} tunnels returned nothing")
    measured = meter.sample(returned)
    await disconnect(clients)
    return measured
