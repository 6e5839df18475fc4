"""Live figures of all processes: usage batches are summed as they arrive and sent to open pages every second."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from django.conf import settings
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from analytics.seconds import Seconds
from gateway.concurrency.stopping import stop_tasks
from gateway.link.nats import USAGE_STREAM, USAGE_SUBJECT, connect, read_batch

logger = logging.getLogger(__name__)

TICK_S = 1.0
SECONDS_KEPT = 300
SILENT_AFTER_S = 12.0
"""The open connections of a process that has sent no usage for so long are no longer counted."""
PAGES_MAX = 100
WAITING_MAX = 10
PAGE_LASTS_S = 600.0
"""Then the browser reconnects, and its session is checked again."""
CONNECT_TIMEOUT_S = 5.0
TOP = 30
CLOSED_KEPT = 12
BATCHES_REPLAYED_MAX = 5_000
PAGE_OF_REPLAY = 250


class Tick:
    """Counts since the last event that was sent to the pages."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self.consumers: Counter[str] = Counter()
        self.targets: Counter[str] = Counter()
        self.closed: deque[dict[str, Any]] = deque(maxlen=CLOSED_KEPT)

    def add(self, batch: dict[str, Any]) -> None:
        """Add a batch of usage."""
        self.closed.extendleft(batch["closed"])
        for tally in batch["tallies"]:
            weight = tally["calls"] + tally["messages_in"] + tally["messages_out"]
            self.consumers[tally["consumer"]] += weight
            self.targets[tally["target"]] += weight
            if tally["outcome"] not in ("ok", "abandoned"):
                self.refused[tally["outcome"]] += tally["calls"]

    def figures(self) -> dict[str, Any]:
        """Return the counts as the pages expect them."""
        return {
            "refused": self.refused,
            "consumers": dict(self.consumers.most_common(TOP)),
            "targets": dict(self.targets.most_common(TOP)),
            "closed": list(self.closed),
        }


class Live:
    """The usage subscription of a web process, shared by all open pages; created for the first of them."""

    def __init__(self) -> None:
        self._pages: set[asyncio.Queue[bytes]] = set()
        self._subscribing: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._client: Client | None = None
        self._reset()

    def _reset(self) -> None:
        self._seconds = Seconds(time.time() - SECONDS_KEPT)
        self._kept: deque[dict[str, Any]] = deque(maxlen=SECONDS_KEPT)
        self._tick = Tick()
        self._open: dict[str, tuple[float, dict[str, int]]] = {}
        self._last_sequences: dict[str, int] = {}

    async def watch(self) -> AsyncIterator[bytes]:
        """Yield server-sent events: first the last minutes, then an update every second."""
        try:
            await self._ensure_subscribed()
        except (OSError, TimeoutError, NatsError) as error:
            logger.warning("dashboards: cannot subscribe to usage: %s", str(error) or type(error).__name__)
            yield b"retry: 5000\nevent: away\ndata: {}\n\n"
            return
        if len(self._pages) >= PAGES_MAX:
            yield b"retry: 30000\nevent: full\ndata: {}\n\n"
            return
        queue: asyncio.Queue[bytes] = asyncio.Queue(WAITING_MAX)
        self._pages.add(queue)
        try:
            yield b"retry: 1000\nevent: history\ndata: %b\n\n" % orjson.dumps(list(self._kept))
            ends_at = time.monotonic() + PAGE_LASTS_S
            while time.monotonic() < ends_at:
                event = await queue.get()
                if not event:
                    return
                yield event
        finally:
            self._pages.discard(queue)

    async def stop(self) -> None:
        """End the streams of all pages, whose browsers reconnect to another process, and disconnect."""
        for queue in self._pages:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(b"")
        await stop_tasks(*self._tasks)
        if self._client is not None:
            await self._client.close()
        self._subscribing, self._client, self._tasks = None, None, []

    async def _ensure_subscribed(self) -> None:
        """Subscribe once; after a failure the next page tries again."""
        subscribing = self._subscribing
        is_usable = subscribing is not None and subscribing.get_loop() is asyncio.get_running_loop()
        if subscribing is None or not is_usable or (subscribing.done() and subscribing.exception()):
            subscribing = self._subscribing = asyncio.create_task(self._subscribe(), name="dashboards: subscribe")
        await asyncio.shield(subscribing)

    async def _subscribe(self) -> None:
        self._reset()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            client, _ = await connect(settings.NATS_URL, "dashboards")
        self._client = client
        try:
            batches: asyncio.Queue[bytes] = asyncio.Queue(BATCHES_REPLAYED_MAX)

            async def receive(message: Msg) -> None:
                if not batches.full():
                    batches.put_nowait(message.data)

            await client.subscribe(f"{USAGE_SUBJECT}.*", cb=receive)
            await self._replay(client)
        except BaseException:
            await client.close()
            raise
        self._take_figures()  # discards the counts of the replay
        self._tasks = [
            asyncio.create_task(self._follow(batches), name="dashboards: follow"),
            asyncio.create_task(self._tick_on(), name="dashboards: tick"),
        ]

    async def _replay(self, client: Client) -> None:
        """Read the usage of the last minutes, so that the first page has history to show."""
        first: int | datetime = datetime.now(UTC) - timedelta(seconds=SECONDS_KEPT)
        for _ in range(BATCHES_REPLAYED_MAX // PAGE_OF_REPLAY):
            messages = await read_batch(client, USAGE_STREAM, f"{USAGE_SUBJECT}.*", first, PAGE_OF_REPLAY)
            for message in messages:
                self._take(message.data, is_replay=True)
            if len(messages) < PAGE_OF_REPLAY:
                return
            first = int((messages[-1].headers or {})["Nats-Sequence"]) + 1

    async def _follow(self, batches: asyncio.Queue[bytes]) -> None:
        while True:
            self._take(await batches.get(), is_replay=False)

    def _take(self, data: bytes, *, is_replay: bool) -> None:
        try:
            batch = orjson.loads(data)
            process, sequence = batch["process"], batch["sequence"]
            if sequence <= self._last_sequences.get(process, 0):
                return  # part of the replay, or a duplicate
            self._last_sequences[process] = sequence
            self._seconds.add(batch, batch["at"] if is_replay else time.time())
            self._tick.add(batch)
            counts = {entry["protocol"]: entry["count"] for entry in batch["open"]}
            if batch.get("stopping"):
                self._open.pop(process, None)
            else:
                self._open[process] = (batch["at"] if is_replay else time.time(), counts)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            logger.warning("dashboards: a batch of usage could not be read")

    async def _tick_on(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            event = b"data: %b\n\n" % orjson.dumps(self._take_figures())
            for queue in self._pages:
                if not queue.full():  # a page that does not read skips seconds and costs no memory
                    queue.put_nowait(event)

    def _take_figures(self) -> dict[str, Any]:
        """Return the figures since the previous call, and reset the counts."""
        now = time.time()
        seconds = [second.figures(at) for at, second in self._seconds.complete(now)]
        self._kept.extend(seconds)
        self._open = {name: counted for name, counted in self._open.items() if now - counted[0] < SILENT_AFTER_S}
        self._last_sequences = {name: last for name, last in self._last_sequences.items() if name in self._open}
        opened: Counter[str] = Counter()
        for _, counts in self._open.values():
            opened.update(counts)
        tick, self._tick = self._tick, Tick()
        return {"at": now, "seconds": seconds, "open": opened, **tick.figures()}


live = Live()
