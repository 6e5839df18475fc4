"""Watches the lag of subscriptions: publishes their health, sends lag alerts, and removes what was deleted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from gateway.concurrency.stopping import stop_tasks
from gateway.delivery import lag_alert
from gateway.delivery.client import SendFailed
from gateway.delivery.desk import FAULTS, Desk
from gateway.delivery.lag_alert import Alert
from gateway.delivery.worker import Worker
from gateway.durable import webhook
from gateway.durable.health import HEALTH_PREFIX, HEALTH_STREAM, UNMEASURED, instant, measure, read_healths
from gateway.durable.standing import secrets_now, standing
from gateway.durable.webhook import Verdict
from gateway.link.nats import HEALTH_BUCKET
from gateway.snapshot.subscriptions import ID_PREFIX, Subscription, ack_wait_s

logger = logging.getLogger(__name__)

CHECK_S, CHECK_EACH_S = 1.0, 0.01
"""The interval between two checks of all subscriptions: the first, or the second times their number if longer."""
SWEEP_S = 60.0
"""The interval between two sweeps, and from becoming the leader to the first one."""


class Watch:
    """The lag, health and alerts of every subscription, as the leader sees them."""

    def __init__(self, desk: Desk, workers: Mapping[str, Worker]) -> None:
        self._desk = desk
        self._workers = workers
        self._published: dict[str, dict[str, Any]] = {}
        self._streams: dict[str, set[str]] = {}
        self._alerts: dict[str, Alert] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}

    async def run(self, is_leading: Callable[[], bool]) -> None:
        """Check all subscriptions at intervals while this process is the leader; runs until cancelled."""
        was_leading, sweep_at = False, 0.0
        while True:
            await asyncio.sleep(max(CHECK_S, CHECK_EACH_S * len(self._streams)))
            if not is_leading():
                was_leading = False
                continue
            try:
                if not was_leading:
                    self._published = await read_healths(self._desk.nats)
                    was_leading, sweep_at = True, time.monotonic() + SWEEP_S
                await self._check()
                if time.monotonic() >= sweep_at:
                    sweep_at = time.monotonic() + SWEEP_S
                    await self._sweep()
            except FAULTS as error:
                logger.warning("watching subscriptions: %s", str(error) or type(error).__name__)
            except Exception:
                logger.exception("watching subscriptions failed; it is tried again")

    async def stop(self) -> None:
        """Stop sending alerts."""
        await stop_tasks(*self._sending.values())

    async def _check(self) -> None:
        present = list(self._desk.snapshot.subscriptions())
        for subscription in present:
            health = await self._health(subscription)
            if health != self._published.get(subscription.id):
                bucket = await self._desk.js.key_value(HEALTH_BUCKET)
                await bucket.put(subscription.id, orjson.dumps(health))
                self._published[subscription.id] = health
            if subscription.alert_url:
                self._alert(subscription, health)
        for id_ in self._streams.keys() - {one.id for one in present}:
            for stream in self._streams.pop(id_):
                await self.clear_away(id_, stream)

    async def _health(self, subscription: Subscription) -> dict[str, Any]:
        """Return the health document of a subscription. Raises one of ``FAULTS`` where an engine is unavailable."""
        desk, worker, now = self._desk, self._workers.get(subscription.id), time.time()
        status = worker.standing(now) if worker is not None else standing(desk.snapshot, subscription, now)
        last_error = self._published.get(subscription.id, {}).get("last_error")
        if worker is not None and worker.last_error is not None:
            last_error = {**worker.last_error, "at": instant(worker.last_error["at"])}
        health = {"state": status.state.value, "state_reason": status.reason or None, "last_error": last_error}
        channel = await desk.readers.channel_of(desk.snapshot, subscription)
        if channel is None:
            return health | UNMEASURED
        self._streams.setdefault(subscription.id, set()).add(channel.stream)
        try:
            return health | await measure(desk.log, desk.readers, subscription, channel)
        except LookupError:
            wait_s = ack_wait_s(subscription, desk.config.webhook_timeout_s)
            await desk.readers.ensure(subscription, channel, wait_s)
            return health | UNMEASURED

    def _alert(self, subscription: Subscription, health: dict[str, Any]) -> None:
        now = time.time()
        previous = self._alerts.get(subscription.id, Alert())
        alert = self._alerts[subscription.id] = previous.measured(lag_alert.is_above(subscription, health["lag"]), now)
        sending = self._sending.get(subscription.id)
        if alert.is_due(now) and (sending is None or sending.done()):
            self._sending[subscription.id] = asyncio.create_task(self._send(subscription, alert, health))

    async def _send(self, subscription: Subscription, alert: Alert, health: dict[str, Any]) -> None:
        desk, now = self._desk, time.time()
        message_id, body = lag_alert.message(subscription, alert, health)
        headers = webhook.headers(message_id, body, secrets_now(desk.config.secret_key, subscription, now), now)
        try:
            response = await desk.client.send(subscription.alert_url, headers, body)
            is_delivered = webhook.verdict(response) is Verdict.DELIVERED
        except SendFailed as failure:
            logger.warning("the lag alert of %s was not delivered: %s", subscription.id, failure)
            is_delivered = False
        if self._alerts.get(subscription.id) is alert:
            self._alerts[subscription.id] = alert.delivered() if is_delivered else alert.failed(time.time())

    async def _sweep(self) -> None:
        """Remove JetStream consumers whose subscription was deleted while no process was the leader."""
        snapshot = self._desk.snapshot
        if not any(True for _ in snapshot.channels()):
            return  # a snapshot that is being loaded does not show what was deleted
        for channel in list(snapshot.channels()):
            for name in await self._consumer_names(channel.stream):
                if name.startswith(ID_PREFIX) and snapshot.subscription(name) is None:
                    await self.clear_away(name, channel.stream)

    async def _consumer_names(self, stream: str) -> list[str]:
        names: list[str] = []
        while True:
            page = await self._desk.js.consumers_info(stream, offset=len(names))
            names += [info.name for info in page]
            if not page:
                return names

    async def clear_away(self, subscription_id: str, stream: str) -> None:
        """Delete everything that is stored for a deleted subscription."""
        desk = self._desk
        await desk.readers.remove(stream, subscription_id)
        await desk.attempts.forget_retries(subscription_id)
        await desk.attempts.clear_records(subscription_id)
        await desk.withheld.forget_all(subscription_id)
        # Purged from the stream of the bucket: deleting the key would keep a marker forever.
        await desk.js.purge_stream(HEALTH_STREAM, subject=HEALTH_PREFIX + subscription_id)
        self._published.pop(subscription_id, None)
        self._alerts.pop(subscription_id, None)
