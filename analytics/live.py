"""What happens now, over all processes: usage batches as they pass by, told once a second to every open page."""

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
"""A process that is not heard of for so long holds no open connections any more."""
PAGES_MAX = 100
WAITING_MAX = 10
PAGE_LASTS_S = 600.0
"""Then the browser asks again, and its session is looked at anew."""
CONNECT_TIMEOUT_S = 5.0
TOP = 30
CLOSED_KEPT = 12
BATCHES_REPLAYED_MAX = 5_000
PAGE_OF_REPLAY = 250


class Tick:
    """What has happened since the last word to the pages, counted whole."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self.consumers: Counter[str] = Counter()
        self.targets: Counter[str] = Counter()
        self.closed: deque[dict[str, Any]] = deque(maxlen=CLOSED_KEPT)

    def add(self, batch: dict[str, Any]) -> None:
        """Count a batch."""
        self.closed.extendleft(batch["closed"])
        for tally in batch["tallies"]:
            weight = tally["calls"] + tally["messages_in"] + tally["messages_out"]
            self.consumers[tally["consumer"]] += weight
            self.targets[tally["target"]] += weight
            if tally["outcome"] not in ("ok", "abandoned"):
                self.refused[tally["outcome"]] += tally["calls"]

    def said(self) -> dict[str, Any]:
        """Say it to a page."""
        return {
            "refused": self.refused,
            "consumers": dict(self.consumers.most_common(TOP)),
            "targets": dict(self.targets.most_common(TOP)),
            "closed": list(self.closed),
        }


class Live:
    """One subscription a web process, shared by all pages that look; made when the first one does."""

    def __init__(self) -> None:
        self._pages: set[asyncio.Queue[bytes]] = set()
        self._begun: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._client: Client | None = None
        self._forget()

    def _forget(self) -> None:
        self._seconds = Seconds(time.time() - SECONDS_KEPT)
        self._kept: deque[dict[str, Any]] = deque(maxlen=SECONDS_KEPT)
        self._tick = Tick()
        self._open: dict[str, tuple[float, dict[str, int]]] = {}
        self._heard: dict[str, int] = {}

    async def watch(self) -> AsyncIterator[bytes]:
        """Give server-sent events: first the last minutes, then what has happened, every second."""
        try:
            await self._begin()
        except (OSError, TimeoutError, NatsError) as error:
            logger.warning("dashboards: usage cannot be followed: %s", str(error) or type(error).__name__)
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
        """Let go of all pages, whose browsers ask again elsewhere, and disconnect."""
        for queue in self._pages:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(b"")
        await stop_tasks(*self._tasks)
        if self._client is not None:
            await self._client.close()
        self._begun, self._client, self._tasks = None, None, []

    async def _begin(self) -> None:
        """Subscribe, once a process; a failed try is tried again by the next page."""
        begun = self._begun
        if begun is None or begun.get_loop() is not asyncio.get_running_loop() or (begun.done() and begun.exception()):
            begun = self._begun = asyncio.create_task(self._subscribe(), name="dashboards: subscribe")
        await asyncio.shield(begun)

    async def _subscribe(self) -> None:
        self._forget()
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
        self._tell()  # what was replayed is history
        self._tasks = [
            asyncio.create_task(self._follow(batches), name="dashboards: follow"),
            asyncio.create_task(self._tick_on(), name="dashboards: tick"),
        ]

    async def _replay(self, client: Client) -> None:
        """Read what was said in the last minutes, so that the first page need not start empty."""
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
            if sequence <= self._heard.get(process, 0):
                return  # heard in the replay, or sent twice
            self._heard[process] = sequence
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
            event = b"data: %b\n\n" % orjson.dumps(self._tell())
            for queue in self._pages:
                if not queue.full():  # a page that does not read misses seconds, and costs no memory
                    queue.put_nowait(event)

    def _tell(self) -> dict[str, Any]:
        """Give what has happened since it was last told."""
        now = time.time()
        seconds = [second.said(at) for at, second in self._seconds.complete(now)]
        self._kept.extend(seconds)
        self._open = {name: held for name, held in self._open.items() if now - held[0] < SILENT_AFTER_S}
        self._heard = {name: last for name, last in self._heard.items() if name in self._open}
        opened: Counter[str] = Counter()
        for _, counts in self._open.values():
            opened.update(counts)
        tick, self._tick = self._tick, Tick()
        return {"at": now, "seconds": seconds, "open": opened, **tick.said()}


live = Live()
