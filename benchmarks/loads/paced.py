"""HTTP requests at a fixed rate, whatever the server's speed: latency is measured from when each was due."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.loads.client import Client, connect, disconnect
from benchmarks.sampling import WrongAnswer

CONNECTIONS = 64
HEAD = b"HTTP/1.1 200 "
ANSWERED_WITHIN_S = 10.0


class Caller(Client):
    """One keep-alive connection with at most one request in flight."""

    def __init__(self, request: bytes, answer: bytes, idle: list[Caller], took_ms: list[float]) -> None:
        super().__init__([(request, answer)])
        self._request, self._answer, self._idle, self._took_ms = request, answer, idle, took_ms
        self._due_at, self._read = 0.0, b""

    def call(self, due_at: float) -> None:
        """Send the request that was due at this instant."""
        self._due_at = due_at
        self.transport.write(self._request)

    def received(self, data: bytes) -> None:
        """Complete the call once its whole answer is here."""
        self._read += data
        if not self._read.endswith(self._answer):
            return
        if not self._read.startswith(HEAD):
            self.failure = self._read[:80].decode(errors="replace")
        self._took_ms.append((time.perf_counter() - self._due_at) * 1000)
        self._read = b""
        self._idle.append(self)


async def run(port: int, path: str, key: str, answer: str, each_s: int, seconds: float) -> dict[str, float]:
    """Call so many times a second; every call must be answered with 200 and this body."""
    idle: list[Caller] = []
    took_ms: list[float] = []
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {key}\r\n\r\n".encode()
    callers: list[Any] = await connect(port, lambda: Caller(request, answer.encode(), idle, took_ms), CONNECTIONS)
    idle.extend(callers)
    began, sent = time.perf_counter(), 0
    due = int(each_s * seconds)
    while sent < due and (now := time.perf_counter()) - began < seconds + ANSWERED_WITHIN_S:
        while idle and sent < min(due, (now - began) * each_s):
            idle.pop().call(began + sent / each_s)
            sent += 1
        await asyncio.sleep(0.0005)
    ends_at = time.monotonic() + ANSWERED_WITHIN_S
    while len(took_ms) < sent and time.monotonic() < ends_at:
        await asyncio.sleep(0.001)
    failure = next((caller.failure for caller in callers if caller.failure), "")
    await disconnect(callers)
    if failure or len(took_ms) != due:
        raise WrongAnswer(failure or f"{len(took_ms)} of {due} calls were answered")
    took_ms.sort()
    return {"p50_ms": took_ms[len(took_ms) // 2], "p99_ms": took_ms[-(len(took_ms) // 100) - 1]}
