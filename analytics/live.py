"""What happens now, over all processes: usage batches as they pass by, summed once a second for every open page."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from typing import Any

import orjson
from django.conf import settings
from nats.aio.client import Client
from nats.aio.msg import Msg

from gateway.nats_link import USAGE_SUBJECT, connect

logger = logging.getLogger(__name__)

EVERY_S = 1.0
SECONDS_KEPT = 300
SILENT_AFTER_S = 12.0
"""A process that is not heard of for so long holds no open connections any more."""
PAGES_MAX = 100
WAITING_MAX = 10
TOP = 6
CLOSED_KEPT = 12


class Second:
    """Sums of what came in since the last tick."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.consumers: Counter[str] = Counter()
        self.targets: Counter[str] = Counter()
        self.bytes_in = 0
        self.bytes_out = 0
        self.latency_ms = 0.0
        self.answered = 0

    def add(self, tally: dict[str, Any]) -> None:
        """Add one tally of a batch."""
        messages = tally["messages_in"] + tally["messages_out"]
        self.calls[tally["protocol"]] += tally["calls"]
        self.messages[tally["protocol"]] += messages
        self.bytes_in += tally["bytes_in"]
        self.bytes_out += tally["bytes_out"]
        if tally["outcome"] not in ("ok", "abandoned"):
            self.refused[tally["outcome"]] += tally["calls"]
        weight = tally["calls"] + messages
        self.consumers[tally["consumer"] or "(nobody)"] += weight
        self.targets[tally["target"] or "(none)"] += weight
        if tally["latency_ms_sum"]:
            self.latency_ms += tally["latency_ms_sum"]
            self.answered += tally["calls"]


class Live:
    """One subscription a web process, shared by all pages that look."""

    def __init__(self) -> None:
        self._second = Second()
        self._open: dict[str, tuple[float, dict[str, int]]] = {}
        self._closed: deque[dict[str, Any]] = deque(maxlen=CLOSED_KEPT)
        self._kept: deque[dict[str, Any]] = deque(maxlen=SECONDS_KEPT)
        self._pages: set[asyncio.Queue[bytes]] = set()
        self._client: Client | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def watch(self) -> AsyncIterator[bytes]:
        """Give server-sent events: first the last minutes, then each second as it ends."""
        await self._start()
        if len(self._pages) >= PAGES_MAX:
            yield b"event: full\ndata: {}\n\n"
            return
        queue: asyncio.Queue[bytes] = asyncio.Queue(WAITING_MAX)
        self._pages.add(queue)
        try:
            yield b"retry: 2000\nevent: history\ndata: %b\n\n" % orjson.dumps(list(self._kept))
            while True:
                yield await queue.get()
        finally:
            self._pages.discard(queue)

    async def _start(self) -> None:
        if self._loop is asyncio.get_running_loop():
            return
        self._loop = asyncio.get_running_loop()
        self._client, _ = await connect(settings.NATS_URL, "dashboards")
        await self._client.subscribe(f"{USAGE_SUBJECT}.*", cb=self._take)
        self._ticking = asyncio.create_task(self._tick(), name="dashboards")

    async def _take(self, message: Msg) -> None:
        try:
            batch = orjson.loads(message.data)
            for tally in batch["tallies"]:
                self._second.add(tally)
            self._closed.extendleft(batch["closed"])
            opened = {entry["protocol"]: entry["count"] for entry in batch["open"]}
            self._open[batch["process"]] = (time.monotonic(), {} if batch.get("stopping") else opened)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            logger.warning("dashboards: a batch of usage could not be read")

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            said = self._say()
            self._kept.append({name: said[name] for name in ("at", "messages", "calls")})
            event = b"data: %b\n\n" % orjson.dumps(said)
            for queue in self._pages:
                if not queue.full():  # a page that does not read misses seconds, and costs no memory
                    queue.put_nowait(event)

    def _say(self) -> dict[str, Any]:
        second, self._second = self._second, Second()
        now = time.monotonic()
        self._open = {name: held for name, held in self._open.items() if now - held[0] < SILENT_AFTER_S}
        opened: Counter[str] = Counter()
        for _, counts in self._open.values():
            opened.update(counts)
        return {
            "at": round(time.time(), 3),
            "open": opened,
            "calls": second.calls,
            "messages": second.messages,
            "refused": second.refused,
            "bytes_in": second.bytes_in,
            "bytes_out": second.bytes_out,
            "latency_ms": round(second.latency_ms / second.answered, 2) if second.answered else None,
            "consumers": second.consumers.most_common(TOP),
            "targets": second.targets.most_common(TOP),
            "closed": list(self._closed),
        }


live = Live()
