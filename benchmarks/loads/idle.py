"""Opens idle connections and keeps them, so that the memory of each further one is not that of a closed one."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from benchmarks.loads.client import Client, connect
from benchmarks.loads.dialects import DIALECTS
from benchmarks.processes import rss_kib
from benchmarks.sampling import WrongAnswer

SETTLE_S = 0.5


async def run(dialect: list[Any], pids: list[int], connections: int) -> None:
    """Open so many more connections for each line that is read; print the memory that one of them took."""
    spoken = DIALECTS[dialect[0]](*dialect[1:])
    opened: list[Client] = []
    while await asyncio.to_thread(sys.stdin.readline):
        before = rss_kib(pids)
        opened += await connect(spoken.port, lambda: Client(spoken.idle), connections)
        await asyncio.sleep(SETTLE_S)
        if failed := next((client.failure for client in opened if client.failure), ""):
            raise WrongAnswer(failed)
        print(json.dumps({"kib": (rss_kib(pids) - before) / connections}), flush=True)
