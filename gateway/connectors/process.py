"""The process that runs the connectors of the snapshot, one task each; of several processes, one is the leader."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict

import orjson
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from gateway.concurrency.stopping import stop_tasks
from gateway.config import Config
from gateway.connectors.running import CLOSE_TIMEOUT_S, FAULTS, FINISH_S, Running, durables
from gateway.link.leader import RENEW_S, LeaderElection, lease_owner
from gateway.link.nats import CONNECTORS_BUCKET
from gateway.plane import Plane
from gateway.snapshot.picture import Connector

logger = logging.getLogger(__name__)

RESIGN_S = 1.0
STOP_S = FINISH_S + CLOSE_TIMEOUT_S
"""The longest that a connector takes to finish a write and to disconnect."""


class Connectors:
    """All connectors that this process runs."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._election = LeaderElection(plane.js, "connectors", lease_owner(plane.config))
        self._running: dict[str, tuple[Running, asyncio.Task[None]]] = {}
        self._had_reader: set[str] = set()
        """Ids of sinks that have had a reader; an emptied NATS may remove them from the snapshot for a moment."""
        self._changed = asyncio.Event()
        plane.snapshot.on_change(self._refresh)

    async def run(self) -> None:
        """Run the connectors of the snapshot while this process is the leader, until cancelled."""
        try:
            while True:
                try:
                    await self._follow()
                except FAULTS as error:
                    logger.warning("connectors: %s", str(error) or type(error).__name__)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RENEW_S):
                        await self._changed.wait()
                self._changed.clear()
        finally:
            await self._stop(list(self._running))
            with contextlib.suppress(*FAULTS):
                async with asyncio.timeout(RESIGN_S):
                    await self._election.resign()

    async def _follow(self) -> None:
        if await self._election.renew():
            await self._reconcile()
            await self._publish_health()
        elif self._running:
            logger.warning("another process runs the connectors now")
            await self._stop(list(self._running))

    def _refresh(self, kinds: frozenset[str]) -> None:
        if kinds & {"connector", "channel"}:
            self._changed.set()

    async def _reconcile(self) -> None:
        present = {connector.id: connector for connector in self._plane.snapshot.connectors()}
        changed = [id_ for id_, (running, _) in self._running.items() if present.get(id_) != running.document]
        deleted = [self._running[id_][0].document for id_ in changed if id_ not in present]
        await self._stop(changed)
        for connector in deleted:
            await self._delete_readers(connector)
        await self._stop([id_ for id_, (_, task) in self._running.items() if task.done()])
        for id_, connector in present.items():
            if connector.is_active and id_ not in self._running:
                running = Running(self._plane, connector, had_reader=id_ in self._had_reader)
                task = asyncio.create_task(running.run(), name=f"connector {connector.name}")
                self._running[id_] = (running, task)

    async def _stop(self, ids: Iterable[str]) -> None:
        stopped = {id_: self._running.pop(id_) for id_ in ids}
        await stop_tasks(*[task for _, task in stopped.values()], repeat_s=STOP_S)
        self._had_reader.update(id_ for id_, (running, _) in stopped.items() if running.had_reader)

    async def _delete_readers(self, connector: Connector) -> None:
        """Delete the readers of a deleted sink."""
        for channel in self._plane.snapshot.channels():
            if channel.address == connector.channel:
                for name in durables(connector):
                    with contextlib.suppress(NotFoundError, NatsError, TimeoutError):
                        await self._plane.js.delete_consumer(channel.stream, name)

    async def _publish_health(self) -> None:
        """Publish the health of each connector for operators."""
        bucket = await self._plane.js.key_value(CONNECTORS_BUCKET)
        for id_, (running, _) in self._running.items():
            await bucket.put(id_, orjson.dumps(asdict(running.health)))


async def run(config: Config, stop: asyncio.Event, serves: Callable[[], None]) -> None:
    """Run connectors until ``stop`` is set; ``serves`` is called once the process is ready."""
    plane = await Plane.start(config, handlers={})
    connecting = asyncio.create_task(Connectors(plane).run(), name="connectors")
    serves()
    try:
        await stop.wait()
    finally:
        await stop_tasks(connecting, repeat_s=STOP_S + RESIGN_S)
        await plane.stop()
