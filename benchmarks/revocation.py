"""How long a revoked key's sockets live: 1,000 sockets of 100 keys over two processes, as their clients see it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import ours
from benchmarks.herd import Herd

CONSUMERS, KEYS_EACH = 20, 5
OF_EACH_KEY = ("stream",) * 6 + ("sse", "sse", "mqtt", "proxied")
REVOKED_AT_ONCE = 4
ENDED_WITHIN_S = 30.0


def measure() -> dict[str, float]:
    """Revoke all keys. Gives percentiles of the time from asking for it to the socket's end, in milliseconds."""
    with tempfile.TemporaryDirectory() as name, ours.product(Path(name), workers=2) as ready:
        return uvloop.run(_measure(ready))


async def _measure(ready: dict[str, Any]) -> dict[str, float]:
    keys = [key for number in range(CONSUMERS) for key in _keys(ready, f"herd-{number}")]
    await asyncio.sleep(1)
    herd = Herd(ready)
    asked_at: dict[str, float] = {}
    at_once = asyncio.Semaphore(REVOKED_AT_ONCE)

    async def revoke(key_id: str) -> None:
        async with at_once:
            asked_at[key_id] = time.monotonic()
            await asyncio.to_thread(ours.manage, ready, f"keys/{key_id}/revoke", {})

    try:
        members = await herd.open(keys, OF_EACH_KEY)
        await asyncio.gather(*(revoke(key_id) for key_id, _ in keys))
        async with asyncio.timeout(ENDED_WITHIN_S):
            ends = [await member.ended for member in members]
    finally:
        await herd.close()
    took = sorted((end.at - asked_at[member.key_id]) * 1000 for member, end in zip(members, ends, strict=True))
    return {"sockets": len(took), "p50_ms": took[len(took) // 2], "p99_ms": took[-len(took) // 100], "max_ms": took[-1]}


def _keys(ready: dict[str, Any], consumer: str) -> list[tuple[str, str]]:
    ours.manage(ready, "consumers/", {"name": consumer, "tier": "bench"})
    made = [ours.manage(ready, f"consumers/{consumer}/keys", {"scopes": ["*"]}) for _ in range(KEYS_EACH)]
    return [(key["id"], key["key"]) for key in made]


if __name__ == "__main__":
    measured = measure()
    print("{sockets} sockets closed: p50 {p50_ms:.0f} ms, p99 {p99_ms:.0f} ms, max {max_ms:.0f} ms".format(**measured))
