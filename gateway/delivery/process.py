"""The process that delivers webhooks and watches the lag of subscriptions; of several processes, one is the leader.

It reads no table. What to deliver is in the snapshot, and positions are in the log. Changes of state are reported to
the control plane, which stores them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

import redis.asyncio as redis
from nats.js import JetStreamContext

from gateway.concurrency.stopping import stop_tasks
from gateway.config import Config
from gateway.connections.open import Connections
from gateway.delivery.client import Resolve, WebhookClient
from gateway.delivery.desk import FAULTS, Desk, StateReports
from gateway.delivery.watch import Watch
from gateway.delivery.worker import Worker
from gateway.durable.attempts import Attempts
from gateway.durable.readers import Readers
from gateway.durable.withheld import Withheld
from gateway.limiter import Limiter
from gateway.link.client import NatsClient
from gateway.link.control_plane import request_control_plane
from gateway.link.leader import RENEW_S, LeaderElection, lease_owner
from gateway.link.metrics import Reporter
from gateway.link.nats import connect, ensure_infrastructure
from gateway.log.event_log import EventLog
from gateway.metering.usage import Usage
from gateway.snapshot.feed import SnapshotFeed
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.subscriptions import Type

logger = logging.getLogger(__name__)

REPORT_RETRY_S, REPORT_CHECK_S = 2.0, 0.1
LEASE_RETURN_S = 1.0
DISCONNECT_S = 2.0


class DeliveryProcess:
    """One worker for each webhook subscription while this process is the leader."""

    def __init__(
        self, config: Config, client: NatsClient, js: JetStreamContext, resolve: Resolve | None = None
    ) -> None:
        self.nats = client
        self._redis = redis.Redis.from_url(
            config.redis_url,
            socket_timeout=config.engine_timeout_s,
            socket_connect_timeout=config.engine_timeout_s,
            max_connections=8,
        )
        self.snapshot = Snapshot()
        self._changed = asyncio.Event()
        limiter = Limiter(self._redis, owner=config.process, timeout_s=config.engine_timeout_s)
        self.desk = Desk(
            config=config,
            nats=client,
            js=js,
            snapshot=self.snapshot,
            limiter=limiter,
            usage=Usage(
                config,
                Connections(self.snapshot),
                self.snapshot,
                js,
                limits=limiter.usage_records,
                max_payload=lambda: client.max_payload,
            ),
            log=EventLog(client, js),
            readers=Readers(client, js),
            attempts=Attempts(client, js),
            withheld=Withheld(client, js),
            client=WebhookClient(config, resolve),
            reports=StateReports(self._changed.set),
        )
        self._reporter = Reporter(client, config.process, self.desk.usage.metrics.registry)
        self.workers: dict[str, Worker] = {}
        self._watch = Watch(self.desk, self.workers)
        self._feed = SnapshotFeed(client, self.snapshot)
        self._election = LeaderElection(js, "delivery", lease_owner(config))
        self._background: set[asyncio.Task[None]] = set()

    @classmethod
    async def start(cls, config: Config, resolve: Resolve | None = None) -> DeliveryProcess:
        """Connect to the engines, load the snapshot and start delivering. Raises when NATS cannot be reached."""
        client, js = await connect(config.nats_url, config.process)
        await ensure_infrastructure(js)
        process = cls(config, client, js, resolve)
        await process.desk.log.start()
        await process.desk.limiter.start()
        process.desk.usage.start()
        await process._reporter.start()
        process.snapshot.on_change(lambda kinds: process._changed.set())
        await process._feed.start()
        process._spawn(process._lead())
        process._spawn(process._send_reports())
        process._spawn(process._watch_lag())
        return process

    async def stop(self) -> None:
        """Stop delivering, return the lease, and disconnect. Unacknowledged events will be redelivered."""
        await stop_tasks(*self._background)
        await self._watch.stop()
        await self._stop_workers()
        with contextlib.suppress(*FAULTS):
            async with asyncio.timeout(LEASE_RETURN_S):
                await self._election.resign()
        await self._feed.stop()
        await self.desk.client.close()
        await self.desk.limiter.stop()
        await self.desk.usage.stop()
        await self._reporter.stop()
        await self.desk.log.stop()
        await self._redis.aclose()
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(DISCONNECT_S):
                await self.nats.close()

    @property
    def is_leading(self) -> bool:
        """Return whether this process is the leader."""
        return self._election.is_leader

    async def _lead(self) -> None:
        """Renew the lease, and run workers while it is held."""
        renew_at = float("-inf")
        while True:
            try:
                if time.monotonic() >= renew_at:
                    renew_at = time.monotonic() + RENEW_S
                    await self._election.renew()
                if self._election.is_leader:
                    await self._assign_workers()
                elif self.workers:
                    logger.warning("another process delivers now")
                    await self._stop_workers()
            except FAULTS as error:
                logger.warning("delivery: %s", str(error) or type(error).__name__)
            except Exception:
                logger.exception("delivery: assigning workers failed; it is tried again")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(renew_at - time.monotonic(), 0.01)):
                    await self._changed.wait()
            self._changed.clear()

    async def _assign_workers(self) -> None:
        """Start a worker for each new webhook, update the others, and stop those whose subscription is gone."""
        webhooks = {one.id: one for one in self.snapshot.subscriptions() if one.type == Type.WEBHOOK}
        for id_, subscription in webhooks.items():
            worker = self.workers.get(id_)
            if worker is None:
                self.workers[id_] = Worker(self.desk, subscription)
            else:
                worker.update(subscription)
        for id_ in [id_ for id_ in self.workers if id_ not in webhooks]:
            await self.workers.pop(id_).stop()

    async def _stop_workers(self) -> None:
        workers = list(self.workers.values())
        self.workers.clear()
        await asyncio.gather(*(worker.stop() for worker in workers))

    async def _send_reports(self) -> None:
        """Send state changes to the control plane until it confirms them."""
        reports = self.desk.reports
        while True:
            for report in reports:
                with contextlib.suppress(*FAULTS):
                    await request_control_plane(self.nats, "subscriptions.report_state", report)
                    reports.confirm(report)
            await asyncio.sleep(REPORT_RETRY_S if reports else REPORT_CHECK_S)

    async def _watch_lag(self) -> None:
        await self._watch.run(lambda: self.is_leading)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


async def run(config: Config, stop: asyncio.Event, serves: Callable[[], None]) -> None:
    """Deliver until ``stop`` is set; ``serves`` is called once the process is ready."""
    process = await DeliveryProcess.start(config)
    serves()
    try:
        await stop.wait()
    finally:
        await process.stop()
