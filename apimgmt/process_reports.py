"""Metrics of the processes without a data plane: the operators' pages, the worker and the scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from typing import Any

from nats.aio.client import Client
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

from gateway.link.metrics import FAULTS, Reporter
from gateway.link.nats import connect

logger = logging.getLogger(__name__)

RETRY_S = 1.0
DURATIONS_S = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800)


def own_registry() -> CollectorRegistry:
    """Return a registry with the figures of this process: CPU time, memory, open files."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


class ProcessReports(threading.Thread):
    """Reports a registry over NATS from a thread with an event loop of its own."""

    def __init__(self, process: str, nats_url: str, registry: CollectorRegistry) -> None:
        super().__init__(name="metrics", daemon=True)
        self._process = f"{process}-{secrets.token_hex(3)}"
        self._nats_url = nats_url
        self._registry = registry
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()

    def run(self) -> None:
        """Report until :meth:`stop`, or until the process ends."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._report())

    def stop(self) -> None:
        """Announce that the process ends, and wait for the thread."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self.join()

    async def _report(self) -> None:
        client = await self._connect()
        if client is None:
            return
        reporter = Reporter(client, self._process, self._registry)
        await reporter.start()
        await self._ended.wait()
        await reporter.stop()
        await client.close()

    async def _connect(self) -> Client | None:
        """Connect to NATS, trying again until it is there; return None if the process ends before."""
        while not self._ended.is_set():
            try:
                return (await connect(self._nats_url, self._process))[0]
            except FAULTS as error:
                logger.debug("metrics: NATS is unavailable: %s", type(error).__name__)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), RETRY_S)
        return None


class TaskMetrics:
    """Counts the tasks of a worker; its methods receive Celery's signals."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ended = Counter("apimgmt_tasks", "Tasks that ended.", ("task", "state"), registry=registry)
        self._durations = Histogram(
            "apimgmt_task_duration_seconds",
            "Time from start to end.",
            ("task",),
            buckets=DURATIONS_S,
            registry=registry,
        )
        self._started_at: dict[str, float] = {}

    def begins(self, task_id: str = "", **signal: Any) -> None:
        """Record that a task has started."""
        self._started_at[task_id] = time.monotonic()

    def ends(self, task_id: str = "", task: Any = None, state: str | None = None, **signal: Any) -> None:
        """Record that a task has ended."""
        started_at = self._started_at.pop(task_id, None)
        name = getattr(task, "name", "")
        self._ended.labels(name, (state or "unknown").lower()).inc()
        if started_at is not None:
            self._durations.labels(name).observe(time.monotonic() - started_at)
