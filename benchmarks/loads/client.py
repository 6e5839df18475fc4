"""One connection of a load: opens itself step by step, and then counts what it receives."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import cast

from benchmarks.loads.dialects import MARK, Step

OPEN_WITHIN_S = 20.0
OPENING_AT_ONCE = 32
REFUSED = re.compile(rb"HTTP/1\.1 [45]")


class Client(asyncio.Protocol):
    """Goes through the steps of its dialect; ``received`` gets every byte after them."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = list(steps)
        self._buffer = b""
        self.transport: asyncio.Transport
        self.is_open = asyncio.get_running_loop().create_future()
        self.failure = ""
        """Why the connection has ended, once it has."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first step."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self.transport.write(self._steps[0][0])

    def data_received(self, data: bytes) -> None:
        """Complete steps until all are; then count."""
        if not self._steps:
            self.received(data)
            return
        self._buffer += data
        if REFUSED.match(self._buffer):
            self.transport.close()
        while self._steps and (at := self._buffer.find(self._steps[0][1])) >= 0:
            self._buffer = self._buffer[at + len(self._steps.pop(0)[1]) :]
            if self._steps:
                self.transport.write(self._steps[0][0])
        if not self._steps:
            self.is_open.set_result(None)
            if self._buffer:
                self.received(self._buffer)
                self._buffer = b""

    def received(self, data: bytes) -> None:
        """Take bytes that came after the opening."""

    def connection_lost(self, error: Exception | None) -> None:
        """Fail what waits for the opening."""
        self.failure = f"closed by the server: {error or self._buffer[:200]!r}"
        if not self.is_open.done():
            self.is_open.set_exception(ConnectionError(self.failure))


class Counter(Client):
    """Counts a mark, also one that is cut by reads."""

    def __init__(self, steps: Sequence[Step], mark: bytes = MARK) -> None:
        super().__init__(steps)
        self._mark, self._tail = mark, b""
        self.count = 0

    def received(self, data: bytes) -> None:
        """Count the marks."""
        whole = self._tail + data
        self.count += whole.count(self._mark)
        self._tail = whole[-len(self._mark) + 1 :]


async def connect(port: int, made: Callable[[], Client], count: int) -> list[Client]:
    """Open so many connections, a few at once. Raises ConnectionError and TimeoutError."""
    at_once = asyncio.Semaphore(OPENING_AT_ONCE)

    async def one() -> Client:
        async with at_once:
            _, client = await asyncio.get_running_loop().create_connection(made, "127.0.0.1", port)
            await client.is_open
            return client

    async with asyncio.timeout(OPEN_WITHIN_S):
        return list(await asyncio.gather(*(one() for _ in range(count))))


async def disconnect(clients: Sequence[Client]) -> None:
    """Close the connections."""
    for client in clients:
        client.transport.abort()
    await asyncio.sleep(0.05)
