"""The process that delivers webhooks and watches how far subscriptions have come: one of them at work at a time.

It reads no table: what to deliver is in the snapshot, how far in the log, and what it finds out is asked of the control
plane to be written down.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import socket
import time
from collections.abc import Callable
from typing import Any

import redis.asyncio as redis
from nats.aio.client import Client
from nats.js import JetStreamContext

from gateway.concurrency.stopping import stop_tasks
from gateway.config import Config
from gateway.connections.open import Connections
from gateway.delivery.client import Resolve, WebhookClient, resolved
from gateway.delivery.watch import Watch
from gateway.delivery.worker import FAULTS, Worker
from gateway.durable.attempts import Attempts
from gateway.durable.readers import Readers
from gateway.limiter import Limiter
from gateway.link.control_plane import request_control_plane
from gateway.link.leader import RENEW_S, LeaderElection
from gateway.link.nats import connect, ensure_infrastructure
from gateway.log.event_log import EventLog
from gateway.metering.usage import Usage
from gateway.snapshot.feed import SnapshotFeed
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.subscriptions import State, Subscription, Type, Why

logger = logging.getLogger(__name__)

ASK_AGAIN_S = 2.0


class Delivery:
    """Everything that the delivering process holds."""

    def __init__(self, config: Config, client: Client, js: JetStreamContext, resolve: Resolve = resolved) -> None:
        self.config = config
        self.nats = client
        self.js = js
        self.redis = redis.Redis.from_url(
            config.redis_url,
            socket_timeout=config.engine_timeout_s,
            socket_connect_timeout=config.engine_timeout_s,
            max_connections=8,
        )
        self.snapshot = Snapshot()
        self.limiter = Limiter(self.redis, owner=config.process, timeout_s=config.engine_timeout_s)
        self.usage = Usage(config, Connections(self.snapshot), js, limits=self.limiter.usage_records)
        self.log = EventLog(client, js)
        self.readers = Readers(client, js)
        self.attempts = Attempts(client, js)
        self.client = WebhookClient(config, resolve)
        self.workers: dict[str, Worker] = {}
        self._watch = Watch(self)
        self._feed = SnapshotFeed(client, self.snapshot)
        self._election = LeaderElection(js, "delivery", owner_of(config))
        self._changed = asyncio.Event()
        self._unsaid: dict[str, dict[str, Any]] = {}
        self._background: set[asyncio.Task[None]] = set()

    @classmethod
    async def start(cls, config: Config, resolve: Resolve = resolved) -> Delivery:
        """Connect to the engines, load the snapshot and begin. Raises when NATS cannot be reached."""
        client, js = await connect(config.nats_url, config.process)
        await ensure_infrastructure(js)
        delivery = cls(config, client, js, resolve)
        await delivery.log.start()
        await delivery.limiter.start()
        delivery.usage.start()
        delivery.snapshot.on_change(lambda kinds: delivery._changed.set())
        await delivery._feed.start()
        delivery._spawn(delivery._lead())
        delivery._spawn(delivery._tell())
        delivery._spawn(delivery._watch.run())
        return delivery

    async def stop(self) -> None:
        """Stop delivering, let another begin at once, disconnect. What was under way will be given again."""
        await stop_tasks(*self._background)
        await self._watch.stop()
        await self._stop_workers()
        with contextlib.suppress(*FAULTS):
            async with asyncio.timeout(1):
                await self._election.resign()
        await self._feed.stop()
        await self.client.close()
        await self.limiter.stop()
        await self.usage.stop()
        await self.log.stop()
        await self.redis.aclose()
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(2):
                await self.nats.close()

    @property
    def is_leading(self) -> bool:
        """This process is the one at work."""
        return self._election.is_leader

    def report_state(self, subscription: Subscription, state: State, reason: Why | str, note: str) -> None:
        """Have it written down how a subscription stands now; the newest word counts, and is repeated until heard."""
        said = {"id": subscription.id, "state": state.value, "reason": str(reason), "note": note[:300]}
        self._unsaid[subscription.id] = said
        self._changed.set()

    async def _lead(self) -> None:
        """Work while the lease is held."""
        renew_at = float("-inf")
        while True:
            try:
                if time.monotonic() >= renew_at:
                    renew_at = time.monotonic() + RENEW_S
                    await self._election.renew()
                if self._election.is_leader:
                    await self._follow()
                elif self.workers:
                    logger.warning("another process delivers now")
                    await self._stop_workers()
            except FAULTS as error:
                logger.warning("delivery: %s", str(error) or type(error).__name__)
            except Exception:
                logger.exception("delivery: following the snapshot failed; going on")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(renew_at - time.monotonic(), 0.01)):
                    await self._changed.wait()
            self._changed.clear()

    async def _follow(self) -> None:
        """Have a worker for each webhook, and tell each what has changed."""
        wanted = {one.id: one for one in self.snapshot.subscriptions() if one.type == Type.WEBHOOK}
        for id_, subscription in wanted.items():
            worker = self.workers.get(id_)
            if worker is None:
                self.workers[id_] = Worker(self, subscription)
            else:
                worker.follow(subscription)
        for id_ in [id_ for id_ in self.workers if id_ not in wanted]:
            await self.workers.pop(id_).stop()

    async def _stop_workers(self) -> None:
        workers, self.workers = list(self.workers.values()), {}
        await asyncio.gather(*(worker.stop() for worker in workers))

    async def _tell(self) -> None:
        """Tell the control plane what was found out, until it has heard."""
        while True:
            for id_, said in list(self._unsaid.items()):
                with contextlib.suppress(*FAULTS):
                    await request_control_plane(self.nats, "subscriptions.report_state", said)
                    if self._unsaid.get(id_) is said:
                        del self._unsaid[id_]
            await asyncio.sleep(ASK_AGAIN_S if self._unsaid else 0.1)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def owner_of(config: Config) -> str:
    """Name who holds the lease, the same in each run of one installation: a restart has it back at once."""
    named = f"{socket.gethostname()}\0{config.data_dir}"
    return hashlib.sha256(named.encode()).hexdigest()


async def run(config: Config, stop: asyncio.Event, serves: Callable[[], None]) -> None:
    """Deliver until told to stop."""
    delivery = await Delivery.start(config)
    serves()
    try:
        await stop.wait()
    finally:
        await delivery.stop()
