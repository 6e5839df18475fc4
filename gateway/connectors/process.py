"""The process that runs connectors, one task for each that the snapshot names; of several processes one is at work."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

import orjson
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from gateway.concurrency.stopping import stop_tasks
from gateway.config import Config
from gateway.connectors.running import CLOSE_TIMEOUT_S, FAULTS, FINISH_S, Running, durables
from gateway.link.leader import RENEW_S, LeaderElection, lease_owner
from gateway.link.nats import CONNECTORS_BUCKET

if TYPE_CHECKING:
    from gateway.plane import Plane
    from gateway.snapshot.picture import Connector

logger = logging.getLogger(__name__)

GIVE_BACK_S = 1.0
STOP_S = FINISH_S + CLOSE_TIMEOUT_S
"""The longest that a connector takes to finish a write and to disconnect."""


class Connectors:
    """All connectors that this process runs."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._election = LeaderElection(plane.js, "connectors", lease_owner(plane.config))
        self._running: dict[str, tuple[Running, asyncio.Task[None]]] = {}
        self._placed: set[str] = set()
        """Those that have had a place in their channel; an emptied NATS may have them vanish for a moment."""
        self._changed = asyncio.Event()
        plane.snapshot.on_change(self._refresh)

    async def run(self) -> None:
        """Run what the snapshot says while the lease is held; until cancelled."""
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
                async with asyncio.timeout(GIVE_BACK_S):
                    await self._election.resign()

    async def _follow(self) -> None:
        if await self._election.renew():
            await self._reconcile()
            await self._tell()
        elif self._running:
            logger.warning("another process runs the connectors now")
            await self._stop(list(self._running))

    def _refresh(self, kinds: frozenset[str]) -> None:
        if kinds & {"connector", "channel"}:
            self._changed.set()

    async def _reconcile(self) -> None:
        known = {connector.id: connector for connector in self._plane.snapshot.connectors()}
        changed = [id_ for id_, (running, _) in self._running.items() if known.get(id_) != running.document]
        deleted = [self._running[id_][0].document for id_ in changed if id_ not in known]
        await self._stop(changed)
        for connector in deleted:
            await self._forget(connector)
        await self._stop([id_ for id_, (_, task) in self._running.items() if task.done()])
        for id_, connector in known.items():
            if connector.is_active and id_ not in self._running:
                running = Running(self._plane, connector, had_a_reader=id_ in self._placed)
                task = asyncio.create_task(running.run(), name=f"connector {connector.name}")
                self._running[id_] = (running, task)

    async def _stop(self, ids: Iterable[str]) -> None:
        stopped = {id_: self._running.pop(id_) for id_ in ids}
        await stop_tasks(*[task for _, task in stopped.values()], repeat_s=STOP_S)
        self._placed.update(id_ for id_, (running, _) in stopped.items() if running.had_a_reader)

    async def _forget(self, connector: Connector) -> None:
        """Let go of a deleted sink's place in its channel."""
        for channel in self._plane.snapshot.channels():
            if channel.address == connector.channel:
                for name in durables(connector):
                    with contextlib.suppress(NotFoundError, NatsError, TimeoutError):
                        await self._plane.js.delete_consumer(channel.stream, name)

    async def _tell(self) -> None:
        """Say how each does, for operators to see."""
        bucket = await self._plane.js.key_value(CONNECTORS_BUCKET)
        for id_, (running, _) in self._running.items():
            await bucket.put(id_, orjson.dumps(asdict(running.health)))


async def run(config: Config, stop: asyncio.Event, serves: Callable[[], None]) -> None:
    """Run connectors until told to stop."""
    from gateway.plane import Plane

    plane = await Plane.start(config, handlers={})
    connecting = asyncio.create_task(Connectors(plane).run(), name="connectors")
    serves()
    try:
        await stop.wait()
    finally:
        await stop_tasks(connecting, repeat_s=STOP_S + GIVE_BACK_S)
        await plane.stop()
